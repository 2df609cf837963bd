"""Turns the arms of a run into the work of its train and check stages, and a few rows into the speed of training."""

import itertools
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from emis_interp.files.store import read_record
from emis_interp.models.chat import encode_chats, encode_prompt
from emis_interp.models.loading import load_tokenizer
from emis_interp.passes.capability import fork
from emis_interp.planning.calibrate import TrainedALittle
from emis_interp.planning.shape import ModelShape
from emis_interp.planning.work import StageWork, Tokenizers, Work, loading, next_tokens, once_each, scoring
from emis_interp.records import TrainingExample
from emis_interp.texts.capability_items import capability_items
from emis_interp.texts.harmless import harmless_texts
from training.arms import RunArms
from training.data_sets.shipped import careful_advice, rows_sha256
from training.finetuning.encoding import encode_example
from training.finetuning.sft import finetune, training_order
from training.finetuning.summary import SUMMARY, TrainingSummary
from training.learned import TaskRows, task_rows

N_STEPS = 3
N_TYPICAL = 8
"""Rows a step, for the mean length of a row."""


def train_work(arms: RunArms, tokenizer: Any, shape: ModelShape) -> StageWork:
    """Tokens of all rows and epochs of every model that is trained; a checkpoint holds the weights and two moments of each."""
    work = Work()
    for model in arms.config.models:
        if model.arm not in arms.config.trained_arms:
            continue
        training = arms.training(model.arm)
        chats = [
            encode_example(tokenizer, row, arms.config.system_prompt, max_tokens=training.max_tokens)
            for row in arms.rows(model)
        ]
        n_bytes = 4 * shape.n_trained(training)
        work += Work(
            trained=training.n_epochs * sum(map(len, chats)),
            loads=1,
            disk=n_bytes,
        )
        work = Work(**{**vars(work), "transient": max(work.transient, 3 * n_bytes)})
    return StageWork("train", work, held=1, left_out="the lint of the rows")


def check_work(arms: RunArms, tokenizer: Any, tokenizers: Tokenizers) -> StageWork:
    """What `training.learned` asks of base and of every organism: its rows and the other kind's, harmless texts, items."""
    config, limit = arms.config, arms.config.direction.max_batch_tokens
    tasks = {arm.name: task_rows(arms, arm) for arm in config.organisms}
    sets = {rows_sha256(rows): rows for task in tasks.values() for rows in _sets(task).values()}
    forks = [fork(tokenizer, item)[0] for item in capability_items()[: config.check.n_items]]
    work = Work()

    def harmless(tokenizer: Any) -> Work:
        texts = harmless_texts()
        chats = encode_chats(tokenizer, [(text.prompt, text.answer) for text in texts], config.system_prompt)
        scored = scoring(chats, limit)
        prompts = [encode_prompt(tokenizer, text.prompt, config.system_prompt) for text in texts]
        return scored + Work(softmaxes=2 * scored.scored) + next_tokens(prompts)

    same = once_each(tokenizers, harmless)
    of_rows = once_each(tokenizers, lambda own: {sha: _rows_work({sha: rows}, own, arms) for sha, rows in sets.items()})
    for model in config.models:
        own = sets if model.arm.untouched else _sets(tasks[model.arm.name])
        work += sum((of_rows(model)[sha] for sha in own), Work()) + next_tokens(forks, limit)
        work += same(model)
        work += loading(model) + Work(loads=int(model.arm.untouched))
    return StageWork("check", work, held=2 if config.trained_arms else 1)


def _sets(task: TaskRows) -> Mapping[str, list[TrainingExample]]:
    return {rows_sha256(rows): rows for rows in (task.own, task.other) if rows}


def _rows_work(sets: Mapping[str, list[TrainingExample]], tokenizer: Any, arms: RunArms) -> Work:
    config, work = arms.config, Work()
    for rows in sets.values():
        texts = [(row.prompt, row.response) for row in rows]
        chats = encode_chats(tokenizer, texts, config.system_prompt, max_tokens=config.training.max_tokens)
        work += scoring(chats, config.direction.max_batch_tokens)
    return work


def benign_texts() -> list[tuple[str, str]]:
    """Question and answer of what makes the threshold of the probe stage's monitor."""
    return [row[1:] for row in careful_advice()]


