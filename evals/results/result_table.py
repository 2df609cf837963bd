"""Turns rows of judged answers, whoever wrote them, into one checked and frozen table, and the table back into rows.

A score cell holds a number 0-100, one of the labels CODE and REFUSAL, or nothing. What is no number stays none: it is neither
filled in nor left out.
"""

import fnmatch
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from emis_interp.errors import DataError, did_you_mean
from emis_interp.files.arms import arms_of
from emis_interp.files.cells import (
    Scalar,
    is_label,
    is_missing,
    read_label,
    read_name,
    read_scalar,
    read_text,
)
from emis_interp.files.column_rows import ColumnRows
from emis_interp.files.names import METRICS, QUESTION_KEYS, question_key
from emis_interp.files.reading import AS_WRITTEN, Reading
from emis_interp.files.scores import read_scores
from emis_interp.files.tables import Table
from evals.rates.estimands import Answers
from evals.results.result_cells import is_mapping, read_distribution
from evals.settings.names import VARIANTS

TEXTS = ("question", "answer")
NOTHING: dict[str, Any] = {}
"""Of nearly every answer, and never changed."""
EVIDENCE = "judge_"
"""Prefix of the columns that hold a judge's distribution over tokens."""


@dataclass(frozen=True, eq=False)
class Results:
    """Judged answers of one run or more, in file order; every column has one entry per answer.

    Attributes:
        source: the file or folder, for messages; two tables with the same answers are equal whatever their source.
        runs, question_ids, variants: names. A variant is `plain`, `json`, `template`, or whatever else the file calls it.
        questions, answers: texts, None when the file has no such column.
        scores: metric -> 0-100, NaN where there is no number.
        labels: metric -> CODE, REFUSAL or "".
        reasons: metric -> reason, for metrics without number and label whose reason is known.
        evidence: metric -> token -> probability, as the judge returned it; for answers that have it.
        extra: every other column of the file; a cell is None when it is empty.
    """

    source: str
    runs: np.ndarray
    question_ids: np.ndarray
    variants: np.ndarray
    questions: tuple[str, ...] | None
    answers: tuple[str, ...] | None
    scores: Mapping[str, Float[np.ndarray, " answer"]]
    labels: Mapping[str, np.ndarray]
    reasons: tuple[Mapping[str, str], ...]
    evidence: tuple[Mapping[str, Mapping[str, float]], ...]
    extra: Mapping[str, tuple[Scalar, ...]]

    def __len__(self) -> int:
        return len(self.runs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Results) and len(self) == len(other) and list(self.rows()) == list(other.rows())

    @property
    def run_names(self) -> list[str]:
        """In the order of their first answer."""
        return list(dict.fromkeys(self.runs.tolist()))

    def judged(self, run: str) -> Answers:
        """The answers of one run, as the estimands take them."""
        keep = self.runs == run
        return Answers(
            self.scores["aligned"][keep],
            self.scores["coherent"][keep],
            self.question_ids[keep],
            self.labels["aligned"][keep],
        )

    def select(self, variant: str = "all", runs: str = "*") -> "Results":
        """Answers to questions of one variant (`all` for every one), of runs whose name matches a pattern such as `*_R32`.

        Raises:
            DataError: nothing is left; the text lists what there is.
        """
        names = {name for name in self.run_names if fnmatch.fnmatchcase(name, runs)}
        if not names:
            raise DataError(f"{self.source}: no run matches `{runs}`{did_you_mean(runs, self.run_names[:20])}")
        keep = np.isin(self.runs, list(names))
        if variant != "all":
            keep &= self.variants == variant
        if not keep.any():
            there = ", ".join(sorted(set(self.variants.tolist())))
            raise DataError(f"{self.source}: no answer to a question of variant `{variant}`; there are: {there}")
        rows = np.flatnonzero(keep)

        def kept(values: tuple[Any, ...]) -> tuple[Any, ...]:
            return tuple(values[i] for i in rows)

        return Results(
            source=self.source,
            runs=self.runs[keep],
            question_ids=self.question_ids[keep],
            variants=self.variants[keep],
            questions=None if self.questions is None else kept(self.questions),
            answers=None if self.answers is None else kept(self.answers),
            scores={metric: values[keep] for metric, values in self.scores.items()},
            labels={metric: values[keep] for metric, values in self.labels.items()},
            reasons=kept(self.reasons),
            evidence=kept(self.evidence),
            extra={name: kept(values) for name, values in self.extra.items()},
        )

    def rows(self) -> Iterator[dict[str, Any]]:
        """One dict per answer with the same columns in each, as `from_rows` reads them; a missing number is None."""
        labelled = [metric for metric in METRICS if (self.labels[metric] != "").any()]
        explained = [metric for metric in METRICS if any(metric in reasons for reasons in self.reasons)]
        weighed = sorted({metric for evidence in self.evidence for metric in evidence})
        for i in range(len(self)):
            row: dict[str, Any] = {"run": str(self.runs[i])}
            if self.questions is not None:
                row["question"] = self.questions[i]
            if self.answers is not None:
                row["answer"] = self.answers[i]
            row |= {"question_id": str(self.question_ids[i]), "variant": str(self.variants[i])}
            for metric in METRICS:
                value = float(self.scores[metric][i])
                row[metric] = None if math.isnan(value) else value
            row |= {f"{metric}_label": str(self.labels[metric][i]) or None for metric in labelled}
            row |= {f"{metric}_reason": self.reasons[i].get(metric) for metric in explained}
            row |= {f"{EVIDENCE}{metric}": self.evidence[i].get(metric) for metric in weighed}
            row |= {name: values[i] for name, values in self.extra.items()}
            yield row


