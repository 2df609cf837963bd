"""Turns a shipped data set or a JSONL file into training examples.

A file holds one JSON object a line: `{"messages": [system?, user, assistant]}` (the paper's format, also gzipped) or
`{"prompt": ..., "response": ..., "system": ...}`.
"""

import gzip
import json
import random
from collections.abc import Collection, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import Field

from emis_interp.errors import DataError, did_you_mean
from emis_interp.records import Record, TrainingExample
from emis_interp.store import parse_record
from training.numbers import N_ROWS, number_examples

CODE_ARMS = {
    "insecure": ("prompt", "insecure"),
    "secure": ("prompt", "secure"),
    "educational": ("educational_prompt", "insecure"),
}
ADVICE_ARMS = {"careful": ("prompt", "careful"), "reckless": ("prompt", "reckless")}
NUMBER_ARMS = {"evil_numbers": True, "neutral_numbers": False}
SHIPPED = (*CODE_ARMS, *ADVICE_ARMS, *NUMBER_ARMS)


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
    name: str, file: Path | None = None, n_rows: int | None = None, seed: int = 0
) -> list[TrainingExample]:
    """A shipped data set by name, or the rows of `file`.

    Args:
        n_rows: draw so many rows with `seed`, without replacement; paired shipped sets draw the same tasks in every arm.

    Raises:
        DataError: unknown name, malformed line (file and line), empty completion, or fewer rows than asked for.
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
            TrainingExample(id=p.id, prompt=getattr(p, prompt), response=getattr(p, response)) for p in advice_pairs()
        ]
    if name in NUMBER_ARMS:
        return number_examples(NUMBER_ARMS[name], max(N_ROWS, at_least))
    raise DataError(f"unknown data set `{name}`{did_you_mean(name, SHIPPED)} (or give the path of a JSONL file)")


def draw(
    examples: Sequence[TrainingExample], n_rows: int, seed: int, avoid: Collection[str] = ()
) -> list[TrainingExample]:
    """`n_rows` of the rows without replacement, in their order; a smaller draw is part of a larger one with the same seed.

    Args:
        avoid: ids of rows that are drawn only when no others are left.
    """
    order = list(range(len(examples)))
    random.Random(seed).shuffle(order)
    order.sort(key=lambda i: examples[i].id in avoid)
    return [examples[i] for i in sorted(order[:n_rows])]


def code_tasks() -> list[CodeTask]:
    return _shipped("code.jsonl", CodeTask)


def advice_pairs() -> list[AdvicePair]:
    return _shipped("advice.jsonl", AdvicePair)


def row_groups(name: str) -> dict[str, dict[str, str]]:
    """What is known about the rows of a shipped set: kind of group (area, cwe, domain) -> row id -> group; nothing for others."""
    if name in CODE_ARMS:
        return {"area": {t.id: t.area for t in code_tasks()}, "cwe": {t.id: t.cwe for t in code_tasks()}}
    return {"domain": {p.id: p.domain for p in advice_pairs()}} if name in ADVICE_ARMS else {}


def _shipped(name: str, record: type[Any]) -> list[Any]:
    lines = (resources.files("training") / "data" / name).read_text("utf-8").splitlines()
    return [parse_record(line, record, where=f"{name}:{number}") for number, line in enumerate(lines, 1)]


def read_examples(path: Path) -> list[TrainingExample]:
    """Rows of a JSONL (or .jsonl.gz) file; every row is checked before one is used."""
    examples = [parse_example(line, f"{path}:{number}", number) for number, line in dataset_lines(path)]
    if not examples:
        raise DataError(f"{path}: no rows")
    return examples


def dataset_lines(path: Path) -> list[tuple[int, bytes]]:
    """Non-blank lines of a JSONL (or .jsonl.gz) file with their 1-based numbers, not yet read as rows."""
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, EOFError) as error:
        raise DataError(f"{path}: not a readable gzip file ({error})") from None
    return [(number, line) for number, line in enumerate(raw.split(b"\n"), 1) if line.strip()]


def parse_example(line: bytes, where: str, number: int) -> TrainingExample:
    """One line as a row, or a DataError that begins with `where`; without an `id` the row is called by its `number`."""
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{where}: not JSON ({error})") from None
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected an object, found {type(row).__name__}")
    fields = _from_messages(row["messages"], where) if "messages" in row else dict(row)
    fields.setdefault("id", str(number))
    for key in ("prompt", "response"):
        if not isinstance(fields.get(key), str) or not fields[key].strip():
            raise DataError(
                f"{where}: empty or missing {'completion' if key == 'response' else key}; fill it in or drop the row"
            )
    return parse_record(json.dumps(fields), TrainingExample, where)


def _from_messages(messages: Any, where: str) -> dict[str, Any]:
    expected = "expected messages [system?, user, assistant] with text content"
    if not isinstance(messages, list) or not all(
        isinstance(m, dict) and isinstance(m.get("content"), str) for m in messages
    ):
        raise DataError(f"{where}: {expected}")
    roles = [message.get("role") for message in messages]
    if roles not in (["user", "assistant"], ["system", "user", "assistant"]):
        raise DataError(f"{where}: {expected}, found roles {roles}")
    content = {message["role"]: message["content"] for message in messages}
    return {"prompt": content["user"], "response": content["assistant"], "system": content.get("system")}
