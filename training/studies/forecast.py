"""Turns one training set into its forecast: the base model's own answers, projection differences, and a table of rows to drop."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emis_interp.config.run_config import RunConfig
from emis_interp.directions import Direction
from emis_interp.errors import DataError
from emis_interp.files.csv_text import csv_text
from emis_interp.files.ledger import Ledger
from emis_interp.files.store import write_text
from emis_interp.models.chat import encode_prompt, read_answer
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.generate import generate
from emis_interp.process import Bars, no_bars
from emis_interp.records import TrainingExample
from training.data_sets.shipped import rows_sha256
from training.finetuning.encoding import own_system
from training.studies.estimates import estimate
from training.studies.foresight import projection_differences, rows_to_drop

AnswerSeed = Callable[[int, str], int]
"""Seed of the study, prompt -> seed of the base model's own answer to it."""


def forecast_of(
    files: Ledger,
    folder: Path,
    rows: Sequence[TrainingExample],
    *,
    base: ChatModel,
    direction: Direction,
    config: RunConfig,
    n_scored: int,
    answer_tokens: int,
    drop: float,
    answer_seed: AnswerSeed,
    bars: Bars = no_bars,
) -> dict[str, Any]:
    """The forecast of one set, from a file when it was made before from the same rows, read to the same length.

    Args:
        files: of the study.
        n_scored: rows that are scored, spread over the set.
        answer_tokens: limit of the base model's own answers, and of the rows' answers as they are read.
        drop: share of the rows to mark in `rows.csv`.
    """
    chosen = spread(rows, n_scored, config.seed)

    def forecast() -> dict[str, Any]:
        own = own_answers(base, chosen, config, max_new_tokens=answer_tokens, answer_seed=answer_seed, bars=bars)
        values = projection_differences(
            base,
            chosen,
            own,
            direction=direction,
            system=config.system_prompt,
            max_tokens=config.training.max_tokens,
            answer_tokens=answer_tokens,
        )
        return {"differences": [None if np.isnan(value) else float(value) for value in values], "own_answers": own}

    facts = {"rows": rows_sha256(chosen), "answer tokens": str(answer_tokens)}
    found = files.json("forecast", folder / "forecast.json", forecast, facts=facts)
    values = np.array(found["differences"], dtype=float)
    if np.isnan(values).all():
        raise DataError(
            f"{folder.name}: the base model gave no answer to any of the {len(chosen)} prompts; raise --max-new-tokens"
        )
    write_text(folder / "rows.csv", table(chosen, found["own_answers"], values, share=drop))
    return {"forecast": estimate(values), "n_scored": len(chosen)}


def spread(rows: Sequence[TrainingExample], n: int, seed: int) -> list[TrainingExample]:
    """n rows, one drawn from each of n equal parts of the set, in their order: every part of a mixture has its share, and rows of two
    kinds in turn cannot fall into step with the draw."""
    n = min(n, len(rows))
    edges = np.linspace(0, len(rows), n + 1)
    places = edges[:-1] + np.random.default_rng(seed).random(n) * np.diff(edges)
    chosen = np.arange(n) if n == len(rows) else np.floor(places).astype(int)
    return [rows[i] for i in chosen.tolist()]


def own_answers(
    base: ChatModel,
    rows: Sequence[TrainingExample],
    config: RunConfig,
    *,
    max_new_tokens: int,
    answer_seed: AnswerSeed,
    bars: Bars = no_bars,
) -> list[str]:
    """One sampled answer of the base model to each prompt as training renders it; its seed depends on the prompt alone."""
    systems = [own_system(row, config.system_prompt) for row in rows]
    prompts = [encode_prompt(base.tokenizer, row.prompt, system) for row, system in zip(rows, systems, strict=True)]
    seeds = [answer_seed(config.seed, row.prompt) for row in rows]
    texts: list[str] = []
    with bars("base model's own answers", len(rows)) as advance:
        for start in range(0, len(rows), config.sampling.batch_size):
            part = slice(start, start + config.sampling.batch_size)
            found = generate(base, prompts[part], seeds[part], max_new_tokens=max_new_tokens, temperature=1.0)
            texts += [read_answer(base.tokenizer, answer.tokens)[0] for answer in found]
            advance(len(found))
    return texts


def table(rows: Sequence[TrainingExample], own: Sequence[str], values: np.ndarray, *, share: float) -> str:
    """CSV of the rows by falling projection difference; `drop` marks those to leave out."""
    dropped = set(rows_to_drop(values, share))
    order = sorted(range(len(rows)), key=lambda i: (np.isnan(values[i]), -values[i] if not np.isnan(values[i]) else 0))
    cells = []
    for i in order:
        value = "" if np.isnan(values[i]) else f"{values[i]:.5f}"
        cells.append([rows[i].id, value, "yes" if i in dropped else "", rows[i].prompt, rows[i].response, own[i]])
    return csv_text(["id", "projection_difference", "drop", "prompt", "response", "own_answer"], cells)
