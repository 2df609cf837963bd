"""Turns counts of each question into the intraclass correlation: the share of an outcome's variance that lies between questions."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from evals.rates.estimands import Estimand, Thresholds, count_cells
from evals.results.result_table import Results

LOW_RATE = 0.12
FEWEST_QUESTIONS, FEWEST_POSITIVES = 4, 2


def intraclass_correlation(positive: Int[np.ndarray, " question"], eligible: Int[np.ndarray, " question"]) -> float:
    """The analysis-of-variance estimator for binary outcomes with unequal numbers of answers (Ridout, Demetrio and Firth 1999,
    Biometrics 55); it can be below 0. NaN where all answers are alike, or every question has one answer."""
    k, n = len(eligible), int(eligible.sum())
    if n == k or positive.sum() in (0, n):
        return float("nan")
    shares, rate = positive / eligible, positive.sum() / n
    typical = (n - (eligible**2).sum() / n) / (k - 1)
    between = float((eligible * (shares - rate) ** 2).sum()) / (k - 1)
    within = float((eligible * shares * (1 - shares)).sum()) / (n - k)
    return (between - within) / (between + (typical - 1) * within)


def of_runs(results: Results, estimand: Estimand, thresholds: Thresholds = Thresholds()) -> dict[str, Any]:
    """Median over runs that have at least 4 questions and 2 positive answers, in all and where the rate is low.

    Returns:
        `all` and `low_rate` (rate below 12 %): `median`, `n_runs`; `n_left_out` runs with too little.
    """
    found = []
    for run in results.run_names:
        cells = count_cells(results.judged(run), estimand, thresholds).only_eligible()
        if len(cells.questions) < FEWEST_QUESTIONS or not cells.models or cells.positive.sum() < FEWEST_POSITIVES:
            continue
        positive, eligible = cells.positive[0], cells.eligible[0]
        value = intraclass_correlation(positive, eligible)
        if not np.isnan(value):
            found.append((positive.sum() / eligible.sum(), value))
    low = [value for rate, value in found if rate < LOW_RATE]
    return {
        "all": _median([value for _, value in found]),
        "low_rate": _median(low),
        "n_left_out": len(results.run_names) - len(found),
    }


def _median(values: Sequence[float]) -> dict[str, Any]:
    return {"median": float(np.median(values)) if values else None, "n_runs": len(values)}
