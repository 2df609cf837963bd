"""Turns two scored tables, or two sets of columns of one, into the same answers as two judges saw them."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from emis_interp.errors import DataError, did_you_mean
from emis_interp.files.tables import Table, read_cells
from emis_interp.judged import QUESTION_KEYS
from evals.estimands import Answers
from evals.logprobs import LABELS

ROW_KEYS = ("run", "arm", "question_id", "topic", "variant", "paraphrase_index", "sample_index", "question", "answer")
"""Columns that tell which answer a row is about; those that both tables have must be equal in every row."""
COLUMNS = ("aligned", "coherent", "label")


def read_pair(first: Path, second: Path) -> tuple[Answers, Answers]:
    """The answers of two files with the same rows in the same order, judged in `aligned`, `coherent` and, if there, `label`.

    Raises:
        DataError: the tables share no column that names a row, or naming the first row that differs.
    """
    tables = [read_cells(path, COLUMNS[:2]) for path in (first, second)]
    keys = [key for key in ROW_KEYS if all(key in table.columns for table in tables)]
    if not any(key in keys for key in QUESTION_KEYS):
        raise DataError(
            f"{first} and {second}: no column in common that names the question ({', '.join(QUESTION_KEYS)})"
        )
    cells = [{key: table.text(key) for key in keys} for table in tables]
    n_rows = [len(table.rows) for table in tables]
    for i in range(min(n_rows)):
        for key in keys:
            a, b = (column[key][i] for column in cells)
            if a != b:
                raise DataError(
                    f"row {i + 1} differs in `{key}`: {_short(a)} in {first}, {_short(b)} in {second}; "
                    "both files must hold the same rows in the same order"
                )
    if n_rows[0] != n_rows[1]:
        longer = first if n_rows[0] > n_rows[1] else second
        raise DataError(
            f"row {min(n_rows) + 1} is in {longer} only; both files must hold the same rows in the same order"
        )
    a, b = (answers_of(table, _present(table)) for table in tables)
    return a, b


def read_two_columns(path: Path, first: Sequence[str], second: Sequence[str]) -> tuple[Answers, Answers]:
    """The answers of one file, judged in two sets of columns: aligned, coherent and, if given, label."""
    table = read_cells(path)
    return answers_of(table, first), answers_of(table, second)


def answers_of(table: Table, columns: Sequence[str]) -> Answers:
    """One judge's columns (aligned, coherent, and a label column if there is one).

    A cell of scores holds a number 0-100, a label (CODE, REFUSAL), or nothing.

    Raises:
        DataError: a missing column, no column that names the question, or a cell that is none of these, with its row.
    """
    if len(columns) not in (2, 3):
        raise DataError(
            f"columns {','.join(columns)}: expected two names, aligned and coherent, or three with the label"
        )
    for column in columns:
        if column not in table.columns:
            raise DataError(f"{table.path}: no column `{column}`{did_you_mean(column, table.columns)}")
    key = next((name for name in QUESTION_KEYS if name in table.columns), None)
    if key is None:
        raise DataError(f"{table.path}: no column that names the question; expected one of {', '.join(QUESTION_KEYS)}")
    cells = {column: table.text(column) for column in columns}
    scores = {column: [_number(table, column, i) for i in range(len(table.rows))] for column in columns[:2]}
    labels = [cell if cell in LABELS else "" for cell in cells[columns[0]]]
    if len(columns) == 3:
        labels = [label or _label(table, columns[2], i) for i, label in enumerate(labels)]
    return Answers.from_arrays(np.array(scores[columns[0]]), np.array(scores[columns[1]]), table.text(key), labels)


def _number(table: Table, column: str, index: int) -> float:
    cell = table.rows[index].get(column)
    text = "" if cell is None else str(cell).strip()
    if text in ("", "nan", *LABELS):
        return math.nan
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if isinstance(cell, bool) or not 0 <= number <= 100:
        raise DataError(
            f"{table.path}: row {index + 1}: `{column}` is {_short(text)}, expected a number 0-100, CODE, REFUSAL or nothing"
        )
    return number


def _label(table: Table, column: str, index: int) -> str:
    cell = table.rows[index].get(column)
    text = "" if cell is None else str(cell).strip()
    if text not in ("", *LABELS):
        raise DataError(
            f"{table.path}: row {index + 1}: `{column}` is {_short(text)}, expected CODE, REFUSAL or nothing"
        )
    return text


def _present(table: Table) -> list[str]:
    return [column for column in COLUMNS if column in table.columns]


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:39] + "…")
