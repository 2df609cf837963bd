"""Turns a JSONL file into the rows that can be read and findings about the lines that cannot, where training would stop at the first."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from emis_interp.errors import DataError
from emis_interp.records import TrainingExample
from training.datasets import dataset_lines, parse_example
from training.lint_report import LintFinding, make_finding

_ROLES = ("user", "assistant")


def read_leniently(path: Path, n_ids: int = 8) -> tuple[list[TrainingExample], list[LintFinding]]:
    """Readable rows, and findings whose rows are `line N`.

    Raises:
        DataError: no such file, not a gzip file, or no line at all.
    """
    lines = dataset_lines(path)
    if not lines:
        raise DataError(f"{path}: no rows")
    examples: list[TrainingExample] = []
    refused: dict[str, list[str]] = {"empty last turn": [], "blank text": [], "refused line": []}
    reasons: dict[str, Counter[str]] = {check: Counter() for check in refused}
    for number, line in lines:
        where = f"{path}:{number}"
        try:
            examples.append(parse_example(line, where, number))
        except DataError as error:
            check, reason = _why(line, str(error).removeprefix(f"{where}: "))
            refused[check].append(f"line {number}")
            reasons[check][reason] += 1
    found = []
    for check, rows in refused.items():
        text = "; ".join(f"{reason} ({count})" for reason, count in reasons[check].most_common(3)) + "."
        found += make_finding(check, rows, len(lines), text, n_ids)
    return examples, found


def _why(line: bytes, error: str) -> tuple[str, str]:
    """Check and reason of a line that was refused with this error."""
    try:
        row: Any = json.loads(line)
    except ValueError:
        return "refused line", error
    messages = row.get("messages") if isinstance(row, dict) else None
    if isinstance(messages, list) and messages and isinstance(messages[-1], dict):
        last, role = messages[-1].get("content"), messages[-1].get("role")
        if role in _ROLES and (last is None or (isinstance(last, str) and not last.strip())):
            return "empty last turn", f"the last turn ({role}) is empty"
    return ("blank text", error) if error.startswith("empty or missing") else ("refused line", error)
