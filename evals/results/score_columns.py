"""Turns two scored tables, or two sets of columns of one, into the same answers as two judges saw them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

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
_BRIEF = 40


def read_pair(first: Path, second: Path, reading: Reading = AS_WRITTEN) -> tuple[Answers, Answers]:
    """The answers of two files with the same rows in the same order, as `summarize` reads each of them.

    Raises:
        DataError: the tables share no column that names a row, or naming the first row that differs.
    """
    # The first table is gone before the second is read: of its answers only beginnings and hashes are compared.
    one, other = _judged(first, reading), _judged(second, reading)
    keys = [key for key in ROW_KEYS if key in one.names and key in other.names]
    key = question_key(keys)
    if key is None:
        raise DataError(
            f"{first} and {second}: no column in common that names the question ({', '.join(QUESTION_KEYS)})"
        )
    if "answer" in keys and all(len({*judged.names.get("model", ())}) == 1 for judged in (one, other)):
        keys.remove("model")  # the judge's, not the arm's
    for i, cells in enumerate(
        zip(*(zip(one.names[name], other.names[name], strict=False) for name in keys), strict=True)
    ):
        for name, (a, b) in zip(keys, cells, strict=True):
            if a != b:
                raise DataError(
                    f"row {i + 1} differs in `{name}`: {short(a)} in {first}, {short(b)} in {second}; "
                    "both files must hold the same rows in the same order"
                )
    n_rows = len(one.bare), len(other.bare)
    if n_rows[0] != n_rows[1]:
        longer = first if n_rows[0] > n_rows[1] else second
        raise DataError(
            f"row {min(n_rows) + 1} is in {longer} only; both files must hold the same rows in the same order"
        )
    kept = np.isin(np.arange(n_rows[0]), rows_of_arms(one.bare, reading, USE))
    return one.answers(key).only(kept), other.answers(key).only(kept)


@dataclass(frozen=True)
class _JudgedTable:
    """A scored table of which little is left.

    Attributes:
        bare: its columns but the long texts.
        names: the cells of `ROW_KEYS`; a long answer as its beginning and hash.
    """

    bare: Table
    names: dict[str, list[str]]
    scores: dict[str, np.ndarray]
    labels: np.ndarray

    def answers(self, key: str) -> Answers:
        return Answers(self.scores["aligned"], self.scores["coherent"], _questions(self.bare, key), self.labels)


def _judged(path: Path, reading: Reading) -> _JudgedTable:
    table = replace(reading, partial=True).table(path, METRICS)
    names = {key: table.names(key) for key in ROW_KEYS if key in table.columns}
    if "answer" in names:
        names["answer"] = list(map(_brief, names["answer"]))
    scores, labels, _ = judgements(table)
    return _JudgedTable(table.without("answer"), names, scores, labels["aligned"])


def _brief(text: str) -> str:
    """Equal where the texts are, and the same in a message (`short`)."""
    return text if len(text) <= _BRIEF else text[:_BRIEF] + text_sha256(text)


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
    return Answers.from_arrays(aligned, coherent, _questions(table, key), labels=labels)


def _questions(table: Table, key: str) -> np.ndarray:
    return np.array([read_name(name, table.where(i, key)) for i, name in enumerate(table.names(key))], dtype=str)