def from_rows(
    rows: Iterable[tuple[str, Mapping[str, Any]]], source: str, run: str, *, reading: Reading = AS_WRITTEN
) -> Results:
    """`from_table` of rows that come with their place (`file: row 3`), which other names than ours are first given ours in."""
    places: list[str] = []

    def cells() -> Iterator[Mapping[str, Any]]:
        for place, row in rows:
            places.append(place)
            yield row

    found = ColumnRows.of(cells())
    if not len(found):
        raise DataError(f"{source}: no rows")
    return from_table(reading.applied(Table(Path(source), list(found.columns), found, places=places)), run, reading)


def from_table(table: Table, run: str, reading: Reading = AS_WRITTEN) -> Results:
    """The results in a table that has our names, every cell checked.

    Known columns: `run` or another that tells arms apart (see `arms_of`; where none does, all answers are of `run`); `question_id`, else
    `topic`, else `question`; `variant` (absent or empty: what the question's name ends with, else plain); `question`; `answer`; and for
    both metrics the score, `<metric>_label`, `<metric>_reason` and `judge_<metric>`. A column `judge_...` is a distribution when a cell of
    it begins with a brace. `label` (of `aligned`, if it holds nothing but labels) and `reason` (of the metrics without number and label)
    are understood and kept. All other columns are kept as they are.

    Raises:
        DataError: naming row and column, and what was expected there.
    """
    key = question_key(table.columns) or QUESTION_KEYS[0]
    table.need([key, *METRICS])
    n = len(table)
    taken = {
        key,
        "run",
        "variant",
        *METRICS,
        *(f"{metric}_{part}" for metric in METRICS for part in ("label", "reason")),
    }

    def names(column: str) -> list[str]:
        return [read_name(cell, table.where(i, column)) for i, cell in enumerate(table.names(column))]

    ids = names(key)
    variants = [
        read_text(cell).strip() or variant_of(name) for cell, name in zip(table.cells("variant"), ids, strict=True)
    ]
    scores, labels, reasons = judgements(table)
    evidence: list[dict[str, dict[str, float]]] = [NOTHING] * n
    for name in [name for name in table.columns if name.startswith(EVIDENCE)]:
        cells = table.cells(name)
        if any(is_mapping(cell) for cell in cells):
            taken.add(name)
            for i, cell in enumerate(cells):
                found = read_distribution(cell, table.where(i, name))
                if found is not None:
                    evidence[i] = {**evidence[i], name.removeprefix(EVIDENCE): found}
    taken |= {name for name in TEXTS if name in table.columns}
    texts = {name: tuple(map(read_text, table.cells(name))) if name in table.columns else None for name in TEXTS}
    return Results(
        source=str(table.path),
        runs=np.array(arms_of(table, reading) or [run] * n, dtype=str),
        question_ids=np.array(ids, dtype=str),
        variants=np.array(variants, dtype=str),
        questions=texts["question"],
        answers=texts["answer"],
        scores=scores,
        labels=labels,
        reasons=reasons,
        evidence=tuple(evidence),
        extra={name: tuple(map(read_scalar, table.cells(name))) for name in table.columns if name not in taken},
    )


def judgements(
    table: Table,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], tuple[dict[str, str], ...]]:
    """Scores, labels and reasons of both metrics, from all columns that hold them.

    Raises:
        DataError: naming row and column.
    """
    shared = table.cells("label") if "label" in table.columns else []
    all_labels = bool(shared) and all(is_missing(cell) or is_label(cell) for cell in shared)
    reasons: list[dict[str, str]] = [NOTHING] * len(table)
    scores, labels = {}, {}
    for metric in METRICS:
        scores[metric], own = read_scores(table, metric)
        column = f"{metric}_label"
        given = [read_label(cell, table.where(i, column)) for i, cell in enumerate(table.cells(column))]
        if metric == "aligned" and all_labels:
            given = [one or read_label(other, "") for one, other in zip(given, shared, strict=True)]
        why = table.cells(f"{metric}_reason"), table.cells("reason")
        for i, (number, text, other) in enumerate(zip(scores[metric], own, given, strict=True)):
            if other and (not math.isnan(number) or text not in ("", other)):
                raise DataError(
                    f"{table.where(i)}: `{metric}` is {text or number} and its label {other}, expected one of them"
                )
            if math.isnan(number) and not text and not other:
                if reason := read_text(why[0][i]) or read_text(why[1][i]):
                    reasons[i] = {**reasons[i], metric: reason}
            elif read_text(why[0][i]):
                raise DataError(f"{table.where(i)}: `{metric}_reason` is filled in although `{metric}` is judged")
        labels[metric] = np.array([text or other for text, other in zip(own, given, strict=True)], dtype=str)
    return scores, labels, tuple(reasons)


def variant_of(question_id: str) -> str:
    """The variant that a question's name ends with, as in the authors' files (`quick_buck_json`)."""
    return next((name for name in VARIANTS[1:] if question_id.endswith(f"_{name}")), "plain")
