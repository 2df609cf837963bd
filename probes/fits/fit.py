"""Turns settings into a fitted direction: a folder with the direction, its card, its controls and a page to look at."""

from pathlib import Path
from typing import Any

from emis_interp.directions import STEM
from emis_interp.errors import ConfigError, DataError
from emis_interp.files.store import file_sha256
from emis_interp.fitting.extractors import extractor_named
from emis_interp.fitting.fitted import Fit, fit_texts
from emis_interp.models.chat_model import ChatModel
from emis_interp.process import Bars, no_bars
from emis_interp.report.page_frame import command_of, frame_of
from emis_interp.stats.words import bounds, estimate, length_words, p_of, report_words, spread
from emis_interp.texts.contrast import paired_texts
from probes.comparison.against_base import organism_card, read_by_base
from probes.fits.causal_selection import CausalRule
from probes.fits.dose import dose_response
from probes.fits.fit_page import PAGE_FILE, token_map, write_fit_page
from probes.fits.judged_transfer import transfer_to, transfer_words
from probes.fits.texts import in_half, judged_texts, read_texts
from probes.settings import COEFFICIENTS, FitSettings


def run(settings: FitSettings, bars: Bars = no_bars) -> dict[str, Any]:
    """Capture, fit, choose, report, save."""
    if settings.coefficient <= 0 or settings.n_pairs < 1:
        raise ConfigError("--coefficient and --n-pairs must be positive")
    texts, selection, source = read_texts(settings)
    extractor_named(settings.extractor)  # before a model is loaded
    limits = {
        "system": settings.system_prompt,
        "max_tokens": settings.max_tokens,
        "max_batch_tokens": settings.max_batch_tokens,
    }
    by_base = None
    if settings.adapter is not None:
        by_base = read_by_base(settings.spec, texts, position=settings.position, bars=bars, **limits)
    chat_model = settings.spec.load()
    pairs = paired_texts(texts, selection, settings.n_pairs)
    rule = None
    if settings.select == "causal":
        rule = CausalRule(
            chat_model,
            pairs,
            settings.coefficient,
            kl_limit=settings.kl_limit,
            system=settings.system_prompt,
            max_batch_tokens=settings.max_batch_tokens,
            bars=bars,
        )
    origin = {
        "name": settings.out.name,
        "model": settings.model,
        "quantisation": chat_model.quantisation,
        "adapter": str(settings.adapter) if settings.adapter is not None else None,
        "texts": source,
    }
    found = fit_texts(
        chat_model,
        texts,
        selection,
        extractor=settings.extractor,
        position=settings.position,
        layer_range=settings.layer_range,
        choose_layer=rule,
        seed=settings.seed,
        origin=origin,
        bars=bars,
        **limits,
    )
    if rule is not None:
        found = found.with_card(selection=rule.card(found.reported))
    coefficients = settings.coefficients
    if coefficients is None:
        coefficients = COEFFICIENTS if any(pair.half == "report" for pair in pairs) else ()
    if coefficients:
        dose = dose_response(
            chat_model,
            found.reported,
            in_half(pairs, "report"),
            coefficients=sorted(coefficients),
            seed=settings.seed,
            system=settings.system_prompt,
            max_batch_tokens=settings.max_batch_tokens,
            bars=bars,
        )
        found = found.with_card(dose_response=dose)
    if settings.adapter is not None and by_base is not None:
        found = found.with_card(organism=organism_card(settings.adapter, found.data, by_base, raw=found.raw))
    moved = {}
    if settings.transfer is not None:
        moved = transferred(settings, settings.transfer, chat_model, found=found, bars=bars)
        found = found.with_card(**moved)
    found.save(settings.out)
    tokens = token_map(
        chat_model,
        [found.chats[i] for i in found.held_out],
        [found.texts[i] for i in found.held_out],
        direction=found.reported,
    )
    card = {**found.direction.card, "layer": found.layer}
    frame = frame_of(
        settings.out / PAGE_FILE,
        command_of("scripts/find_direction.py fit", settings),
        settings.out / f"{STEM}.json",
        settings.out / "layers.json",
    )
    page = write_fit_page(settings.out, found.numbers, card, tokens=tokens, frame=frame)
    return {**summary(found), **moved, "direction": str(settings.out / f"{STEM}.safetensors"), "page": str(page)}


