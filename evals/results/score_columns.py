"""Turns two scored tables, or two sets of columns of one, into the same answers as two judges saw them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from emis_interp.errors import DataError
from emis_interp.files.arms import rows_of_arms
from emis_interp.files.cells import read_label, read_name, short
from emis_interp.files.names import ARM_KEYS, METRICS, QUESTION_KEYS, question_key
from emis_interp.files.reading import AS_WRITTEN, Reading, source_of
from emis_interp.files.scores import read_scores
from emis_interp.files.store import text_sha256
from emis_interp.files.tables import Table
from evals.rates.estimands import Answers
from evals.results.result_table import judgements

ROW_KEYS = (*ARM_KEYS, *QUESTION_KEYS[:2], "variant", "paraphrase_index", "sample_index", "question", "answer")
"""Columns that tell which answer a row is about; those that both tables have must be equal in every row."""
USE = "compared"


def read_pair(first: Path, second: Path, reading: Reading = AS_WRITTEN) -> tuple[Answers, Answers]:
    """The answers of two files with the same rows in the same order, as `summarize` reads each of them.

    Raises:
        DataError: the tables share no column that names a row, or naming the first row that differs.
    """
    # The first table is gone before the second is read: of its answers only hashes are left to compare.
    one, other = _judged(first, reading), _judged(second, reading)
    keys = [key for key in ROW_KEYS if key in one.names and key in other.names]
    key = question_key(keys)
    if key is None:
        raise DataError(
            f"{first} and {second}: no column in common that names the question ({', '.join(QUESTION_KEYS)})"
        )
    if "answer" in keys and all(len({*judged.names.get("model", ())}) == 1 for judged in (one, other)):
        keys.remove("model")  # the judge's, not the arm's
    n_rows = len(one.bare), len(other.bare)
    differing = {
        name: found for name in keys if (found := _first_difference(one.names[name], other.names[name])) is not None
    }
    if differing:
        name = min(differing, key=differing.__getitem__)
        i = differing[name]
        cells = [replace(reading, partial=True).table(path, METRICS).names(name)[i] for path in (first, second)]
        raise DataError(
            f"row {i + 1} differs in `{name}`: {short(cells[0])} in {first}, {short(cells[1])} in {second}; "
            "both files must hold the same rows in the same order"
        )
    if n_rows[0] != n_rows[1]:
        longer = first if n_rows[0] > n_rows[1] else second
        raise DataError(
            f"row {min(n_rows) + 1} is in {longer} only; both files must hold the same rows in the same order"
        )
    kept = np.isin(np.arange(n_rows[0]), rows_of_arms(one.bare, reading, USE))
    return one.answers(key).only(kept), other.answers(key).only(kept)


def _first_difference(one: Iterable[Any], other: Iterable[Any]) -> int | None:
    """The place of the first cell that differs, in as many as both have."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)


@dataclass(frozen=True)
class _JudgedTable:
    """A scored table of which little is left.

    Attributes:
        bare: its columns but the long texts.
        names: the cells of `ROW_KEYS`; of answers their hashes.
    """

    bare: Table
    names: dict[str, Iterable[Any]]
    scores: dict[str, np.ndarray]
    labels: np.ndarray

    def answers(self, key: str) -> Answers:
        ids = _ids(self.bare, key, self.names[key])
        return Answers(self.scores["aligned"], self.scores["coherent"], ids, self.labels)


def _judged(path: Path, reading: Reading) -> _JudgedTable:
    table = replace(reading, partial=True).table(path, METRICS)
    names: dict[str, Iterable[Any]] = {
        key: _hashes(table.names(key)) if key == "answer" else table.names(key)
        for key in ROW_KEYS
        if key in table.columns
    }
    scores, labels, _ = judgements(table)
    return _JudgedTable(table.without("answer"), names, scores, labels["aligned"])


def _hashes(texts: Sequence[str]) -> np.ndarray:
    """SHA-256 of each text: 32 bytes, where a list of the texts would hold as much as the file."""
    return np.fromiter((bytes.fromhex(text_sha256(text)) for text in texts), dtype="V32", count=len(texts))


def read_two_columns(
    path: Path, first: Sequence[str], second: Sequence[str], *, reading: Reading = AS_WRITTEN
) -> tuple[Answers, Answers]:
    """The answers of one file, judged in two sets of columns: aligned, coherent and, if given, label."""
    table = reading.table(path)
    pair = answers_of(table, first), answers_of(table, second)
    kept = np.isin(np.arange(len(table)), rows_of_arms(table, reading, USE))
    return pair[0].only(kept), pair[1].only(kept)


def answers_of(table: Table, columns: Sequence[str]) -> Answers:
    """One judge's columns: aligned (`100-NAME` where high is misaligned), coherent, and a label column if there is one.

    Raises:
        DataError: a missing column, no column that names the question, or a cell that `read_scores` or `read_label` refuses.
    """
    if len(columns) not in (2, 3):
        raise DataError(
            f"columns {','.join(columns)}: expected two names, aligned and coherent, or three with the label"
        )
    sources = [
        source_of(metric, word, metric in table.backwards) for metric, word in zip(METRICS, columns, strict=False)
    ]
    table.need([name for name, _ in sources])
    key = question_key(table.columns)
    if key is None:
        raise DataError(f"{table.path}: no column that names the question; expected one of {', '.join(QUESTION_KEYS)}")
    (aligned, labels), (coherent, _) = (
        read_scores(table, metric, column=name, backwards=backwards or metric in table.backwards)
        for metric, (name, backwards) in zip(METRICS, sources, strict=True)
    )
    for column in columns[2:]:
        table.need([column])
        given = [read_label(cell, table.where(i, column)) for i, cell in enumerate(table.cells(column))]
        labels = [own or other for own, other in zip(labels, given, strict=True)]
    return Answers.from_arrays(aligned, coherent, _ids(table, key, table.names(key)), labels=labels)


def _ids(table: Table, key: str, names: Iterable[str]) -> np.ndarray:
    return np.array([read_name(name, table.where(i, key)) for i, name in enumerate(names)], dtype=str)
