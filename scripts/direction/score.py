"""Projects answers on a saved direction: one number per row, in the order of the rows; larger is more misaligned."""

import argparse
from pathlib import Path
from typing import Any

import pandas as pd

import cli
from direction.loading import add_direction_flags, model_of
from emis_interp.capture import capture_residuals
from emis_interp.chat import encode_chats
from emis_interp.directions import Direction
from emis_interp.judged import read_table
from emis_interp.store import write_text
from table_flags import add_table_flags, reading_of


def add_flags(parser: argparse.ArgumentParser) -> None:
    add_direction_flags(parser)
    parser.add_argument("--texts", type=Path, required=True, help="CSV, JSONL or Parquet with question and answer")
    parser.add_argument("--out", type=Path, required=True, help="CSV with one projection per row")
    add_table_flags(parser, scores=False)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """One projection per row of the table, in its order."""
    direction = Direction.load(args.direction)
    frame = read_table(args.texts, ("question", "answer"), reading=reading_of(args), use="scored")
    chat_model = model_of(direction, args)
    pairs = list(zip(frame["question"], frame["answer"], strict=True))
    chats = encode_chats(
        chat_model.tokenizer, pairs, direction.card.get("system_prompt"), direction.card.get("max_tokens")
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
    table = pd.DataFrame({"projection": projections, "projection_normed": projections / direction.residual_norm})
    write_text(args.out, table.to_csv(index=False))
    return {
        "out": str(args.out),
        "n_texts": len(table),
        "layer": direction.layer,
        "mean_projection": float(projections.mean()),
    }


def say(result: dict[str, Any]) -> str:
    return f"{result['n_texts']} projections at layer {result['layer']} in {result['out']}"
