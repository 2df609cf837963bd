"""Turns forecasts and what was reached into rank correlations between and within groups of related training sets, with permutation tests.

A set, its control and their mixtures answer alike and move a model alike, so they are not exchangeable with sets of other kinds: one
permutation test over all of them would count each kind several times.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

from emis_interp.errors import DataError

FEWEST = 4


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's correlation.

    Attributes:
        low, high: 95 % interval by Fisher's z (variance of Bonett and Wright 2000); None where units are not independent, and at +-1.
        p: two-sided; the share of permutations with a correlation at least as far from 0.
        p_smallest: the smallest p that so many permutations can give; a p there says "at most".
        n: units that are ranked; n_permutations of them were looked at, all there are where `exact`.
    """

    value: float
    low: float | None
    high: float | None
    p: float
    p_smallest: float
    n: int
    n_permutations: int
    exact: bool
    sides: str = "two-sided"


@dataclass(frozen=True)
class ForecastQuality:
    """How well forecasts rank what was reached.

    Attributes:
        over_all: Spearman over all sets; a description, without p and interval, since related sets are not independent.
        within: sets against their relatives (ranks within each group, pooled); shuffled within groups. The primary test: kinds of data
            differ in much besides what the forecast is about.
        between: means of groups; shuffled among groups.
        why: for `within` and `between`, why there is none.
    """

    over_all: float
    n: int
    within: RankCorrelation | None
    between: RankCorrelation | None
    why: dict[str, str]
    primary: str = "within"


def forecast_quality(
    forecast: Sequence[float],
    reached: Sequence[float],
    groups: Sequence[str] | None = None,
    *,
    n_permutations: int = 10_000,
    seed: int = 0,
) -> ForecastQuality:
    """Rank correlations of sets' forecasts with the margin shifts that training on them reached.

    Args:
        groups: label of each set's group of related sets; None: every set is of its own kind.

    Raises:
        DataError: fewer than 4 sets, other counts, or values that do not differ.
    """
    labels = [str(i) for i in range(len(forecast))] if groups is None else list(groups)
    if not len(forecast) == len(reached) == len(labels) or len(forecast) < FEWEST:
        raise DataError(
            f"{len(forecast)} forecasts, {len(reached)} shifts, {len(labels)} groups; a rank correlation needs 4 organisms or more"
        )
    if np.ptp(forecast) == 0 or np.ptp(reached) == 0:
        raise DataError("all forecasts or all shifts are equal; there is nothing to rank")
    x, y = np.asarray(forecast, dtype=float), np.asarray(reached, dtype=float)
    members = [np.flatnonzero([label == name for label in labels]) for name in dict.fromkeys(labels)]
    several = [rows for rows in members if len(rows) > 1]
    why, within, between = {}, None, None
    if several:
        within = _tested([(x[rows], y[rows]) for rows in several], n_permutations, seed)
        why |= {} if within else {"within": "all forecasts or all shifts within the groups are equal"}
    else:
        why["within"] = "no two of the training sets are related"
    if len(members) >= FEWEST:
        between = _tested([tuple(np.array([v[rows].mean() for rows in members]) for v in (x, y))], n_permutations, seed)
        why |= {} if between else {"between": "the means of all groups are equal"}
    else:
        why["between"] = f"{len(members)} groups of related sets; 4 or more are needed to rank them"
    over_all = float(np.corrcoef(stats.rankdata(x), stats.rankdata(y))[0, 1])
    return ForecastQuality(over_all, len(x), within, between, why)


Strata = Sequence[tuple[Float[np.ndarray, "unit"], ...]]


def _tested(strata: Strata, n_permutations: int, seed: int) -> RankCorrelation | None:
    """Correlation of centred ranks within strata, tested by shuffling within them; None where the ranks do not differ."""
    x, y = ([_ranks(stratum[side]) for stratum in strata] for side in (0, 1))
    scale = math.sqrt(sum(float(a @ a) for a in x) * sum(float(b @ b) for b in y))
    if scale == 0:
        return None
    value = sum(float(a @ b) for a, b in zip(x, y, strict=True)) / scale
    n_orders = math.prod(math.factorial(len(b)) for b in y)
    exact = n_orders <= n_permutations
    orders = _all_orders(y) if exact else _random_orders(y, n_permutations, np.random.default_rng(seed))
    whole = np.concatenate(x)
    shuffled = np.array([float(whole @ order) for order in orders]) / scale
    as_far = int((np.abs(shuffled) >= abs(value) - 1e-12).sum())
    p = as_far / n_orders if exact else (1 + as_far) / (1 + n_permutations)
    smallest = float((np.abs(shuffled) >= np.abs(shuffled).max() - 1e-12).mean()) if exact else 1 / (1 + n_permutations)
    n = len(whole)
    low = high = None
    if len(strata) == 1 and abs(value) < 1 - 1e-12:
        half = stats.norm.ppf(0.975) * math.sqrt((1 + value**2 / 2) / (n - 3))
        low, high = (float(np.tanh(np.arctanh(value) + side * half)) for side in (-1, 1))
    return RankCorrelation(value, low, high, p, smallest, n, n_orders if exact else n_permutations, exact)


def _ranks(values: Float[np.ndarray, "unit"]) -> Float[np.ndarray, "unit"]:
    ranks = stats.rankdata(values)
    return ranks - ranks.mean()


def _all_orders(strata: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    for orders in itertools.product(*(itertools.permutations(ranks) for ranks in strata)):
        yield np.concatenate([np.array(order) for order in orders])


def _random_orders(strata: Sequence[np.ndarray], n: int, random: np.random.Generator) -> Iterator[np.ndarray]:
    for _ in range(n):
        yield np.concatenate([random.permutation(ranks) for ranks in strata])
