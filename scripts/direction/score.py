"""Projects answers on a saved direction: one number per row, in the order of the rows; larger is more misaligned."""

import argparse
from pathlib import Path
from typing import Any

import pandas as pd

import cli
from direction.texts import add_model_flags
from emis_interp.capture import capture_residuals
from emis_interp.chat import encode_chats
from emis_interp.directions import Direction
from emis_interp.errors import DataError
from emis_interp.judged import read_table
from emis_interp.models import load_model
from emis_interp.store import write_text


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--direction", type=Path, required=True, help="what fit saved (with or without .safetensors)")
    parser.add_argument("--texts", type=Path, required=True, help="CSV, JSONL or Parquet with question and answer")
    parser.add_argument("--out", type=Path, required=True, help="CSV with one projection per row")
    parser.add_argument("--model", help="default: the model on the direction's card")
    parser.add_argument("--dtype", help="default: the dtype on the direction's card")
    add_model_flags(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
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
    return f"{result['n_texts']} projections at layer {result['layer']} in {result['out']}"