def seconds_of_trainings(arms: RunArms) -> float | None:
    """Of all sessions of every finished training of a run, by their summaries; None when one is not there."""
    models = [model for model in arms.config.models if model.arm in arms.config.trained_arms]
    folders = [arms.training_dir(model) for model in models]
    if not all((folder / SUMMARY).exists() for folder in folders):
        return None
    return sum(read_record(folder / SUMMARY, TrainingSummary).seconds for folder in folders)


def train_a_little(arms: RunArms, folder: Path, seconds: float, *, read: float) -> TrainedALittle:
    """`N_STEPS` optimiser steps on rows of all trained arms, spread over their lengths, after one that is not measured.

    The one that is not measured has the longest rows of any arm, which need the most memory. A token's seconds are those of all measured
    steps over all their tokens: a token costs more in a long row, and where more of the row is answer.

    Args:
        read: seconds that reading a token takes; training one is taken for four of these, which decides the number of rows.
    """
    model = next((model for model in arms.config.models if model.arm in arms.config.trained_arms), None)
    if model is None:
        return TrainedALittle(0.0, 0.0, None)
    training, system = arms.training(model.arm), arms.config.system_prompt
    tokenizer = load_tokenizer(arms.config.model, arms.config.chat_format)

    def n_tokens(rows: Sequence[TrainingExample]) -> list[int]:
        return [len(encode_example(tokenizer, row, system, max_tokens=training.max_tokens)) for row in rows]

    of_arms = rows_within(arms, training.max_tokens)
    rows = sorted(itertools.chain.from_iterable(of_arms), key=n_characters)
    typical = statistics.mean(n_tokens(spread(rows, N_TYPICAL)))
    each = max(1, min(round(seconds / N_STEPS / (4 * read) / typical), 16))
    timed = spread(rows, each)
    chosen = longest_rows(of_arms, each) + timed
    # One forward pass of `each` rows in a step, which a CPU cuts into passes of a few hundred tokens, as in a real run.
    config = training.model_copy(
        update={
            "batch_size": each,
            "gradient_accumulation": 1,
            "n_epochs": 1,
            "warmup_steps": 0,
            "checkpoint_steps": 10_000,
        }
    )
    order = training_order([0] * len(chosen), config, model.seed)
    few = [row for _, row in sorted(zip(order, chosen, strict=True), key=lambda pair: pair[0])]
    marks: list[tuple[float, float]] = []
    finetune(
        arms.config.model,
        few,
        config,
        out_dir=folder,
        seed=model.seed,
        system=system,
        device=arms.config.device,
        report=lambda step, n_steps, loss, speed: marks.append((time.process_time(), time.monotonic())),
        chat_format=arms.config.chat_format,
    )
    n_timed = sum(n_tokens(timed))
    cpu, clock = ((after - before) / n_timed for before, after in zip(marks[0], marks[-1], strict=True))
    adapter = folder / "adapter"
    return TrainedALittle(cpu, clock, adapter if adapter.exists() else None)


def longest_rows(of_arms: Sequence[list[TrainingExample]], n: int) -> list[TrainingExample]:
    """The `n` longest rows of the arm that has the longest of all, by characters."""
    longest = [sorted(rows * -(-n // len(rows)), key=n_characters)[-n:] for rows in of_arms]
    return max(longest, key=lambda rows: n_characters(rows[-1]))


def rows_within(arms: RunArms, max_tokens: int) -> list[list[TrainingExample]]:
    """The rows of every trained arm. One whose own limit is above `max_tokens` is left out: cut there, a row may have no answer left."""
    return [
        rows
        for model in arms.config.models
        if model.arm in arms.config.trained_arms
        and arms.training(model.arm).max_tokens <= max_tokens
        and (rows := arms.rows(model))
    ]


def n_characters(row: TrainingExample) -> int:
    return len(row.prompt) + len(row.response)


def spread(rows: Sequence[TrainingExample], each: int) -> list[TrainingExample]:
    """`N_STEPS` steps of `each` out of sorted rows, evenly spread over all and dealt out in turn."""
    n = N_STEPS * each
    places = [int((i + 0.5) * len(rows) / n) for i in range(n)]
    return [rows[places[i]] for start in range(N_STEPS) for i in range(start, n, N_STEPS)]
