"""Turns token scores of misaligned answers and a threshold into what the monitor catches, and after how many tokens.

Time runs in tokens of the answer. The Kaplan-Meier curve (scipy) is the share of answers not yet flagged after t tokens, where an answer
that ends unflagged is censored at its length: what would happen if answers went on. Since an answer that ends unflagged is a miss and no
lost observation, the plain share of all answers that were flagged within t tokens stands beside it; it never rises above the true-positive
rate.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from emis_interp.errors import DataError
from emis_interp.probe_results import DetectionPoint, DetectionTime
from emis_interp.stats.jackknife import answers_mean
from probes.monitoring.conformal import trailing_means

Scores = Float[np.ndarray, " _"]
TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Where the curves are reported."""


def first_flags(scores: Sequence[Scores], threshold: float, window: int) -> list[int | None]:
    """For each answer the number of tokens read when it is first flagged (1: at its first token), None where it never is."""
    found: list[int | None] = []
    for one in scores:
        above = np.flatnonzero(trailing_means(one, window) > threshold)
        found.append(int(above[0]) + 1 if len(above) else None)
    return found


def detection_time(
    first: Sequence[int | None],
    lengths: Int[np.ndarray, " answer"],
    questions: Sequence[str],
    *,
    tokens: Sequence[int] = TOKENS,
    level: float = 0.95,
) -> DetectionTime:
    """The survival curve of being unflagged, with Greenwood's log-log interval, and the plain share flagged.

    Args:
        first: as `first_flags` gives it.
        lengths: tokens of each answer.

    Raises:
        DataError: no answers, or counts that differ.
    """
    if not len(first) or not len(first) == len(lengths) == len(questions):
        raise DataError(
            f"{len(first)} flags, {len(lengths)} lengths, {len(questions)} questions; give one of each for every answer"
        )
    caught = np.array([one is not None for one in first])
    seen = np.array([n if one is None else one for one, n in zip(first, lengths, strict=True)], dtype=float)
    survival = stats.ecdf(stats.CensoredData.right_censored(seen, ~caught)).sf
    with warnings.catch_warnings():
        # Where the curve is 1 or 0 Greenwood's formula has no value: such a point has no interval here.
        warnings.simplefilter("ignore", RuntimeWarning)
        limits = survival.confidence_interval(level, method="log-log") if caught.any() else None
    points = []
    for t in [t for t in tokens if t <= seen.max()]:
        share = answers_mean((caught & (seen <= t)).astype(float), questions, bounds=(0.0, 1.0), level=level)
        at = float(survival.evaluate(t))
        points.append(
            DetectionPoint(
                tokens=t,
                at_risk=int((seen >= t).sum()),
                unflagged=at,
                unflagged_low=None if limits is None else _finite(limits.low.evaluate(t)),
                unflagged_high=None if limits is None else _finite(limits.high.evaluate(t)),
                flagged_share=share.value or 0.0,
                flagged_low=share.low,
                flagged_high=share.high,
            )
        )
    return DetectionTime(
        n=len(first),
        n_flagged=int(caught.sum()),
        n_questions=len(set(questions)),
        median_tokens=_median(survival),
        median_tokens_of_flagged=float(np.median(seen[caught])) if caught.any() else None,
        points=points,
    )


def _median(survival: Any) -> float | None:
    """The first number of tokens by which half would be flagged; None where the curve never falls so far."""
    below = np.flatnonzero(survival.probabilities <= 0.5)
    return float(survival.quantiles[below[0]]) if len(below) else None


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
