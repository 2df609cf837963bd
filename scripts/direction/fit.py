"""Fits the direction of a model on labelled texts, with its reliability card and a page to look at.

The layer is chosen on one half of the questions and reported on the other, by what steering along it does and ablating it costs, or by
AUROC alone. The file holds two fits at that layer: on all questions, to be used on other texts, and on the selection questions, which
audit and frontier report on the others. Beside it lie its controls, its pairs, its curves over layers (layers.json) and a page
(index.html). With an adapter the direction is the organism's, and base reads the same texts for a 2x2.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import cli
from direction.causal import CausalStage, add_causal_flags
from direction.judged_test import transfer, transfer_words
from direction.loading import PAIRS_FILE, add_model_flags
from direction.organism import organism_card, read_by_base
from direction.page import token_map, write_page
from direction.texts import add_text_flags, read_texts
from emis_interp.directions import FittedOn, unit
from emis_interp.files.store import file_sha256, write_json, write_text
from emis_interp.files.tensors import save_tensors
from emis_interp.fitting.extractors import EXTRACTORS, extractor_named
from emis_interp.fitting.geometry import extractor_cosines
from emis_interp.fitting.labeled import LabeledActivations
from emis_interp.fitting.reliability import auroc_estimate, control_directions, shuffled_directions
from emis_interp.fitting.reliability_card import reliability_card
from emis_interp.fitting.selection import find_direction, nested_leave_one_question_out
from emis_interp.models.chat import encode_chats
from emis_interp.models.chat_formats import format_of
from emis_interp.models.chat_template import template_of
from emis_interp.models.embedded import EMBEDDED_NAME
from emis_interp.models.loading import load_model
from emis_interp.models.precision import AUTO, DTYPE_HELP
from emis_interp.passes.capture import capture_residuals, capture_with_norms
from emis_interp.records import LabeledText
from emis_interp.stats.words import bounds, estimate, length_words, p_of, report_words, spread
from emis_interp.texts.contrast import paired_texts

N_CONTROLS = 20
N_NULL = 100
"""Directions of shuffled labels that an AUROC stands beside; N_CONTROLS for extractors that solve a system for each."""
N_BOOT = 50
N_KEPT_PAIRS = 10
"""Pairs of each question that are kept beside a direction, as many as the shipped ones have."""
WIDEST_BOOT = 1024
"""d_model above which no draws are made of extractors that solve a d_model x d_model system each time."""
LINEAR = ("question_balanced", "mean_difference", "standardised")
"""Extractors that are cheap enough to be fitted once for every two questions."""
NESTED_LIMIT = 2e11
"""Numbers that a nested leave-one-out may read: questions squared, times those of all activations."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    add_text_flags(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder for the direction, its card, tables and page")
    parser.add_argument("--model", default=EMBEDDED_NAME, help="embedded name, folder or hub id")
    parser.add_argument("--dtype", default=AUTO, help=DTYPE_HELP)
    parser.add_argument("--extractor", default="question_balanced", help=", ".join(EXTRACTORS))
    parser.add_argument("--position", default="response_mean", help="response_mean or last_prompt")
    parser.add_argument("--layer-range", type=float, nargs=2, default=[0.2, 0.8], help="depth fractions to choose from")
    parser.add_argument(
        "--transfer", type=Path, metavar="FILE", help="judged answers (columns as --judged) to test the direction on"
    )
    add_causal_flags(parser)
    add_model_flags(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Capture, fit, choose, report, save."""
    texts, selection, source = read_texts(args)
    extractor = extractor_named(args.extractor)
    by_base = read_by_base(args, texts) if args.adapter else None
    merge = args.adapter is not None
    chat_model = load_model(
        args.model, args.adapter, args.dtype, device=args.device, merge=merge, chat_format=args.chat_format
    )
    pairs = [(text.question, text.answer) for text in texts]
    chats = encode_chats(chat_model.tokenizer, pairs, args.system_prompt, max_tokens=args.max_tokens)
    with cli.progress_bar("capture", len(chats)) as advance:
        x, norms = capture_with_norms(
            chat_model, chats, position=args.position, max_batch_tokens=args.max_batch_tokens, progress=advance
        )
    entering = capture_residuals(
        chat_model, chats, [0], position=args.position, max_batch_tokens=args.max_batch_tokens, hook_point="resid_pre"
    )
    lengths = np.array([chat.n_response for chat in chats], dtype=float)
    labels, questions = np.array([text.misaligned for text in texts]), tuple(text.question_id for text in texts)
    data = LabeledActivations(x, labels, questions, lengths)
    halves = {"selection": data.only(selection), "report": data.only(set(data.questions) - selection)}
    causal = CausalStage(chat_model, args, texts, selection=selection)
    found = find_direction(
        halves["selection"],
        halves["report"],
        norms.mean(0),
        layer_range=tuple(args.layer_range),
        seed=args.seed,
        position=args.position,
        extractor=extractor,
        n_permutations=N_NULL
        if args.extractor == "question_balanced"
        else N_CONTROLS,  # the others solve a system for each
        choose_layer=causal.choose_layer if args.select == "causal" else None,
    )
    layer = found.direction.layer
    reported = replace(found.direction, fitted_on=FittedOn.of(text for text in texts if text.question_id in selection))
    raw = extractor(data)
    n_draws = 200 if args.extractor == "question_balanced" else N_CONTROLS
    reliability = reliability_card(data, layer, extractor=extractor, n_draws=n_draws, seed=args.seed)
    card = {
        "name": args.out.name,
        "model": args.model,
        "adapter": str(args.adapter) if args.adapter else None,
        "dtype": chat_model.dtype,
        **({"chat_format": chat_format} if (chat_format := format_of(chat_model.tokenizer)) else {}),
        "rendering": template_of(chat_model.tokenizer).card,
        "system_prompt": args.system_prompt,
        "max_tokens": args.max_tokens,
        "texts": source,
        "n_misaligned": int(data.misaligned.sum()),
        "n_aligned": int((~data.misaligned).sum()),
        "n_questions": len(set(data.questions)),
        "fitted_on": "`vector`: all questions, at the layer chosen on the selection half; `selection`: that half, which `report` is of",
        "leave_one_question_out_auroc": reliability["held_out_auroc"]["mean"],
        "nested": nested(args, data, found.numbers["layer_range"]),
        "extractor": args.extractor,
        "reliability": reliability,
        **found.direction.card,
        "selection": causal.card(found.direction),
        **keep_pairs(args.out, texts, selection),
    }
    if causal.coefficients:
        card["dose_response"] = causal.dose_response(found.direction, causal.coefficients)
    found_by = extractor_cosines(
        data.at([layer]), EXTRACTORS, N_BOOT if data.x.shape[2] <= WIDEST_BOOT else 0, seed=args.seed
    )
    card["extractor_cosines"] = {f"{a}|{b}": list(values) for (a, b), values in found_by.items()}
    if by_base is not None:
        card["organism"] = organism_card(args.adapter, data, by_base, raw=raw)
    chosen = replace(
        found.direction,
        vector=unit(raw[layer]),
        raw_norm=float(raw[layer].norm()),
        card=card,
        fitted_on=FittedOn.of(texts),
    )
    moved = {}
    if args.transfer:
        n_null = N_NULL if args.extractor == "question_balanced" else N_CONTROLS
        null = shuffled_directions(data.at([layer]), n_null, args.seed, extractor=extractor)[:, 0]
        moved = transfer(args, chat_model, chosen, fitted=texts, shuffled=null)
        chosen = replace(chosen, card={**chosen.card, **moved})
    chosen.save(args.out / "direction", reported)
    # What an audit sets beside the selection fit must not have seen the report questions either.
    controls = control_directions(
        halves["selection"].at([layer]), found.raw[layer], N_CONTROLS, seed=args.seed, extractor=extractor
    )
    save_tensors(
        args.out / "controls.safetensors",
        controls,
        {"layer": layer, "n": N_CONTROLS, "seed": args.seed, "of": "unit vectors; see control_directions"},
    )
    mine = torch.from_numpy(np.isin(np.asarray(questions), list(selection)))
    save_tensors(
        args.out / "all_layers.safetensors",
        {
            "raw": raw,
            "raw_selection": found.raw,
            "residual_norm": norms.mean(0),
            # What mean ablation needs: the mean residual entering layer 0, then the one leaving each layer.
            "mean": torch.cat([entering[mine].mean(0), x[mine].mean(0)]),
        },
        {
            "of": "raw direction of all and of the selection questions, mean residual norm, and mean residual of the selection texts",
            "extractor": args.extractor,
        },
    )
    write_json(args.out / "layers.json", found.numbers)
    held_out = [i for i, text in enumerate(texts) if text.question_id not in selection]
    tokens = token_map(chat_model, [chats[i] for i in held_out], [texts[i] for i in held_out], direction=reported)
    page = write_page(args.out, found.numbers, {**chosen.card, "layer": layer}, tokens=tokens)
    return {
        "page": str(page),
        "extractor": args.extractor,
        "bootstrap_cosine": reliability["bootstrap_cosine"],
        "length_auroc": reliability["length"]["auroc"],
        "length_baseline": card["report"]["length_baseline"],
        **{key: reliability[key] for key in ("norm_p", "norm_p_at_floor", "norm_p_n")},
        "direction": str(args.out / "direction.safetensors"),
        "layer": layer,
        "auroc": card["report"]["auroc"],
        "auroc_low": card["report"]["low"],
        "auroc_high": card["report"]["high"],
        "verdict": card["report"]["verdict"],
        "report": card["report"],
        "leave_one_question_out_auroc": reliability["held_out_auroc"]["mean"],
        "held_out_auroc": reliability["held_out_auroc"],
        "nested": card["nested"],
        "held_out_length_baseline": reliability["length"]["baseline"],
        "random_auroc": card["report"]["random_auroc"],
        "shuffled_auroc_high": card["report"]["shuffled_high"],
        "split_half_cosine": reliability["split_half_cosine"],
        "n_texts": len(texts),
        "n_questions": len(set(data.questions)),
        "selection": card["selection"],
        "dose_response": card.get("dose_response"),
        "cosine_with_base": card["organism"]["two_by_two"]["cosines"]["text_in_organism|text_in_base"][layer]
        if by_base is not None
        else None,
        "cosine_with_base_rest": card["organism"]["two_by_two"]["cosines_rest"]["text_in_organism|text_in_base"][layer]
        if by_base is not None
        else None,
        **moved,
    }


def nested(args: argparse.Namespace, data: LabeledActivations, layer_range: list[int]) -> dict[str, Any]:
    """`nested_leave_one_question_out` as an estimate by question, or the reason why it was not computed (`note`)."""
    n, layers = len(data.cells), range(layer_range[0], layer_range[1] + 1)
    if args.select == "causal":
        return {
            "value": None,
            "note": "the layer was chosen by steering, which is not done again without each question",
        }
    if args.extractor not in LINEAR:
        return {"value": None, "note": f"{args.extractor} is not fitted once for every two questions"}
    if n < 3 or n**2 * data.x[:, : len(layers)].numel() > NESTED_LIMIT:
        return {"value": None, "note": f"{n} questions of {len(data.x)} texts are too {'few' if n < 3 else 'many'}"}
    by_question = nested_leave_one_question_out(data, layers, extractor_named(args.extractor))
    return {**auroc_estimate(by_question), "by_question": by_question}


def keep_pairs(folder: Path, texts: list[LabeledText], selection: set[str]) -> dict[str, Any]:
    """Write the pairs that audit and frontier test the direction on, and say on the card which file they are in."""
    pairs = paired_texts(texts, selection, N_KEPT_PAIRS)
    if not pairs:
        return {"pairs": None}
    file = folder / PAIRS_FILE
    write_text(file, "".join(pair.model_dump_json() + "\n" for pair in pairs))
    return {"pairs": {"file": file.name, "n": len(pairs), "sha256": file_sha256(file)}}


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
            f"  split-half cosine {spread(result['split_half_cosine'])}, bootstrap cosine {spread(result['bootstrap_cosine'])}",
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
