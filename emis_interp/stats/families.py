"""Turns the tests of a family, such as all cells of a table, into p-values that are corrected for their number."""

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from scipy import stats

K = TypeVar("K", bound=Hashable)


def holm(p: Mapping[K, float | None]) -> dict[K, float | None]:
    """Each p-value of a family, corrected for the family by Holm's (1979) step-down rule; at most 1, in the given order.

    None (no test) stays None and does not count.
    """
    known = {name: value for name, value in p.items() if value is not None}
    corrected, largest = {}, 0.0
    for rank, name in enumerate(sorted(known, key=lambda one: known[one])):
        largest = max(largest, min(1.0, (len(known) - rank) * known[name]))
        corrected[name] = largest
    return {name: corrected.get(name) for name in p}


def mean_p(values: Sequence[float] | np.ndarray, null: float = 0.0) -> float | None:
    """Two-sided p-value of Student's t test that the mean of one value per question is `null`; None without spread or with one value."""
    array = np.asarray(values, dtype=float)
    if len(array) < 2 or np.ptp(array) == 0:
        return None
    t = (array.mean() - null) / (array.std(ddof=1) / len(array) ** 0.5)
    return float(2 * stats.t.sf(abs(t), len(array) - 1))