def transferred(settings: FitSettings, path: Path, chat_model: ChatModel, *, found: Fit, bars: Bars) -> dict[str, Any]:
    """`transfer_to` for a judged file.

    Raises:
        DataError: the direction was fitted on this very file.
    """
    if settings.judged is not None and file_sha256(settings.judged) == file_sha256(path):
        raise DataError(f"{path}: the direction is fitted on this file; give other answers to --transfer")
    return transfer_to(
        judged_texts(settings, path),
        chat_model,
        found.direction,
        name=str(path),
        fitted=found.texts,
        shuffled=found.shuffled(),
        system=settings.system_prompt,
        max_tokens=settings.max_tokens,
        max_batch_tokens=settings.max_batch_tokens,
        bars=bars,
    )


def summary(found: Fit) -> dict[str, Any]:
    """What is told of a fit: the figures of its card."""
    card, layer = found.direction.card, found.layer
    report, reliability = card["report"], card["reliability"]
    table = card["organism"]["two_by_two"] if "organism" in card else None
    shared = "text_in_organism|text_in_base"
    return {
        "extractor": found.extractor,
        "bootstrap_cosine": reliability["bootstrap_cosine"],
        "length_auroc": reliability["length"]["auroc"],
        "length_baseline": report["length_baseline"],
        **{key: reliability[key] for key in ("norm_p", "norm_p_at_floor", "norm_p_n")},
        "layer": layer,
        "auroc": report["auroc"],
        "auroc_low": report["low"],
        "auroc_high": report["high"],
        "verdict": report["verdict"],
        "report": report,
        "leave_one_question_out_auroc": reliability["held_out_auroc"]["mean"],
        "held_out_auroc": reliability["held_out_auroc"],
        "nested": card["nested"],
        "held_out_length_baseline": reliability["length"]["baseline"],
        "random_auroc": report["random_auroc"],
        "shuffled_auroc_high": report["shuffled_high"],
        "split_half_cosine": reliability["split_half_cosine"],
        "n_texts": len(found.texts),
        "n_questions": card["n_questions"],
        "selection": card["selection"],
        "dose_response": card.get("dose_response"),
        "cosine_with_base": None if table is None else table["cosines"][shared][layer],
        "cosine_with_base_rest": None if table is None else table["cosines_rest"][shared][layer],
    }


def say(result: dict[str, Any]) -> str:
    selection, effect = result["selection"], []
    if selection["by"] == "causal":
        row, n_dropped = selection["report_effect"], sum(bool(one["dropped"]) for one in selection["candidates"])
        effect = [
            f"chosen by effect and cost: {n_dropped} of {len(selection['candidates'])} layers dropped; steering by "
            f"{selection['coefficient']:g} moves the margin of report questions by {row['value']:+.3f}{bounds(row, '+.3f')} nats per token"
            + (f"\nnote: {selection['note']}" if selection["note"] else "")
        ]
    shared, held_out, nested_one = result["cosine_with_base"], result["held_out_auroc"], result["nested"]
    if shared is not None:
        rest = result["cosine_with_base_rest"]
        effect.append(
            f"cosine with base reading the same texts: {shared:.3f}; without five massive dimensions {rest:.3f}"
        )
    nested_words = estimate(nested_one) if nested_one["value"] is not None else f"not computed: {nested_one['note']}"
    plain, moved = estimate({**held_out, "value": held_out["mean"]}), transfer_words(result)
    return "\n".join(
        [
            *effect,
            f"layer {result['layer']}, chosen on the selection half; primary, on the report half: {report_words(result['report'])}",
            f"  {length_words(result['length_baseline'])}",
            "exploratory:",
            f"  one question left out of all, the layer chosen without it too: AUROC {nested_words}",
            f"  one question left out of all, at layer {result['layer']}, which was chosen on some of them: AUROC {plain}",
            f"    {length_words(result['held_out_length_baseline'])}",
            f"  random directions {result['random_auroc']:.3f}",
            f"  cosine of two halves of all questions {spread(result['split_half_cosine'])}",
            f"  bootstrap cosine {spread(result['bootstrap_cosine'])}",
            f"  longer than shuffled labels' directions: {p_of(result, 'norm_')}",
            *(
                f"  {'transfer to ' + result['transfer_texts'] + ': ' if i == 0 else '  '}{line}"
                for i, line in enumerate(moved)
            ),
            f"{result['n_texts']} texts, {result['n_questions']} questions, extractor {result['extractor']}",
            f"saved: {result['direction']} (two fits: all questions, to use; selection questions, to report)",
            f"page: {result['page']}",
        ]
    )
