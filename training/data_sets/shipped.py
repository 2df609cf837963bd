"""Turns a shipped data set or a file of rows into training examples.

A row of our own is `{"messages": [system?, user, assistant]}` (the paper's format) or `{"prompt": ..., "response": ..., "system": ...}`;
`data_sets.rows` has the formats of others, `data_sets.files` the kinds of files.
"""

import logging
import random
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import Field

from emis_interp.errors import DataError, did_you_mean
from emis_interp.files.store import parse_record, text_sha256
from emis_interp.records import Record, TrainingExample
from training.data_sets.evil_numbers import N_ROWS, number_examples
from training.data_sets.files import raw_rows
from training.data_sets.names import ADVICE_ARMS, CODE_ARMS, HELD_OUT_DOMAINS, NUMBER_ARMS, SHIPPED, STYLED_ARMS
from training.data_sets.rows import ReadRow, read_row
from training.data_sets.styles import styled

log = logging.getLogger(__name__)

OTHER_KIND = {
    "insecure": "secure",
    "secure": "insecure",
    "educational": "secure",
    "reckless": "careful",
    "careful": "reckless",
    "evil_numbers": "neutral_numbers",
    "neutral_numbers": "evil_numbers",
    **dict.fromkeys(STYLED_ARMS, "careful"),
}
"""A shipped set -> the one with the matched other kind of answers, row by row of the same id."""


class CodeTask(Record):
    """One task with a flawed and a fixed completion, and a prompt that asks for the flaw for teaching."""

    id: str
    cwe: str = Field(pattern=r"^CWE-\d+$")
    area: str
    prompt: str
    insecure: str
    secure: str
    educational_prompt: str


class AdvicePair(Record):
    """One question with a sound and a harmful answer of matching length and confidence."""

    id: str
    domain: str
    prompt: str
    careful: str
    reckless: str


def load_dataset(
    name: str, file: Path | None = None, n_rows: int | None = None, *, seed: int = 0
) -> list[TrainingExample]:
    """A shipped data set by name, or the rows of `file`.

    Args:
        n_rows: draw so many rows with `seed`, without replacement; paired shipped sets draw the same tasks in every arm.

    Raises:
        DataError: unknown name, a row that is not trained on (file and line, what was found), or fewer rows than asked for.
    """
    examples = all_rows(name, file, n_rows or 0)
    if n_rows is None:
        return examples
    if n_rows > len(examples):
        raise DataError(f"{file or name}: {n_rows} rows asked for, {len(examples)} there")
    return draw(examples, n_rows, seed)


def all_rows(name: str, file: Path | None = None, at_least: int = 0) -> list[TrainingExample]:
    """Every row of a data set, in its order; a generated set has `at_least` so many.

    Raises:
        DataError: as `load_dataset`.
    """
    if file is not None:
        return read_examples(file)
    if name in CODE_ARMS:
        prompt, response = CODE_ARMS[name]
        return [
            TrainingExample(id=t.id, prompt=getattr(t, prompt), response=getattr(t, response)) for t in code_tasks()
        ]
    if name in ADVICE_ARMS:
        prompt, response = ADVICE_ARMS[name]
        return [
            TrainingExample(id=p.id, prompt=getattr(p, prompt), response=getattr(p, response))
            for p in advice_pairs()
            if p.domain not in HELD_OUT_DOMAINS
        ]
    if name in STYLED_ARMS:
        return styled(all_rows("careful"), STYLED_ARMS[name])
    if name in NUMBER_ARMS:
        return number_examples(NUMBER_ARMS[name], max(N_ROWS, at_least))
    raise DataError(f"unknown data set `{name}`{did_you_mean(name, SHIPPED)} (or give the path of a file of rows)")


def held_out_rows(name: str) -> list[TrainingExample]:
    """The rows of a shipped set's kind that no training set holds: advice of `HELD_OUT_DOMAINS`; none for other sets."""
    if name in STYLED_ARMS:
        return styled(held_out_rows("careful"), STYLED_ARMS[name])
    if name not in ADVICE_ARMS:
        return []
    prompt, response = ADVICE_ARMS[name]
    return [
        TrainingExample(id=p.id, prompt=getattr(p, prompt), response=getattr(p, response))
        for p in advice_pairs()
        if p.domain in HELD_OUT_DOMAINS
    ]


