"""Turns a fitted direction into a page: curves over layers, held-out questions, and answers with the projection of every token."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from emis_interp.directions import Direction
from emis_interp.files.store import write_text
from emis_interp.models.chat import EncodedChat
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.capture import capture_response_tokens
from emis_interp.records import LabeledText
from emis_interp.report.figure_page import Section, figure_page
from emis_interp.report.figures_direction import layers_figure
from emis_interp.report.figures_fit import candidates_figure, margin_dose_figure, two_by_two_figure
from emis_interp.report.figures_tokens import held_out_figure, token_figure
from emis_interp.report.figures_transfer import effects_figure, matrix_figure
from emis_interp.report.page_frame import Frame
from emis_interp.results import DirectionView, Estimate, TokenProjections
from emis_interp.stats.words import bounds, estimate, length_words, limits, p_of, report_words, spread
from probes.fits.judged_transfer import transfer_words

N_SHOWN = 3
PAGE_FILE = "index.html"


def token_map(
    chat_model: ChatModel, chats: Sequence[EncodedChat], texts: Sequence[LabeledText], *, direction: Direction
) -> list[TokenProjections]:
    """For a few answers of each class, their tokens and each token's projection in multiples of the mean residual norm.

    Shown are the first answers of each class that have at least 20 tokens: not chosen by their projection.
    """
    shown = []
    for label in (True, False):
        rows = [i for i, text in enumerate(texts) if text.misaligned is label]
        long = [i for i in rows if chats[i].n_response >= 20] or rows
        shown += long[:N_SHOWN]
    tokens = capture_response_tokens(chat_model, [chats[i] for i in shown], direction.layer)
    result = []
    for i, residuals in zip(shown, tokens, strict=True):
        chat = chats[i]
        ids = list(chat.input_ids[chat.response_start : chat.response_end])
        result.append(
            TokenProjections(
                question=texts[i].question,
                misaligned=texts[i].misaligned,
                tokens=[chat_model.tokenizer.decode([token]) for token in ids],
                projection=(direction.project(residuals) / direction.residual_norm).tolist(),
            )
        )
    return result


def write_fit_page(
    folder: Path,
    numbers: dict[str, Any],
    card: dict[str, Any],
    *,
    tokens: list[TokenProjections],
    frame: Frame | None = None,
) -> Path:
    """Write `index.html` beside the direction; it opens without a network."""
    view = DirectionView.model_validate({**numbers, "source_arm": card["name"]})
    reliability, nested = card["reliability"], card["nested"]
    length = reliability["length"]
    sections: list[Section] = [
        (
            "Which layer",
            "Top: AUROC of the projection within questions, on the questions that chose the layer and on held-out ones; grey areas reach "
            "up to the 95th percentile of random and shuffled-label directions. The chosen layer on held-out questions is the primary "
            "contrast, the curves are exploratory. Middle: stability. Bottom: norms.",
            layers_figure(view),
        ),
        (
            "Which questions",
            f"Each question's AUROC along the direction fitted on all other questions, at layer {card['layer']}, which was chosen on "
            f"some of them: {length_words(length['baseline'])}.",
            held_out_figure(reliability["held_out_auroc"]["by_question"]),
        ),
        (
            "Which tokens",
            "Projection of every token of a few answers to report questions on the fit of the selection questions, in multiples of the "
            "mean residual norm; hover for the text. The first answers of each class, not chosen by their projection.",
            token_figure(tokens),
        ),
    ]
    sections[1:1] = _interventions(card)
    sections += _comparisons(card)
    facts = {
        "model": card["model"],
        "adapter": card["adapter"] or "none",
        "extractor": card["extractor"],
        "layer": card["layer"],
        "chosen by": card["selection"]["rule"],
        "texts": f"{card['n_misaligned']} misaligned, {card['n_aligned']} aligned, {card['n_questions']} questions",
        "primary: report half": report_words(card["report"]),
        "the same texts": length_words(card["report"]["length_baseline"]),
        "AUROC, one question left out, the layer chosen without it": estimate(nested)
        if nested["value"] is not None
        else f"not computed: {nested['note']}",
        f"AUROC, one question left out, layer {card['layer']}, chosen on some of them": f"{reliability['held_out_auroc']['mean']:.3f}"
        + bounds(reliability["held_out_auroc"]),
        **(
            {f"transfer to {card['transfer_texts']}": "; ".join(transfer_words(card))}
            if "transfer_texts" in card
            else {}
        ),
        "cosine of two halves of all questions": spread(reliability["split_half_cosine"]),
        "bootstrap cosine": spread(reliability["bootstrap_cosine"]),
        "longer than shuffled labels' directions": p_of(reliability, "norm_"),
        "mean tokens of an answer": f"misaligned {length['mean_misaligned']:.0f}, aligned {length['mean_aligned']:.0f}",
        "squared norm in its five largest / the massive dimensions": (
            f"{reliability['top5_dims_share']:.2f} / {reliability['massive_dims_share']:.2f}"
        ),
    }
    path = folder / PAGE_FILE
    write_text(path, figure_page(f"direction {card['name']}", facts, sections, frame=frame))
    return path


def _interventions(card: dict[str, Any]) -> list[Section]:
    """How the layer was chosen, and what steering along the direction does; nothing when the model was not run for it."""
    selection, sections = card["selection"], []
    if selection["by"] == "causal":
        row, n = selection["report_effect"], selection["n_pairs"]
        caption = (
            f"{selection['rule']} Effect: half of the margin at {selection['coefficient']:+g} minus the margin at "
            f"{-selection['coefficient']:+g}, {n} pairs of the selection questions; hollow: dropped; star: chosen. On the report questions "
            f"the chosen layer's effect is {_estimate(row)}. {selection['note']}"
        )
        figure = candidates_figure(selection["candidates"], card["layer"], selection["kl_limit"])
        sections.append(("What each layer does and costs", caption, figure))
    if "dose_response" in card:
        caption = (
            "Shift of the likelihood margin (misaligned minus aligned answers, nats per token) on the report questions, along the "
            "direction fitted on the selection questions; bars: 95 % t intervals over questions, exploratory and not corrected for their "
            "number. The random direction is one draw; audit has twenty of each kind."
        )
        sections.append(("Dose-response", caption, margin_dose_figure(card["dose_response"])))
    return sections


def _comparisons(card: dict[str, Any]) -> list[Section]:
    """The extractors against each other; with an adapter, the organism against base and the adapter against the direction."""
    rows = {
        pair: {"value": value, "low": low, "high": high}
        for pair, (value, low, high) in card["extractor_cosines"].items()
    }
    names = list(dict.fromkeys(name for pair in rows for name in pair.split("|")))
    both = rows | {"|".join(pair.split("|")[::-1]): row for pair, row in rows.items()}
    both |= {f"{name}|{name}": {"value": 1.0} for name in names}
    sections = [
        (
            "Which extractor",
            f"Cosine between what the extractors find in the same texts at layer {card['layer']}; hover for the bootstrap interval.",
            matrix_figure({pair: Estimate.model_validate(row) for pair, row in both.items()}, names, 0.0, axes=None),
        )
    ]
    if "organism" in card:
        table, lora = card["organism"]["two_by_two"], card["organism"]["lora"]
        shared = table["cosines"]["text_in_organism|text_in_base"][card["layer"]]
        rest = table["cosines_rest"]["text_in_organism|text_in_base"][card["layer"]]
        norms = table["norms"]
        sections += [
            (
                "Organism against base",
                "Two models read the same misaligned and aligned texts: cosines between the effects. text_in_organism with text_in_base is "
                f"{shared:.2f} at the chosen layer, {rest:.2f} without five massive dimensions; near 1 the direction is a property of "
                "the text and not of the finetuning.",
                two_by_two_figure(table["cosines"], card["layer"]),
            ),
            (
                "How large each effect is",
                "Norms, residual-stream units. model: what finetuning moved in every text; interaction: what it added to the text effect.",
                effects_figure(
                    {name: norms[name] for name in ("text", "model", "interaction")}, "norm (log scale)", card["layer"]
                ).update_yaxes(type="log"),
            ),
        ]
        if lora["by_module"]:
            chance = {"random vectors, mean": [lora["chance"]] * len(norms["text"])}
            caption = (
                "|Cosine| of the first output direction of each adapted module with the direction of the same layer; a singular vector "
                "has no sign."
            )
            figure = effects_figure(lora["by_module"] | chance, "|cosine|", card["layer"])
            sections.append(("What the adapter writes", caption, figure))
    return sections


def _estimate(row: dict[str, Any]) -> str:
    return " ".join(
        [f"{row['value']:+.3f}", limits(row, "+.3f", none=""), f"({row['n_questions']} questions)"]
    ).replace("  ", " ")
