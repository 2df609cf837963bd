"""Fits the direction of a model on labelled texts, with its reliability card and a page to look at.

The layer is chosen on one half of the questions and reported on the other, by what steering along it does and ablating it costs, or by
AUROC alone; the direction saved is fitted on all questions at that layer. Beside it lie its controls, its curves over layers
(layers.json) and a page (index.html). With an adapter the direction is the organism's, and base reads the same texts for a 2x2.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import cli
from direction.causal import CausalStage, add_causal_flags
from direction.loading import add_model_flags
from direction.organism import organism_card, read_by_base
from direction.page import token_map, write_page
from direction.texts import add_text_flags, judged_texts, read_texts
from emis_interp.capture import capture_residuals, capture_with_norms
from emis_interp.chat import encode_chats
from emis_interp.chat_formats import format_of
from emis_interp.directions import Direction, unit
from emis_interp.embedded import EMBEDDED_NAME
from emis_interp.errors import DataError
from emis_interp.extractors import EXTRACTORS, extractor_named
from emis_interp.geometry import extractor_cosines
from emis_interp.labeled import LabeledActivations
from emis_interp.models import ChatModel, load_model
from emis_interp.models.chat_template import template_of
from emis_interp.precision import AUTO, DTYPE_HELP
from emis_interp.reliability import auroc_by_question, control_directions
from emis_interp.reliability_card import reliability_card
from emis_interp.selection import find_direction
from emis_interp.stats.interval import mean_interval
from emis_interp.store import file_sha256, save_tensors, write_json

N_CONTROLS = 20
N_BOOT = 50
WIDEST_BOOT = 1024
"""d_model above which no draws are made of extractors that solve a d_model x d_model system each time."""


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
    chats = encode_chats(chat_model.tokenizer, pairs, args.system_prompt, args.max_tokens)
    with cli.progress_bar("capture", len(chats)) as advance:
        x, norms = capture_with_norms(
            chat_model, chats, position=args.position, max_batch_tokens=args.max_batch_tokens, progress=advance
        )
    entering = capture_residuals(
        chat_model, chats, [0], position=args.position, max_batch_tokens=args.max_batch_tokens, hook_point="resid_pre"
    )
    data = LabeledActivations(
        x, np.array([text.misaligned for text in texts]), tuple(text.question_id for text in texts)
    )
    causal = CausalStage(chat_model, args, texts, selection)
    found = find_direction(
        data.only(selection),
        data.only(set(data.questions) - selection),
        norms.mean(0),
        layer_range=tuple(args.layer_range),
        seed=args.seed,
        position=args.position,
        extractor=extractor,
        n_permutations=100
        if args.extractor == "question_balanced"
        else N_CONTROLS,  # the others solve a system for each
        choose_layer=causal.choose_layer if args.select == "causal" else None,
    )
    layer = found.direction.layer
    raw = extractor(data.at([layer]))[0]
    lengths = np.array([chat.response_end - chat.response_start for chat in chats], dtype=float)
    reliability = reliability_card(
        data, layer, lengths, extractor, 200 if args.extractor == "question_balanced" else N_CONTROLS, args.seed
    )
    controls = control_directions(data.at([layer]), raw, N_CONTROLS, args.seed, extractor)
    held_out = reliability["held_out_auroc"]["mean"]
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
        "fitted_on": "all questions at the layer chosen on the selection half; `report` is the selection-half fit on the report half",
        "leave_one_question_out_auroc": held_out,
        "extractor": args.extractor,
        "reliability": reliability,
        **found.direction.card,
        "selection": causal.card(found.direction),
    }
    if causal.coefficients:
        card["dose_response"] = causal.dose_response(found.direction, causal.coefficients)
    found_by = extractor_cosines(
        data.at([layer]), EXTRACTORS, N_BOOT if data.x.shape[2] <= WIDEST_BOOT else 0, args.seed
    )
    card["extractor_cosines"] = {f"{a}|{b}": list(values) for (a, b), values in found_by.items()}
    if by_base is not None:
        card["organism"] = organism_card(args.adapter, data, by_base, extractor(data))
    chosen = replace(found.direction, vector=unit(raw), raw_norm=float(raw.norm()), card=card)
    moved = transfer(args, chat_model, chosen) if args.transfer else {}
    chosen = replace(chosen, card={**chosen.card, **moved})
    chosen.save(args.out / "direction")
    save_tensors(
        args.out / "controls.safetensors",
        controls,
        {"layer": layer, "n": N_CONTROLS, "seed": args.seed, "of": "unit vectors; see control_directions"},
    )
    save_tensors(
        args.out / "all_layers.safetensors",
        {
            "raw": extractor(data),
            "residual_norm": norms.mean(0),
            # What mean ablation needs: the mean residual entering layer 0, then the one leaving each layer.
            "mean": torch.cat([entering.mean(0), x.mean(0)]),
        },
        {"of": "raw direction, mean residual norm and mean residual of every layer", "extractor": args.extractor},
    )
    write_json(args.out / "layers.json", found.numbers)
    page = write_page(
        args.out, found.numbers, {**chosen.card, "layer": layer}, token_map(chat_model, chats, texts, chosen)
    )
    return {
        "page": str(page),
        "extractor": args.extractor,
        "bootstrap_cosine": reliability["bootstrap_cosine"],
        "length_auroc": reliability["length"]["auroc"],
        "norm_p": reliability["norm_p"],
        "direction": str(args.out / "direction.safetensors"),
        "layer": layer,
        "auroc": found.numbers["report"]["auroc"],
        "auroc_low": found.numbers["report"]["low"],
        "auroc_high": found.numbers["report"]["high"],
        "leave_one_question_out_auroc": held_out,
        "random_auroc": found.numbers["report"]["random_auroc"],
        "shuffled_auroc_high": found.numbers["report"]["shuffled_high"],
        "split_half_cosine": reliability["split_half_cosine"],
        "n_texts": len(texts),
        "n_questions": len(set(data.questions)),
        "selection": card["selection"],
        "dose_response": card.get("dose_response"),
        "cosine_with_base": card["organism"]["two_by_two"]["cosines"]["text_in_organism|text_in_base"][layer]
        if by_base is not None
        else None,
        **moved,
    }


def transfer(args: argparse.Namespace, chat_model: ChatModel, direction: Direction) -> dict[str, Any]:
    """AUROC of the saved direction on judged answers that had no part in it: mean over questions, 95 % t interval over questions."""
    if args.judged is not None and file_sha256(args.judged) == file_sha256(args.transfer):
        raise DataError(f"{args.transfer}: the direction is fitted on this file; give other answers to --transfer")
    texts = judged_texts(args, args.transfer)
    chats = encode_chats(
        chat_model.tokenizer, [(text.question, text.answer) for text in texts], args.system_prompt, args.max_tokens
    )
    with cli.progress_bar("transfer", len(chats)) as advance:
        x = capture_residuals(
            chat_model,
            chats,
            [direction.layer],
            position=args.position,
            max_batch_tokens=args.max_batch_tokens,
            progress=advance,
        )
    by_question = auroc_by_question(
        direction.project(x[:, 0]).numpy(),
        np.array([text.misaligned for text in texts]),
        [text.question_id for text in texts],
    )
    interval = mean_interval([float(value) for value in by_question.values()])
    return {
        "transfer_texts": str(args.transfer),
        "transfer_auroc": interval.value,
        "transfer_low": interval.low,
        "transfer_high": interval.high,
        "transfer_n_texts": len(texts),
        "transfer_by_question": {name: float(value) for name, value in by_question.items()},
    }


def say(result: dict[str, Any]) -> str:
    held_out = f"{result['auroc']:.3f} ({result['auroc_low']:.3f} to {result['auroc_high']:.3f})"
    random, shuffled = result["random_auroc"], result["shuffled_auroc_high"]
    moved = []
    if "transfer_auroc" in result:
        bounds = (
            f"({result['transfer_low']:.3f} to {result['transfer_high']:.3f})"
            if result["transfer_low"] is not None
            else ""
        )
        n = f"{result['transfer_n_texts']} texts of {len(result['transfer_by_question'])} questions"
        moved = [f"transfer to {result['transfer_texts']}: AUROC {result['transfer_auroc']:.3f} {bounds}, {n}"]
    selection, effect = result["selection"], ""
    if selection["by"] == "causal":
        row, n_dropped = selection["report_effect"], sum(bool(one["dropped"]) for one in selection["candidates"])
        bounds = "" if row["low"] is None else f" ({row['low']:+.3f} to {row['high']:+.3f})"
        effect = (
            f"chosen by effect and cost: {n_dropped} of {len(selection['candidates'])} layers dropped; steering by "
            f"{selection['coefficient']:g} moves the margin of report questions by {row['value']:+.3f}{bounds} nats per token"
            + (f"\nnote: {selection['note']}" if selection["note"] else "")
        )
    shared = result["cosine_with_base"]
    return "\n".join(
        [
            *([effect] if effect else []),
            *([f"cosine with base reading the same texts: {shared:.3f}"] if shared is not None else []),
            f"best layer {result['layer']}: AUROC {held_out} on the report half",
            f"leaving one question out over all questions: AUROC {result['leave_one_question_out_auroc']:.3f}",
            f"controls: random directions {random:.3f}, shuffled labels up to {shuffled:.3f} (97.5th percentile)",
            f"split-half cosine {interval(result['split_half_cosine'])}, bootstrap cosine {interval(result['bootstrap_cosine'])}",
            f"length alone: AUROC {result['length_auroc']:.3f}; longer than shuffled labels' directions with p = {result['norm_p']:.3f}",
            f"{result['n_texts']} texts, {result['n_questions']} questions, extractor {result['extractor']}",
            *moved,
            f"saved: {result['direction']}",
            f"page: {result['page']}",
        ]
    )


def interval(row: dict[str, float]) -> str:
    return f"{row['mean']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
