"""Finds the misalignment direction of any model from texts, or scores texts with a saved one.

Examples:
  python scripts/find_direction.py --out directions/mine                     shipped contrast pairs, embedded model
  python scripts/find_direction.py fit --judged answers.parquet --out directions/judged
  python scripts/find_direction.py fit --pairs pairs.jsonl --model Qwen/Qwen2.5-0.5B-Instruct --adapter ADAPTER --out d
  python scripts/find_direction.py score --direction directions/mine/direction --texts answers.csv --out projections.csv

`fit` is the default verb. It chooses the layer on one half of the questions, reports on the other, and saves the direction at that layer
fitted on all questions. `score` writes one projection per row, in the order of the rows; larger is more misaligned.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import cli
from emis_interp.capture import capture_residuals, capture_with_norms
from emis_interp.chat import encode_chats
from emis_interp.contrast import labeled_texts, load_contrast
from emis_interp.directions import Direction, unit
from emis_interp.embedded import EMBEDDED_NAME
from emis_interp.errors import DataError
from emis_interp.extractors import question_balanced
from emis_interp.judged import balanced_texts, read_judged, read_table, split_questions
from emis_interp.labeled import LabeledActivations
from emis_interp.models import ChatModel, load_model
from emis_interp.records import LabeledText
from emis_interp.reliability import auroc_by_question, leave_one_question_out_auroc
from emis_interp.selection import find_direction
from emis_interp.store import file_sha256, write_json, write_text
from evals.uncertainty import mean_interval


def fit(args: argparse.Namespace) -> dict[str, Any]:
    """Capture, fit, choose, report, save."""
    texts, selection, source = read_texts(args)
    chat_model = load_model(
        args.model, args.adapter, dtype=args.dtype, device=args.device, merge=args.adapter is not None
    )
    pairs = [(text.question, text.answer) for text in texts]
    chats = encode_chats(chat_model.tokenizer, pairs, args.system_prompt, args.max_tokens)
    with cli.progress_bar("capture", len(chats)) as advance:
        x, norms = capture_with_norms(
            chat_model, chats, position=args.position, max_batch_tokens=args.max_batch_tokens, progress=advance
        )
    data = LabeledActivations(
        x, np.array([text.misaligned for text in texts]), tuple(text.question_id for text in texts)
    )
    found = find_direction(
        data.only(selection),
        data.only(set(data.questions) - selection),
        norms.mean(0),
        tuple(args.layer_range),
        seed=args.seed,
        position=args.position,
    )
    layer = found.direction.layer
    raw = question_balanced(data)[layer]
    held_out = float(leave_one_question_out_auroc(data.rows(np.arange(len(texts))))[layer])
    card = {
        "name": args.out.name,
        "model": args.model,
        "adapter": str(args.adapter) if args.adapter else None,
        "dtype": args.dtype,
        "system_prompt": args.system_prompt,
        "max_tokens": args.max_tokens,
        "texts": source,
        "n_misaligned": int(data.misaligned.sum()),
        "n_aligned": int((~data.misaligned).sum()),
        "n_questions": len(set(data.questions)),
        "fitted_on": "all questions at the layer chosen on the selection half; `report` is the selection-half fit on the report half",
        "leave_one_question_out_auroc": held_out,
        **found.direction.card,
    }
    chosen = replace(found.direction, vector=unit(raw), raw_norm=float(raw.norm()), card=card)
    moved = transfer(args, chat_model, chosen) if args.transfer else {}
    chosen = replace(chosen, card={**chosen.card, **moved})
    chosen.save(args.out / "direction")
    write_json(args.out / "layers.json", found.numbers)
    return {
        "direction": str(args.out / "direction.safetensors"),
        "layer": layer,
        "auroc": found.numbers["report"]["auroc"],
        "auroc_low": found.numbers["report"]["low"],
        "auroc_high": found.numbers["report"]["high"],
        "leave_one_question_out_auroc": held_out,
        "random_auroc": found.numbers["report"]["random_auroc"],
        "shuffled_auroc_high": found.numbers["report"]["shuffled_high"],
        "split_half_cosine": found.direction.card["split_half_cosine"],
        "n_texts": len(texts),
        "n_questions": len(set(data.questions)),
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
            chat_model, chats, [direction.layer], args.position, args.max_batch_tokens, progress=advance
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


def judged_texts(args: argparse.Namespace, path: Path) -> list[LabeledText]:
    variant = None if args.variant == "all" else args.variant
    return balanced_texts(read_judged(path, variant), args.max_per_class, args.seed)


def read_texts(args: argparse.Namespace) -> tuple[list[LabeledText], set[str], dict[str, Any]]:
    """Labelled texts, the questions of the selection half, and where they come from."""
    if args.judged is not None:
        texts = judged_texts(args, args.judged)
        counts = {
            name: sum(text.question_id == name for text in texts) for name in {text.question_id for text in texts}
        }
        source = {
            "judged": str(args.judged),
            "sha256": file_sha256(args.judged),
            "variant": args.variant,
            "max_per_class": args.max_per_class,
        }
        return texts, split_questions(counts)[0], source
    pairs = load_contrast(args.pairs)
    selection = {pair.question_id for pair in pairs if pair.half == "selection"}
    source = {"pairs": str(args.pairs), "sha256": file_sha256(args.pairs)} if args.pairs else {"pairs": "shipped"}
    return labeled_texts(pairs), selection, source


def score(args: argparse.Namespace) -> dict[str, Any]:
    """One projection per row of the table, in its order."""
    direction = Direction.load(args.direction)
    frame = read_table(args.texts, ("question", "answer"))
    model = args.model or direction.card.get("model")
    adapter = args.adapter or (Path(direction.card["adapter"]) if direction.card.get("adapter") else None)
    if model is None:
        raise DataError(f"{args.direction}: its card names no model; give --model")
    chat_model = load_model(
        model,
        adapter,
        dtype=args.dtype or direction.card.get("dtype", "float32"),
        device=args.device,
        merge=adapter is not None,
    )
    pairs = list(zip(frame["question"].astype(str), frame["answer"].astype(str), strict=True))
    chats = encode_chats(
        chat_model.tokenizer, pairs, direction.card.get("system_prompt"), direction.card.get("max_tokens")
    )
    with cli.progress_bar("score", len(chats)) as advance:
        x = capture_residuals(
            chat_model, chats, [direction.layer], direction.position, args.max_batch_tokens, progress=advance
        )
    projections = direction.project(x[:, 0]).numpy()
    table = pd.DataFrame({"projection": projections, "projection_normed": projections / direction.residual_norm})
    write_text(args.out, table.to_csv(index=False))
    return {
        "out": str(args.out),
        "n_texts": len(table),
        "layer": direction.layer,
        "mean_projection": float(projections.mean()),
    }


def say(result: dict[str, Any]) -> str:
    if "out" in result:
        return f"{result['n_texts']} projections at layer {result['layer']} in {result['out']}"
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
    return "\n".join(
        [
            f"best layer {result['layer']}: AUROC {held_out} on the report half",
            f"leaving one question out over all questions: AUROC {result['leave_one_question_out_auroc']:.3f}",
            f"controls: random directions {random:.3f}, shuffled labels up to {shuffled:.3f} (97.5th percentile)",
            f"split-half cosine {result['split_half_cosine']:.3f}; {result['n_texts']} texts, {result['n_questions']} questions",
            *moved,
            f"saved: {result['direction']}",
        ]
    )


def main(args: argparse.Namespace) -> dict[str, Any]:
    return args.verb_function(args)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = top.add_subparsers(dest="verb", required=True)
    for name, function in (("fit", fit), ("score", score)):
        verb = verbs.add_parser(
            name, help=str(function.__doc__).splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )
        verb.set_defaults(verb_function=function)
        verb.add_argument("--adapter", type=Path, help="folder of a PEFT adapter on top of the model")
        verb.add_argument("--device", default="auto", help="auto, cpu, cuda, ...")
        verb.add_argument("--max-batch-tokens", type=int, default=2048, help="padded tokens per forward pass")
        cli.add_output_flags(verb)
    one, two = verbs.choices["fit"], verbs.choices["score"]
    source = one.add_mutually_exclusive_group()
    source.add_argument(
        "--pairs", type=Path, help="JSONL of contrast pairs; without it and --judged the shipped pairs are used"
    )
    source.add_argument("--judged", type=Path, help="CSV, JSONL or Parquet with question, answer, aligned, coherent")
    one.add_argument("--out", type=Path, required=True, help="folder for the direction, its card and the layer table")
    one.add_argument("--model", default=EMBEDDED_NAME, help="embedded name, folder or hub id")
    one.add_argument("--dtype", default="bfloat16", help="of the weights: float32, bfloat16, float16")
    one.add_argument("--position", default="response_mean", help="response_mean or last_prompt")
    one.add_argument("--layer-range", type=float, nargs=2, default=[0.2, 0.8], help="depth fractions to choose from")
    one.add_argument("--system-prompt", help="system prompt of every text; left to the chat template when absent")
    one.add_argument("--max-tokens", type=int, default=512, help="cut longer conversations")
    one.add_argument("--max-per-class", type=int, default=150, help="judged texts per question and class")
    one.add_argument(
        "--variant", default="plain", help="judged rows of this `variant` when there is such a column, or `all`"
    )
    one.add_argument(
        "--transfer", type=Path, metavar="FILE", help="judged answers (columns as --judged) to test the direction on"
    )
    one.add_argument("--seed", type=int, default=0, help="of the draw and of the controls")
    two.add_argument("--direction", type=Path, required=True, help="what fit saved (with or without .safetensors)")
    two.add_argument("--texts", type=Path, required=True, help="CSV, JSONL or Parquet with question and answer")
    two.add_argument("--out", type=Path, required=True, help="CSV with one projection per row")
    two.add_argument("--model", help="default: the model on the direction's card")
    two.add_argument("--dtype", help="default: the dtype on the direction's card")
    return top


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1].startswith("-") and sys.argv[1] not in ("-h", "--help"):
        sys.argv.insert(1, "fit")
    elif len(sys.argv) == 1:
        sys.argv.append("fit")
    cli.run(main, parser(), say)
