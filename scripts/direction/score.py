"""Projects answers on a saved direction: one number per row, in the order of the rows; larger is more misaligned.

A table that has `aligned` and `coherent` too is also evaluated: AUROC of the projection within questions, beside what the length of the
answers alone gives; rows that answer questions which the direction was fitted on are left out of it. The CSV holds the length of every
answer, for evaluations of your own.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import Tensor

import cli
from direction.loading import add_direction_flags, model_of
from emis_interp.directions import Direction
from emis_interp.errors import DataError
from emis_interp.files.store import write_text
from emis_interp.files.tensors import load_tensors
from emis_interp.fitting.length_baseline import length_baseline
from emis_interp.fitting.reliability import against_shuffled
from emis_interp.models.chat import encode_chats
from emis_interp.passes.capture import capture_residuals
from emis_interp.stats.words import control_words, estimate, length_words
from emis_interp.texts.judged import read_judged, read_table
from table_flags import add_table_flags, reading_of

JUDGED = ("aligned", "coherent")


def add_flags(parser: argparse.ArgumentParser) -> None:
    add_direction_flags(parser)
    parser.add_argument("--texts", type=Path, required=True, help="CSV, JSONL or Parquet with question and answer")
    parser.add_argument("--out", type=Path, required=True, help="CSV with one projection per row")
    add_table_flags(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """One projection per row of the table, in its order."""
    direction = Direction.load(args.direction)
    frame = read_table(args.texts, ("question", "answer"), reading=reading_of(args), use="scored")
    chat_model = model_of(direction, args)
    pairs = list(zip(frame["question"], frame["answer"], strict=True))
    chats = encode_chats(
        chat_model.tokenizer, pairs, direction.card.get("system_prompt"), max_tokens=direction.card.get("max_tokens")
    )
    with cli.progress_bar("score", len(chats)) as advance:
        x = capture_residuals(
            chat_model,
            chats,
            [direction.layer],
            position=direction.position,
            max_batch_tokens=args.max_batch_tokens,
            progress=advance,
        )
    projections = direction.project(x[:, 0]).numpy()
    lengths = np.array([chat.n_response for chat in chats])
    normed = projections / direction.residual_norm
    table = pd.DataFrame({"projection": projections, "projection_normed": normed, "n_tokens": lengths})
    write_text(args.out, table.to_csv(index=False))
    fitted_on = direction.fitted_on
    return {
        "out": str(args.out),
        "n_texts": len(table),
        "layer": direction.layer,
        "mean_projection": float(projections.mean()),
        "n_rows_of_fitted_questions": None
        if fitted_on is None
        else sum(fitted_on.has(question) for question, _ in pairs),
        **(evaluated(args, direction, pairs, x=x[:, 0], lengths=lengths) if set(JUDGED) <= set(frame.columns) else {}),
    }


def evaluated(
    args: argparse.Namespace,
    direction: Direction,
    pairs: list[tuple[str, str]],
    *,
    x: Float[Tensor, "n_texts d_model"],
    lengths: np.ndarray,
) -> dict[str, Any]:
    """`length_baseline` of the rows that are clearly aligned or misaligned and coherent, and the AUROCs of the shuffled-label controls that
    lie beside the direction; or the reason why there is none.

    Where the direction was fitted on some of the questions, of the others alone (`n_left_out`); where on all, of all, as `in_sample`.
    """
    row_of = {pair: i for i, pair in enumerate(pairs)}  # equal texts have equal projections
    try:
        clear = read_judged(args.texts, variant=None, reading=reading_of(args), use="evaluated")
        seen = np.array(
            [direction.fitted_on is not None and direction.fitted_on.has(text) for text in clear["question"]]
        )
        in_sample = bool(seen.all())
        clear = clear if in_sample else clear[~seen]
        rows = [row_of[question, answer] for question, answer in zip(clear["question"], clear["answer"], strict=True)]
        labels, questions = clear["misaligned"].to_numpy(dtype=bool), clear["question_id"].astype(str).tolist()
        scores = direction.project(x[rows]).numpy().astype(float)
        found = length_baseline(scores, lengths[rows].astype(float), labels, questions=questions)
    except DataError as error:
        return {"evaluation": None, "not_evaluated": str(error)}
    counts = {"n_misaligned": int(labels.sum()), "n_aligned": int((~labels).sum())}
    counts |= {"n_left_out": 0 if in_sample else int(seen.sum()), "in_sample": in_sample}
    controls, control = args.direction.parent / "controls.safetensors", None
    if controls.exists() and not in_sample:
        shuffled = load_tensors(controls)[0]["shuffled"]
        control = against_shuffled(found["projection"], shuffled, x[rows], misaligned=labels, questions=questions)
    return {"evaluation": {**found, **counts, "control": control}}


def say(result: dict[str, Any]) -> str:
    lines = [f"{result['n_texts']} projections at layer {result['layer']} in {result['out']}"]
    if result.get("evaluation"):
        found = result["evaluation"]
        why = (
            "the direction was fitted on these questions"
            if found["in_sample"]
            else "no controls lie beside the direction"
        )
        lines += [
            f"AUROC within questions {estimate(found['projection'])}, {found['n_misaligned']} misaligned and {found['n_aligned']} aligned "
            f"coherent answers of {found['projection']['n_questions']} questions; "
            + (control_words(found["control"]) if found["control"] else f"no verdict: {why}"),
            f"  {length_words(found)}",
        ]
    elif "not_evaluated" in result:
        lines.append(f"not evaluated: {result['not_evaluated']}")
    seen = result["n_rows_of_fitted_questions"]
    if seen:
        lines.append(
            f"{seen} rows answer questions that the direction was fitted on: an AUROC over them is in part in-sample"
        )
    if seen is None:
        lines.append(
            "the direction's file does not say what it was fitted on; rows that it was fitted on flatter an AUROC"
        )
    return "\n".join(lines)
