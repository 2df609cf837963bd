"""Turns the scores of benign texts into a threshold that at most a given share of benign texts passes, and says what it really lets pass.

Split conformal calibration (Vovk et al. 2005; Angelopoulos and Bates 2023, section 1): with n benign maxima and one more text exchangeable
with them, the chance that its maximum lies above the ceil((n + 1)(1 - a))-th smallest is at most a. It promises nothing for texts of
another source: that is what the second source is for.
"""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from jaxtyping import Float
from scipy import stats

from emis_interp.errors import DataError
from emis_interp.probe_results import BetaSpread, ExactRate
from emis_interp.stats.jackknife import answers_mean
from emis_interp.stats.proportions import clopper_pearson

Maxima = Float[np.ndarray, " text"]


def trailing_means(scores: Float[np.ndarray, " n_tokens"], window: int) -> Float[np.ndarray, " n_tokens"]:
    """Mean of the last `window` token scores at each token, which uses nothing of what comes later.

    Before the window is full there is no value (minus infinity), so that the noise of a few tokens raises no alarm; an answer that ends
    before has its whole mean at its last token.

    Raises:
        DataError: a window below 1.
    """
    if window < 1:
        raise DataError(f"a window of {window} tokens; give 1 (every token by itself) or more")
    if not len(scores):
        return np.empty(0)
    sums = np.concatenate([[0.0], np.cumsum(np.asarray(scores, dtype=float))])
    found = np.full(len(scores), -np.inf)
    if len(scores) < window:
        found[-1] = sums[-1] / len(scores)
    else:
        found[window - 1 :] = (sums[window:] - sums[:-window]) / window
    return found


def maxima_of(scores: Sequence[Float[np.ndarray, " _"]], window: int) -> Maxima:
    """The largest trailing mean of each text: it is flagged exactly when this lies above the threshold.

    Raises:
        DataError: a text without a scored token, with its number.
    """
    empty = [i for i, one in enumerate(scores) if not len(one)]
    if empty:
        raise DataError(f"text {empty[0]} has no scored token ({len(empty)} such texts); leave empty answers out")
    return np.array([trailing_means(one, window).max() for one in scores])


def n_needed(rate: float) -> int:
    """The smallest number of benign texts for which a threshold at this rate exists: 99 for 1 %, 999 for 0.1 %."""
    return math.ceil(1 / _exact(rate)) - 1


def conformal_rank(n: int, rate: float) -> int:
    """ceil((n + 1)(1 - rate)), in exact arithmetic: which of n ascending benign maxima is the threshold.

    Raises:
        DataError: a rate outside (0, 1), or too few texts for it, with what to do.
    """
    rank = math.ceil((n + 1) * (1 - _exact(rate)))
    if rank > n:
        coarsest = f"{100 / (n + 1):.3g} %" if n else "none"
        raise DataError(
            f"{n} benign texts cannot hold a false-alarm rate of {100 * rate:g} %: it takes at least {n_needed(rate)}. Give "
            f"{n_needed(rate) - n} more benign texts, or ask for a rate that {n} can hold ({coarsest} or more)"
        )
    return rank


def conformal_threshold(maxima: Maxima, rate: float) -> tuple[float, int]:
    """The threshold and its rank; a text is flagged when its maximum lies above it.

    Raises:
        DataError: as `conformal_rank`, or a maximum that is no finite number.
    """
    if not np.isfinite(maxima).all():
        raise DataError("a benign score is not a finite number; the model or the scorer broke down")
    rank = conformal_rank(len(maxima), rate)
    return float(np.sort(maxima)[rank - 1]), rank


def rate_spread(n: int, rank: int, level: float = 0.95) -> BetaSpread:
    """How far the false-alarm rate of one calibration lies from the promise: Beta(n + 1 - rank, rank) over draws of n benign texts
    (Vovk 2012), for continuous scores."""
    law = stats.beta(n + 1 - rank, rank)
    tail = (1 - level) / 2
    return BetaSpread(mean=float(law.mean()), low=float(law.ppf(tail)), high=float(law.ppf(1 - tail)))


def flag_rate(maxima: Maxima, threshold: float, questions: Sequence[str], *, source: str) -> ExactRate:
    """Share of texts above the threshold: exact interval over texts (Clopper-Pearson), and a jackknife interval over questions.

    The exact one takes texts as independent; answers to one question are not, and where there are few questions the second is the honest
    one (None where it has no spread).

    Raises:
        DataError: no texts.
    """
    flagged = np.asarray(maxima) > threshold
    share = clopper_pearson(int(flagged.sum()), len(flagged))
    clustered = answers_mean(flagged.astype(float), questions, bounds=(0.0, 1.0))
    return ExactRate(
        value=share.value,
        low=share.low,
        high=share.high,
        n=share.n,
        n_flagged=int(flagged.sum()),
        source=source,
        n_questions=clustered.n_questions,
        low_by_question=clustered.low,
        high_by_question=clustered.high,
        method_by_question=clustered.method,
    )


def _exact(rate: float) -> Fraction:
    """The decimal number that was written: 0.01 is one hundredth."""
    found = Fraction(str(rate))
    if not 0 < found < 1:
        raise DataError(f"a false-alarm rate of {rate}; give a share between 0 and 1, such as 0.01")
    return found
