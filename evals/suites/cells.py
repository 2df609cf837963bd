"""Turns yes-or-no outcomes in cells (arm x context x question) into rates and differences of rates, each with its interval.

All cells share their questions: the limits of the rates are combined with their correlation over questions, so that the difficulty of a
question cancels in every difference. Not covered, as everywhere: the finetuning seed and the judge's bias.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from emis_interp.stats.interval import Interval
from evals.rates.confidence import counts_table, rate_limits
from evals.rates.counts import Weighting
from evals.rates.differences import sum_limits
from evals.rates.estimands import Answers, Counted, Thresholds
from evals.rates.uncertainty import contrast_name

Outcome = bool | None
"""True or False for an answer in the denominator, None for one outside it."""


@dataclass(frozen=True, eq=False)
class OutcomeCounts:
    """Counts of outcomes.

    Attributes:
        names: the cells (any hashable key); questions: what they share.
        positive, eligible, n: answers that are positive, in the denominator, and in all.
    """

    names: tuple[Any, ...]
    questions: tuple[str, ...]
    positive: Int[np.ndarray, "cell question"]
    eligible: Int[np.ndarray, "cell question"]
    n: Int[np.ndarray, "cell question"]

    @staticmethod
    def from_rows(rows: Iterable[tuple[Any, str, Outcome]]) -> "OutcomeCounts":
        """Count (cell, question, outcome) rows; cells and questions keep their order of first appearance."""
        rows = list(rows)
        names = tuple(dict.fromkeys(cell for cell, _, _ in rows))
        questions = tuple(dict.fromkeys(question for _, question, _ in rows))
        row_of, column_of = ({key: i for i, key in enumerate(keys)} for keys in (names, questions))
        counts = np.zeros((3, len(names), len(questions)), dtype=int)
        for cell, question, outcome in rows:
            where = row_of[cell], column_of[question]
            counts[2][where] += 1
            counts[1][where] += outcome is not None
            counts[0][where] += outcome is True
        return OutcomeCounts(names, questions, *counts)

    def row(self, name: Any) -> int:
        return self.names.index(name)


def outcomes_of(counted: Counted) -> list[Outcome]:
    """One outcome for each answer of an estimand's result."""
    return [
        bool(positive) if eligible else None
        for positive, eligible in zip(counted.positive, counted.eligible, strict=True)
    ]


def combine(
    cells: OutcomeCounts, weights: Mapping[Any, float], weighting: Weighting = "macro", *, level: float = 0.95
) -> Interval:
    """The sum of weight x rate over the cells in `weights`, on the questions that have eligible answers in all of them.

    `{a: 1}` is a rate, `{a: 1, b: -1}` a difference, `{a: 1, b: -1, c: -1, d: 1}` a difference of differences.

    Raises:
        KeyError: a weight names a cell that is not there.
    """
    rows = [cells.row(name) if name in cells.names else _unknown(name) for name in weights]
    asked = (cells.n[rows] > 0).any(axis=0)
    shared = (cells.eligible[rows] > 0).all(axis=0)
    left_out = int((asked & ~shared).sum())
    if not shared.any():
        return Interval(None, None, None, 0, 0, "no question with eligible answers in every cell", left_out)
    parts = [
        rate_limits(counts_table(cells.positive[row, shared], cells.eligible[row, shared]), weighting, level)
        for row in rows
    ]
    value, low, high = sum_limits(parts, list(weights.values()), level)
    method = parts[0].method if len(parts) == 1 else contrast_name(parts)
    return Interval(value, low, high, int(cells.eligible[rows][:, shared].sum()), int(shared.sum()), method, left_out)


def share(positive: Sequence[str], among: Sequence[str] | None = None) -> "LabelShare":
    """The share of answers whose label is in `positive`, among those whose label is in `among` (None: all answers)."""
    return LabelShare(tuple(positive), None if among is None else tuple(among))


@dataclass(frozen=True)
class LabelShare:
    """An estimand on the labels of Answers; see `share`."""

    positive: tuple[str, ...]
    among: tuple[str, ...] | None

    @property
    def __name__(self) -> str:
        return f"share of {'/'.join(self.positive)} among {'/'.join(self.among) if self.among else 'all answers'}"

    def __call__(self, answers: Answers, thresholds: Thresholds = Thresholds()) -> Counted:
        all_in = np.ones(len(answers.labels), dtype=bool)
        eligible = all_in if self.among is None else np.isin(answers.labels, self.among)
        return Counted(np.isin(answers.labels, self.positive) & eligible, eligible)


def describe(interval: Interval) -> dict[str, Any]:
    """An interval as JSON values."""
    return asdict(interval)


def _unknown(name: Any) -> int:
    raise KeyError(f"no cell {name!r}")
