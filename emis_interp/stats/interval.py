"""Turns one value per question into an estimate with its interval, which says how it was made and what it covers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import stats

from emis_interp.stats.words import estimate


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval; `low` and `high` are None when the data cannot give one, and `method` says why.

    Attributes:
        n: answers behind the estimate (denominator of a rate, both arms together in a contrast).
        n_questions: questions behind it.
        n_questions_left_out: questions without an eligible answer (in a contrast: in either arm).
        method: how the interval was made and what was resampled.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    n_questions: int
    method: str
    n_questions_left_out: int = 0

    def as_json(self, *counts: str, value: str = "value") -> dict[str, Any]:
        """As it stands in results: the estimate under `value`, its limits, and the further fields that are named."""
        return {value: self.value, "low": self.low, "high": self.high, **{name: getattr(self, name) for name in counts}}

    def __format__(self, form: str) -> str:
        """`0.863 (0.796 to 0.931)`; `none` without a value."""
        return estimate(self.as_json(), form or ".3f")


def mean_interval(values: Sequence[float | None] | np.ndarray, level: float = 0.95) -> Interval:
    """Mean of one value per question (such as a paired difference) with a t interval over questions.

    None and NaN are left out; bounds are None for fewer than 2 values. Only the draw of questions varies here, neither
    the answers within a question nor the finetuning seed.
    """
    array = np.array(values, dtype=float)
    kept = array[~np.isnan(array)]
    n = len(kept)
    value = float(kept.mean()) if n else None
    whole = Interval(value, None, None, n, n, "none: a t interval needs 2 questions or more", len(array) - n)
    if value is None or n < 2:
        return whole
    if np.ptp(kept) == 0:
        return replace(whole, method="none: all values are equal")
    half = float(stats.t.ppf((1 + level) / 2, n - 1) * kept.std(ddof=1) / np.sqrt(n))
    return replace(whole, low=value - half, high=value + half, method=f"t interval over {n} questions")


def mean_row(by_question: Mapping[str, float]) -> dict[str, Any]:
    """`mean_interval` of one value per question, as it stands in results."""
    found = mean_interval(list(by_question.values()))
    return {**found.as_json(), "n_questions": len(by_question)}


def stratified_mean_interval(values: np.ndarray, strata: Sequence[str] | np.ndarray, level: float = 0.95) -> Interval:
    """Mean of the strata's means (questions) with a t interval over the values within them (pairs, or answers).

    The questions are taken as given: it says how sure the effect is on these questions, not on others. Bounds are None when a stratum
    has fewer than 2 values. Not covered: the draw of questions, the finetuning seed.
    """
    names = np.asarray(strata)
    parts = [values[names == name] for name in dict.fromkeys(names.tolist())]
    value = float(np.mean([part.mean() for part in parts]))
    whole = Interval(value, None, None, len(values), len(parts), "none: needs 2 values or more in every question")
    if min(len(part) for part in parts) < 2:
        return whole
    error = float(np.sqrt(sum(part.var(ddof=1) / len(part) for part in parts)) / len(parts))
    half = float(stats.t.ppf((1 + level) / 2, len(values) - len(parts))) * error
    return replace(whole, low=value - half, high=value + half, method="t interval over pairs, these questions as given")


def square_and_add(
    parts: Sequence[tuple[float, float, float]], factors: Sequence[float] = (1.0, -1.0)
) -> tuple[float, float]:
    """Limits of a weighted sum of independent estimates, each (value, low, high); not cut to any range.

    Newcombe 1998 for a difference of two proportions (Statistics in Medicine 17), Zou and Donner 2008 in general.
    """
    weights, (values, lows, highs) = np.array(factors, dtype=float), np.array(parts).T
    value, below, above = float(weights @ values), values - lows, highs - values
    down = float(np.linalg.norm(weights * np.where(weights > 0, below, above)))
    up = float(np.linalg.norm(weights * np.where(weights > 0, above, below)))
    return value - down, value + up
