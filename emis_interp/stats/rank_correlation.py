"""Turns two columns of scores into their rank correlation and its interval over questions."""

from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import spearmanr

from emis_interp.stats.interval import Interval
from emis_interp.stats.jackknife import FISHER, jackknife_interval


def spearman(a: Float[np.ndarray, " answer"], b: Float[np.ndarray, " answer"]) -> float | None:
    """Spearman's rank correlation; None with fewer than three answers, or when one column has one value only."""
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    found: Any = spearmanr(a, b)
    return float(found.statistic)


def spearman_interval(
    a: Float[np.ndarray, " answer"], b: Float[np.ndarray, " answer"], question_ids: np.ndarray, *, level: float = 0.95
) -> Interval:
    """`spearman` with its interval over questions (with one question over answers): the jackknife on the scale of Fisher's z."""
    return jackknife_interval(lambda keep: spearman(a[keep], b[keep]), question_ids, FISHER, level=level)
