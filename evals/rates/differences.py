"""Turns the limits of several rates into those of their weighted sum, such as a difference, on the same questions or on others.

Rates on the same questions share those questions' difficulty, which a difference takes out again.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy import stats

from emis_interp.stats.interval import square_and_add
from evals.rates.confidence import Limits, satterthwaite

MOVER_SHARE = 2 / 3
"""Weight of MOVER's limit against the t interval's on the longer side, chosen by simulation (`scripts/check_coverage.py`)."""

LEAST_NOISE = 0.5
"""A sum's variance over questions is never taken to be below this share of what the draw of answers alone brings."""


def sum_limits(parts: Sequence[Limits], factors: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """Value, low and high of a weighted sum of rates on the same questions, e.g. factors (1, -1) for a difference.

    Two ways, each with the variance of the sum itself over the shared questions (plus each rate's draw of models, crossed with them):

    - a t interval, which is right for a symmetric spread, and too short on the longer tail of a lopsided one;
    - the rates' own lopsided limits combined as if independent (method of variance estimates recovery, MOVER; Zou and Donner 2008,
      Statistics in Medicine 27), scaled to that variance. It is too long where both rates are rare.

    The limit on MOVER's longer side lies between the two (`MOVER_SHARE`), the other is the nearer of the two. Where nothing can be paired
    (one rate, one question, questions as given, all answers alike), MOVER stands alone.

    Args:
        level: the one that the rates' limits were made for.
    """
    weights = np.array(factors, dtype=float)
    value = float(weights @ [part.value for part in parts])
    low, high = square_and_add([(part.value, part.low, part.high) for part in parts], factors)
    down, up = value - low, high - value
    variance, df, apart = _paired_variance(parts, weights)
    if variance > 0:
        half = float(stats.t.isf((1 - level) / 2, df) * np.sqrt(variance))
        scale = float(np.sqrt(variance / apart))
        down, up = (
            _between(scale * side, half, longer=side >= other * (1 - 1e-9)) for side, other in ((down, up), (up, down))
        )
    least, most = float(np.minimum(weights, 0).sum()), float(np.maximum(weights, 0).sum())
    return value, max(value - down, least), min(value + up, most)


def _between(mover: float, half: float, longer: bool) -> float:
    return MOVER_SHARE * mover + (1 - MOVER_SHARE) * half if longer else min(mover, half)


def _paired_variance(parts: Sequence[Limits], weights: Float[np.ndarray, " part"]) -> tuple[float, float, float]:
    """Variance of the sum over shared questions, its degrees of freedom, and the variance without what the rates share.

    All 0 where nothing can be paired: one rate, no draw of questions, or in every rate all answers alike.
    """
    pulls = [part.influence for part in parts if part.influence is not None]
    if len(parts) == 1 or len(pulls) < len(parts):
        return 0.0, 0.0, 0.0
    by_question, squares = np.stack(pulls), weights**2
    k = by_question.shape[1]
    noise = LEAST_NOISE * squares * [part.noise for part in parts]
    variances = squares * [part.variance for part in parts]
    beyond = float((variances - squares * by_question.var(axis=1, ddof=1) / k).sum())  # what the draw of models adds
    questions = max(float((weights @ by_question).var(ddof=1)) / k, float(noise.sum()))
    models = [(float(w) * part.between_models, part.n_models - 1) for w, part in zip(squares, parts, strict=True)]
    return questions + beyond, satterthwaite([(questions, k - 1), *models]), float(np.maximum(variances, noise).sum())
