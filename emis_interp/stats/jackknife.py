"""Turns a statistic and its values without each question into an interval over the draw of questions.

The delete-one-question jackknife with Student's t (k questions, k - 1 degrees of freedom; Efron and Tibshirani 1993, chapter 11), on a
scale where the statistic has no wall nearby: the logit for what lies between two bounds, Fisher's z for correlations. It covers where the
percentile bootstrap, with few questions or near a bound, does not (`scripts/check_coverage.py`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats
from scipy.special import expit, logit

from emis_interp.stats.interval import Interval

MOST_GROUPS = 100
"""Answers of a single question are left out in at most so many groups, not one by one."""

Statistic = Callable[[Bool[np.ndarray, " answer"]], float | None]


@dataclass(frozen=True)
class Scale:
    """A monotone map from the statistic's range onto the line, its inverse and its derivative."""

    name: str
    to: Callable[..., np.ndarray]
    back: Callable[[float], float]
    slope: Callable[[float], float]


LINE = Scale("", np.asarray, float, lambda value: 1.0)
FISHER = Scale("Fisher's z", np.arctanh, lambda z: float(np.tanh(z)), lambda r: 1 / (1 - r**2))


def between(low: float, high: float) -> Scale:
    """The logit scale of what lies between two bounds: an AUROC (0, 1), a score (0, 100)."""
    width = high - low
    return Scale(
        "logit",
        lambda values: logit((np.asarray(values) - low) / width),
        lambda z: low + width * float(expit(z)),
        lambda value: width / ((value - low) * (high - value)),
    )


def jackknife_limits(
    whole: float, without: Sequence[float] | np.ndarray, scale: Scale = LINE, *, level: float = 0.95
) -> tuple[float, float] | None:
    """(low, high) of a statistic; None where it has no spread, or sits on a bound of its scale.

    Args:
        whole: the statistic of all groups (questions).
        without: the same without each group in turn; NaN where a statistic is not defined then, which is left out.
    """
    values = np.array(without, dtype=float)
    values = values[~np.isnan(values)]
    k = len(values)
    with np.errstate(divide="ignore"):
        centre, moved = float(scale.to(whole)), scale.to(values)
    if k < 2 or np.ptp(values) == 0 or not np.isfinite(centre):
        return None
    if np.isfinite(moved).all():
        error = np.sqrt((k - 1) / k * ((moved - centre) ** 2).sum())
    else:  # without some question the statistic sits on the bound: its spread is carried to the scale at the whole's value
        error = np.sqrt((k - 1) / k * ((values - whole) ** 2).sum()) * scale.slope(whole)
    half = float(stats.t.ppf((1 + level) / 2, k - 1) * error)
    return scale.back(centre - half), scale.back(centre + half)


def jackknife_interval(
    statistic: Statistic, question_ids: Sequence[str] | np.ndarray, scale: Scale = LINE, *, level: float = 0.95
) -> Interval:
    """A statistic of answers with its interval over questions; over answers where there is one question, or where all are alike.

    Args:
        statistic: which answers to keep `[answer]` -> the statistic, or None where it has no value.
        question_ids: question of each answer.
    """
    ids = np.asarray(question_ids, dtype=str)
    names, question = np.unique(ids, return_inverse=True)
    value = statistic(np.full(len(ids), True))
    whole = Interval(value, None, None, len(ids), len(names), "no value")
    if value is None:
        return whole
    # Drawn groups: places in the file may follow a pattern.
    answers = np.random.default_rng(0).permutation(len(ids)) % MOST_GROUPS
    alone = "fewer than 2 questions" if len(names) == 1 else "the questions show no spread"
    for group, what in ((question, f"{len(names)} questions"), (answers, f"answers only ({alone})")):
        found = [statistic(group != index) for index in range(int(group.max()) + 1)]
        limits = jackknife_limits(value, [np.nan if one is None else one for one in found], scale, level=level)
        if limits is not None:
            on = f" on the {scale.name} scale" if scale.name else ""
            return replace(whole, low=limits[0], high=limits[1], method=f"jackknife t over {what}{on}")
    return replace(whole, method="none: the answers show no spread")


def answers_mean(
    values: Sequence[float | None] | np.ndarray,
    question_ids: Sequence[str] | np.ndarray,
    bounds: tuple[float, float] | None = None,
    *,
    level: float = 0.95,
) -> Interval:
    """Mean over the answers that have a value, with its interval over questions; None and NaN are left out, also of `n`.

    The interval covers the draw of questions and of answers by this one model, not other finetuning seeds.

    Args:
        bounds: of the values (0 and 100 for a score), which their mean's interval then stays inside; None for differences.

    Returns:
        bounds None where all values are equal, or there is one.
    """
    array, ids = np.array(values, dtype=float), np.asarray(list(question_ids), dtype=str)
    present = ~np.isnan(array)
    kept, names = array[present], ids[present]
    left_out = len(np.unique(ids)) - len(np.unique(names))
    whole = Interval(None, None, None, len(kept), len(np.unique(names)), "no value", left_out)
    if not len(kept):
        return whole
    whole = replace(whole, value=float(kept.mean()), method="none: all values are equal")
    if np.ptp(kept) == 0:
        return whole if len(kept) > 1 else replace(whole, method="none: one value has no spread")

    def mean(keep: Bool[np.ndarray, " answer"]) -> float | None:
        return float(kept[keep].mean()) if keep.any() else None

    found = jackknife_interval(mean, names, LINE if bounds is None else between(*bounds), level=level)
    return replace(found, n_questions_left_out=left_out)


def groups_mean(values: Float[np.ndarray, " question"], scale: Scale = LINE, level: float = 0.95) -> Interval:
    """Mean of one value per question with its jackknife interval, e.g. of within-question AUROCs on the scale `between(0, 1)`."""
    return jackknife_interval(
        lambda keep: float(values[keep].mean()) if keep.any() else None,
        np.arange(len(values)).astype(str),
        scale,
        level=level,
    )
