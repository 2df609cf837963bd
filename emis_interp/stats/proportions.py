"""Turns passed and failed items into a share with its interval, and two models' results on the same items into their difference."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool
from scipy import stats

from emis_interp.errors import DataError

POWER_Z = 1.959964 + 0.841621
"""Normal quantiles of a two-sided 5 % test and of 80 % power."""


@dataclass(frozen=True)
class Share:
    """A share, or a difference of two, with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int


def wilson(passed: Bool[np.ndarray, "n_items"], level: float = 0.95) -> Share:
    """Share of items passed, with Wilson's score interval.

    Raises:
        DataError: no items.
    """
    if not len(passed):
        raise DataError("a share needs at least one item")
    found = stats.binomtest(int(passed.sum()), len(passed)).proportion_ci(level, method="wilson")
    return Share(float(passed.mean()), float(found.low), float(found.high), len(passed))


def clopper_pearson(n_passed: int, n: int, level: float = 0.95) -> Share:
    """A share with its exact interval (Clopper and Pearson 1934), which covers at any share and number, taking the items as independent.

    Raises:
        DataError: no items.
    """
    if n < 1:
        raise DataError("a share needs at least one item")
    found = stats.binomtest(n_passed, n).proportion_ci(level, method="exact")
    return Share(n_passed / n, float(found.low), float(found.high), n)


def paired_difference(
    after: Bool[np.ndarray, "n_items"], before: Bool[np.ndarray, "n_items"], level: float = 0.95
) -> Share:
    """Share passed after minus share passed before, of the same items, with Newcombe's (1998, method 10) interval.

    It adds the distances of both Wilson intervals in squares, less their correlation over items, and stays within -1 to 1.

    Raises:
        DataError: the two hold other numbers of items, or none.
    """
    if len(after) != len(before):
        raise DataError(f"{len(after)} and {len(before)} items; a paired difference needs the same items")
    one, two = wilson(after, level), wilson(before, level)
    difference = one.value - two.value
    both, neither = int((after & before).sum()), int((~after & ~before).sum())
    gained, lost = int((after & ~before).sum()), int((~after & before).sum())
    margins = (both + gained) * (lost + neither) * (both + lost) * (gained + neither)
    cross = both * neither - gained * lost
    if cross > 0:  # Newcombe's continuity correction of a positive correlation
        cross = max(cross - len(after) / 2, 0)
    phi = cross / margins**0.5 if margins else 0.0
    below = (one.value - one.low, two.high - two.value)
    above = (one.high - one.value, two.value - two.low)
    low, high = (
        float(np.sqrt(max(0.0, first**2 - 2 * phi * first * second + second**2))) for first, second in (below, above)
    )
    return Share(difference, difference - low, difference + high, len(after))


def minimal_detectable_difference(n: int, discordant: float) -> float:
    """The change of a share that a paired test of `n` items (two-sided, 5 %) finds with 80 % power (Connor 1987).

    Args:
        discordant: share of items that are passed by exactly one of the two.
    """
    return POWER_Z * (discordant / n) ** 0.5
