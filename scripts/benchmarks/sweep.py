"""Times a steering sweep: shared batches against one HF `generate` per cell, and says where the tokens part."""

import itertools
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.alternate import alternate
from benchmarks.settings import SweepBenchmarkSettings
from emis_interp.directions import Direction, unit
from emis_interp.fitting.reliability import random_directions
from emis_interp.models.chat import encode_chats, encode_prompt, end_tokens
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.head import head_logits
from emis_interp.models.loading import load_model
from emis_interp.passes.batching import pad
from emis_interp.passes.capture import capture_with_norms
from emis_interp.passes.interventions import steer
from emis_interp.passes.sweeps import SteerCell, greedy_answers
from emis_interp.process import Bars, no_bars
from emis_interp.texts.contrast import labeled_texts, load_contrast
from evals.questions import load_questions


def run(settings: SweepBenchmarkSettings, bars: Bars = no_bars) -> dict[str, Any]:
    """Random directions with the residual norms of the shipped contrast texts; new tokens per second."""
    chat_model = load_model(settings.model, dtype=settings.dtype)
    texts = [(text.question, text.answer) for text in labeled_texts(load_contrast(n_per_question=1))]
    norms = capture_with_norms(chat_model, encode_chats(chat_model.tokenizer, texts))[1].mean(0)
    vectors = unit(random_directions(1, chat_model.n_layers, chat_model.d_model)[0])
    layers = torch.linspace(2, chat_model.n_layers - 3, settings.n_layers).round().int().tolist()
    coefficients = torch.linspace(-0.4, 0.4, settings.n_coefficients).tolist()
    cells = [
        SteerCell(Direction(vectors[layer], layer, 1.0, float(norms[layer])), coefficient)
        for layer in layers
        for coefficient in coefficients
    ]
    n_looped = max(1, round(settings.share_of_cells * len(cells)))
    looped = [i * len(cells) // n_looped for i in range(n_looped)]
    questions = [question.paraphrases[0] for question in load_questions()[: settings.n_prompts]]
    prompts = [encode_prompt(chat_model.tokenizer, question) for question in questions]
    greedy_answers(chat_model, cells[:1], prompts, max_new_tokens=2)  # loads what the first call loads
    found: dict[str, Any] = {}

    def timed(name: str, work: Callable[[], list[list[tuple[int, ...]]]]) -> Callable[[], float]:
        def measure() -> float:
            started = time.monotonic()
            found[name] = work()
            return sum(len(row) for cell in found[name] for row in cell) / (time.monotonic() - started)

        return measure

    medians = alternate(
        {
            "ours": timed(
                "ours", lambda: greedy_answers(chat_model, cells, prompts, max_new_tokens=settings.max_new_tokens)
            ),
            "cells": timed(
                "cells",
                lambda: [alone(chat_model, cells[i], prompts, max_new_tokens=settings.max_new_tokens) for i in looped],
            ),
        },
        settings.n_rounds,
        settings.warm_up,
    )
    rows = [
        (i, prompt, ours, theirs)
        for i, theirs_of_cell in zip(looped, found["cells"], strict=True)
        for prompt, ours, theirs in zip(prompts, found["ours"][i], theirs_of_cell, strict=True)
    ]
    differing = [row for row in rows if row[2] != row[3]]
    return {
        "tokens_per_second": medians,
        "ours_vs_cells": medians["ours"] / medians["cells"],
        "identical_tokens": 1 - len(differing) / len(rows),
        "n_compared_answers": len(rows),
        "gaps_where_they_part": [
            parting(chat_model, cells[i], prompt, ours=a, theirs=b) for i, prompt, a, b in differing
        ],
        "n_cells": len(cells),
        "n_looped_cells": len(looped),
        "n_prompts": len(prompts),
        "max_new_tokens": settings.max_new_tokens,
        "dtype": chat_model.dtype,
    }


def alone(
    chat_model: ChatModel, cell: SteerCell, prompts: list[tuple[int, ...]], *, max_new_tokens: int
) -> list[tuple[int, ...]]:
    """What one would write without a sweep: HF `generate` within `steer`."""
    ends = end_tokens(chat_model)
    batch = pad(prompts, chat_model.tokenizer.pad_token_id, "left")
    inputs = batch.model_inputs(chat_model.device)
    with torch.inference_mode(), steer(chat_model, cell.direction, cell.coefficient):
        output = chat_model.model.generate(
            inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=max_new_tokens,
            do_sample=False,
            pad_token_id=chat_model.tokenizer.pad_token_id,
            eos_token_id=sorted(ends),
        )
    rows = output[:, batch.input_ids.shape[1] :].tolist()
    return [tuple(itertools.takewhile(lambda token: token not in ends, row)) for row in rows]


def parting(
    chat_model: ChatModel, cell: SteerCell, prompt: tuple[int, ...], *, ours: tuple[int, ...], theirs: tuple[int, ...]
) -> dict[str, Any]:
    """Where two answers part, and the distance of the two largest logits there (one row, no cache); a near-tie is rounding."""
    step = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
    ids = torch.tensor([[*prompt, *ours[:step]]], device=chat_model.device)
    with torch.inference_mode(), steer(chat_model, cell.direction, cell.coefficient):
        logits = head_logits(chat_model.model, chat_model.body(ids, use_cache=False).last_hidden_state[0, -1])
    first, second = logits.float().topk(2).values.tolist()
    return {"layer": cell.direction.layer, "coefficient": cell.coefficient, "step": step, "gap": first - second}