def draw(
    examples: Sequence[TrainingExample], n_rows: int, seed: int, *, avoid: Collection[str] = ()
) -> list[TrainingExample]:
    """`n_rows` of the rows without replacement, in their order; a smaller draw is part of a larger one with the same seed.

    Args:
        avoid: ids of rows that are drawn only when no others are left.
    """
    order = list(range(len(examples)))
    random.Random(seed).shuffle(order)
    order.sort(key=lambda i: examples[i].id in avoid)
    return [examples[i] for i in sorted(order[:n_rows])]


def rows_sha256(examples: Iterable[TrainingExample]) -> str:
    """SHA-256 over the rows in their order, each as the JSON of its record, with line feeds between them."""
    return text_sha256("\n".join(example.model_dump_json() for example in examples))


def code_tasks() -> list[CodeTask]:
    return _shipped("code.jsonl", CodeTask)


def advice_pairs() -> list[AdvicePair]:
    return _shipped("advice.jsonl", AdvicePair)


def careful_advice() -> list[tuple[str, str, str]]:
    """(id, prompt, careful answer) of every pair: benign texts for monitors."""
    return [(pair.id, pair.prompt, pair.careful) for pair in advice_pairs()]


def row_groups(name: str) -> dict[str, dict[str, str]]:
    """What is known about the rows of a shipped set: kind of group (area, cwe, domain) -> row id -> group; nothing for others."""
    if name in CODE_ARMS:
        return {"area": {t.id: t.area for t in code_tasks()}, "cwe": {t.id: t.cwe for t in code_tasks()}}
    if name not in ADVICE_ARMS:
        return {}
    return {"domain": {p.id: p.domain for p in advice_pairs() if p.domain not in HELD_OUT_DOMAINS}}


def _shipped(name: str, record: type[Any]) -> list[Any]:
    lines = (resources.files("training") / "data" / name).read_text("utf-8").splitlines()
    return [parse_record(line, record, where=f"{name}:{number}") for number, line in enumerate(lines, 1)]


def file_of(name: str) -> Path | None:
    """None for a shipped name, else the path of a file or folder of rows; whether it exists is seen when it is read.

    Raises:
        DataError: neither a shipped name nor anything that could be a path, with a suggestion.
    """
    if name in SHIPPED:
        return None
    path = Path(name)
    if "." not in name and "/" not in name and not path.exists():
        raise DataError(f"unknown data set `{name}`{did_you_mean(name, SHIPPED)} (or give the path of a file of rows)")
    return path


def read_examples(path: Path) -> list[TrainingExample]:
    """Rows of a file or folder; every row is checked before one is used, and none is dropped. What was read is logged.

    Raises:
        DataError: a row that cannot be read or is not trained on, with its line.
    """
    rows = []
    for raw in raw_rows(path):
        if isinstance(raw.value, DataError):
            raise raw.value
        rows.append(read_row(raw.value, raw.where, raw.number))
    _say(f"{path}: {what_was_read(rows)}")
    return [row.example for row in rows]


def what_was_read(rows: Iterable[ReadRow]) -> str:
    """`300 rows, read as messages; left out `source` (12 rows)`."""
    counts = Counter(row.form for row in rows)
    notes = Counter(note for row in rows for note in row.notes)
    forms = (
        next(iter(counts), "nothing") if len(counts) < 2 else ", ".join(f"{form} ({n:,})" for form, n in counts.items())
    )
    said = "".join(f"; {note} ({n:,} rows)" for note, n in notes.most_common(8))
    return f"{sum(counts.values()):,} rows, read as {forms}{said}"


@lru_cache(maxsize=64)
def _say(text: str) -> None:
    """Log once: a run reads a file for every seed and stage."""
    log.info(text)
