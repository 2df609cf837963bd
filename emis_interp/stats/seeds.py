"""Turns an interval over questions and the values of several models (finetuning seeds) into an interval over the draw of both."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from scipy import stats
from scipy.optimize import root_scalar

from emis_interp.stats.families import mean_p
from emis_interp.stats.interval import Interval, mean_interval


def with_seeds(interval: Interval, *arms: Mapping[str, float | None], level: float = 0.95) -> Interval:
    """The interval of a mean over seeds, made wider by the t interval over the seeds of each arm; as it is for arms of one model.

    The distances of both intervals' limits from the value are added in squares (Zou and Donner 2008 and `interval.square_and_add`).
    This errs on the wide side: a cell of model and question varies on its own, which both intervals count. In simulated studies
    (2 to 5 seeds an arm, 8 or 25 questions; `check_coverage.py --part seeds`) 95 % intervals cover in 96 to 99.8 %.
    Seeds of two arms count as independent also where the arms share their numbers. Bounds that are None stay None.

    Args:
        interval: of the mean over models, over questions (or pairs, or answers), the models as given.
        arms: for each arm in the estimate, model -> that model's own value; None (no value) is left out.
    """
    found = [np.array([value for value in arm.values() if value is not None], dtype=float) for arm in arms]
    several = [values for values in found if len(values) > 1]
    if not several or interval.value is None or interval.low is None or interval.high is None:
        return interval
    seeds = [
        float(stats.t.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
        for values in several
    ]
    below, above = interval.value - interval.low, interval.high - interval.value
    counts = " and ".join(str(len(values)) for values in several)
    return replace(
        interval,
        low=interval.value - float(np.linalg.norm([below, *seeds])),
        high=interval.value + float(np.linalg.norm([above, *seeds])),
        method=f"{interval.method}, and t over {counts} seeds, added in squares",
    )


def mean_p_with_seeds(values: Sequence[float] | np.ndarray, *arms: Mapping[str, float | None]) -> float | None:
    """Two-sided p-value of no effect, below 0.05 where the interval of `with_seeds(mean_interval(values), *arms)` leaves 0 out.

    It is the level at which the interval's end lies at 0; without several seeds that of Student's t test. None where there is no interval.
    """
    found = mean_interval(values)
    if found.value is None or found.low is None:
        return None
    if with_seeds(found, *arms) == found:
        return mean_p(values)
    far = abs(found.value)

    def reach(p: float) -> float:
        own = with_seeds(mean_interval(values, 1 - p), *arms, level=1 - p)
        assert own.value is not None and own.high is not None
        return own.high - own.value - far

    smallest, largest = 1e-12, 1 - 1e-12
    if reach(smallest) <= 0:
        return smallest
    return 1.0 if reach(largest) >= 0 else float(root_scalar(reach, bracket=(smallest, largest)).root)
