"""A steering sweep: all cells in shared batches against one HF `generate` per cell, the same greedy tokens."""

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.alternate import alternate
from emis_interp.capture import capture_with_norms
from emis_interp.chat import encode_chats, encode_prompt
from emis_interp.contrast import labeled_texts, load_contrast
from emis_interp.directions import Direction, unit
from emis_interp.embedded import EMBEDDED_NAME
from emis_interp.models import load_model
from emis_interp.reliability import random_directions
from emis_interp.sweeps import SteerCell, greedy_answers
from evals.questions import load_questions


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--n-layers", type=int, default=10, help="layers of the grid")
    parser.add_argument("--n-coefficients", type=int, default=5, help="coefficients of the grid, from -0.4 to 0.4")
    parser.add_argument("--n-prompts", type=int, default=4, help="shipped questions")
    parser.add_argument("--max-new-tokens", type=int, default=40, help="greedy tokens of an answer")
    parser.add_argument("--n-rounds", type=int, default=3, help="measured rounds")
    parser.add_argument("--dtype", default="float32", help="of the weights")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Random directions with the residual norms of the shipped contrast texts; new tokens per second of the whole grid."""
    chat_model = load_model(EMBEDDED_NAME, dtype=args.dtype)
    texts = [(text.question, text.answer) for text in labeled_texts(load_contrast(n_per_question=1))]
    norms = capture_with_norms(chat_model, encode_chats(chat_model.tokenizer, texts))[1].mean(0)
    vectors = unit(random_directions(1, chat_model.n_layers, chat_model.d_model)[0])
    layers = torch.linspace(2, chat_model.n_layers - 3, args.n_layers).round().int().tolist()
    coefficients = torch.linspace(-0.4, 0.4, args.n_coefficients).tolist()
    cells = [
        SteerCell(Direction(vectors[layer], layer, 1.0, float(norms[layer])), coefficient)
        for layer in layers
        for coefficient in coefficients
    ]
    questions = [question.paraphrases[0] for question in load_questions()[: args.n_prompts]]
    prompts = [encode_prompt(chat_model.tokenizer, question) for question in questions]
    found: dict[str, Any] = {}

    def timed(name: str, work: Callable[[], list[list[tuple[int, ...]]]]) -> Callable[[], float]:
        def measure() -> float:
            started = time.monotonic()
            found[name] = work()
            return sum(len(row) for cell in found[name] for row in cell) / (time.monotonic() - started)

        return measure

    medians = alternate(
        {
            "ours": timed("ours", lambda: greedy_answers(chat_model, cells, prompts, args.max_new_tokens)),
            "cells": timed(
                "cells", lambda: [greedy_answers(chat_model, [cell], prompts, args.max_new_tokens)[0] for cell in cells]
            ),
        },
        args.n_rounds,
    )
    same = [ours == own for ours, own in zip(found["ours"], found["cells"], strict=True)]
    return {
        "tokens_per_second": medians,
        "ours_vs_cells": medians["ours"] / medians["cells"],
        "identical_tokens": sum(same) / len(same),
        "n_cells": len(cells),
        "n_prompts": len(prompts),
        "dtype": args.dtype,
    }
