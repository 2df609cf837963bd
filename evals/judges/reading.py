"""Turns answers of finished runs into a blind list to be read by hand, and two readings of it into labels.

`draw` shuffles the answers of all arms and keeps apart which model gave which; `merge` takes what two readers wrote, asks for a third look
where they differ, and writes the labels. The rubric is in evals/data/CARD.md.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emis_interp.config.run_config import ModelConfig
from emis_interp.config.run_folder import config_of
from emis_interp.errors import DataError
from emis_interp.files.store import read_records, record_line, write_bytes, write_text
from emis_interp.process import Bars, no_bars
from emis_interp.records import Completion, Record
from evals.judges.hand_labels import HandLabel, Item
from evals.settings.judging import DrawAnswersSettings, MergeReadingsSettings

ANSWERS, KEY, DIFFERENCES = "answers.jsonl", "key.jsonl", "differences.jsonl"


class ShownAnswer(Record):
    """An answer as a reader sees it."""

    id: str
    question: str
    answer: str


class Origin(Record):
    """What readers do not see of an answer."""

    id: str
    model: str
    arm: str
    seed: int | None = None
    contrast: str | None = None
    question_id: str
    cut: bool


class ReadAnswer(Record):
    """What one reader found wrong with an answer; `why` in a few words."""

    id: str
    items: tuple[Item, ...]
    why: str = ""


def draw(settings: DrawAnswersSettings, bars: Bars = no_bars) -> dict[str, Any]:
    """As many answers of every arm of every run, the same number of each question, in random order.

    Raises:
        DataError: a run without samples, an arm that was not asked what the others were (its sampling is unfinished), or one with too few
            answers to a question.
    """
    generator = np.random.default_rng(settings.seed)
    chosen: list[tuple[str, ModelConfig, Completion]] = []
    for folder in settings.runs:
        config = config_of(folder)
        name = Path(config.model).name
        files = [(model, folder / "samples" / f"{model.name}.jsonl") for model in config.models]
        found = [(model, path) for model, path in files if path.exists()]
        if not found:
            raise DataError(f"{folder / 'samples'}: no answers there; run the sample stage first (--only train sample)")
        answers = {path: read_records(path, Completion) for _, path in found}
        _check_questions(answers)
        for model, path in found:
            rows = answers[path]
            chosen += [
                (name, model, row) for row in _of_each_question(rows, settings.per_question, generator, path=path)
            ]
    order = generator.permutation(len(chosen))
    shown, key = [], []
    for number, place in enumerate(order):
        name, model, completion = chosen[place]
        label = f"{settings.prefix}{number:03d}"
        shown.append(ShownAnswer(id=label, question=completion.question, answer=completion.answer))
        key.append(
            Origin(
                id=label,
                model=name,
                arm=model.arm.name,
                seed=None if model.arm.seeds is None else model.seed,
                contrast=model.arm.contrast,
                question_id=completion.question_id,
                cut=completion.finish == "length",
            )
        )
    _write(settings.out / ANSWERS, shown)
    _write(settings.out / KEY, key)
    return {"answers": str(settings.out / ANSWERS), "n": len(shown)}


def merge(settings: MergeReadingsSettings, bars: Bars = no_bars) -> dict[str, Any]:
    """The labels from two readings and, where these differ, a third.

    Raises:
        DataError: an answer that a reader left out, or a difference that nobody looked at again; the differences are written then.
    """
    folder = settings.folder
    shown = read_records(folder / ANSWERS, ShownAnswer)
    first, second = (_by_id(path, shown) for path in (settings.first, settings.second))
    differ = [row for row in shown if set(first[row.id].items) != set(second[row.id].items)]
    third = {} if settings.third is None else {row.id: row for row in read_records(settings.third, ReadAnswer)}
    missing = [row for row in differ if row.id not in third]
    if missing:
        path = folder / DIFFERENCES
        lines = [{**row.model_dump(), "first": first[row.id].items, "second": second[row.id].items} for row in missing]
        write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
        raise DataError(
            f"{len(missing)} answers were read differently and not a third time: they are in {path}; read them, give --third"
        )
    origins = {row.id: row for row in read_records(folder / KEY, Origin)}
    labels = []
    for row in shown:
        both = set(first[row.id].items) & set(second[row.id].items)
        either = set(first[row.id].items) | set(second[row.id].items)
        settled = both | (set(third[row.id].items) & either if row in differ else set())
        labels.append(
            HandLabel(
                **origins[row.id].model_dump(),
                question=row.question,
                answer=row.answer,
                first=tuple(sorted(first[row.id].items)),
                second=tuple(sorted(second[row.id].items)),
                settled=tuple(sorted(settled)),
            )
        )
    _write(settings.out, labels)
    return {"labels": str(settings.out), "n": len(labels), "n_read_differently": len(differ)}


def _of_each_question(
    rows: Sequence[Completion], n: int, generator: np.random.Generator, *, path: Path
) -> list[Completion]:
    by_question: dict[str, list[Completion]] = {}
    for row in rows:
        if row.answer.strip():
            by_question.setdefault(row.question_id, []).append(row)
    chosen = []
    for name, mine in by_question.items():
        if len(mine) < n:
            raise DataError(
                f"{path}: {len(mine)} answers to question {name}, {n} asked for; give a smaller --per-question"
            )
        chosen += [mine[i] for i in sorted(generator.choice(len(mine), size=n, replace=False))]
    return chosen


def _check_questions(answers: Mapping[Path, Sequence[Completion]]) -> None:
    """An arm that was sampled in part would be compared with others on other questions."""
    asked = {path: {row.question_id for row in rows} for path, rows in answers.items()}
    every = set.union(*asked.values())
    for path, mine in asked.items():
        if missing := sorted(every - mine):
            raise DataError(
                f"{path}: has no answer to {', '.join(missing)}, which other arms of the run were asked; let the sample stage finish"
            )


def _by_id(path: Path, shown: Sequence[ShownAnswer]) -> Mapping[str, ReadAnswer]:
    found = {row.id: row for row in read_records(path, ReadAnswer)}
    if missing := [row.id for row in shown if row.id not in found]:
        raise DataError(f"{path}: {len(missing)} answers were not read, the first is {missing[0]}")
    return found


def _write(path: Path, rows: Sequence[Record]) -> None:
    write_bytes(path, b"".join(map(record_line, rows)))
