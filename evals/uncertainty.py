"""Turns judged answers into intervals, each of which says how it was made and what it covers.

The draw of questions and of answers is covered everywhere. The draw of finetuning seeds is covered where `Answers.models` names
several models; one model's interval says nothing about another seed's. No interval covers the judge's bias.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from emis_interp.errors import DataError
from emis_interp.records import Score
from evals.answers import Answers, Cells, Weighting
from evals.bootstrap import bootstrap_rates
from evals.estimands import Estimand, Thresholds, count_cells, rate
from evals.limit_sums import sum_limits
from evals.rate_limits import Limits, Population, rate_limits

Method = Literal["limits", "bootstrap"]


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval; `low` and `high` are None when the data cannot give one, and `method` says why.

    Attributes:
        n: answers behind the estimate (denominator of a rate, both arms together in a contrast).
        n_questions: questions behind it.
        n_questions_left_out: questions without an eligible answer (in a contrast: in either arm).
        method: how the interval was made and what was resampled.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    n_questions: int
    method: str
    n_questions_left_out: int = 0


def rate_interval(
    scores: Sequence[Score] | Answers,
    estimand: Estimand,
    weighting: Weighting = "pooled",
    thresholds: Thresholds = Thresholds(),
    level: float = 0.95,
    method: Method = "limits",
    population: Population = "questions",
    n_bootstrap: int = 10_000,
    seed: int = 0,
) -> Interval:
    """A rate with its interval over (models x) questions x answers.

    Raises:
        DataError: a bootstrap of a suite taken as given.

    Args:
        method: `limits` is `rate_limits`: 95 % intervals cover in about 93-97 % of simulated studies, also with 8 questions. `bootstrap`
            is the percentile interval of the hierarchical bootstrap, the field's habit, which is too narrow with few questions or rare
            outcomes (docs/evaluation.md has both figures).
        population: `questions`, or `suite` for these questions as they are (`limits` alone; see `rate_limits`).
        n_bootstrap, seed: of `bootstrap` alone.
    """
    answers = scores if isinstance(scores, Answers) else Answers.from_scores(scores)
    point = rate(answers, estimand, weighting, thresholds)
    cells = count_cells(answers, estimand, thresholds).only_eligible()
    whole = Interval(
        point.value, None, None, point.n, len(cells.questions), "no eligible answer", point.n_questions_left_out
    )
    if point.value is None:
        return whole
    if method == "bootstrap":
        if population == "suite":
            raise DataError("the bootstrap draws questions again; use `limits` for a suite's questions as given")
        low, high = _percentiles(bootstrap_rates(cells, weighting, n_bootstrap, seed), level)
        models = "models, " if len(cells.models) > 1 else ""
        return replace(whole, low=low, high=high, method=_bootstrap_name(len(cells.questions), models))
    found = rate_limits(cells, weighting, level, population)
    return replace(whole, low=found.low, high=found.high, method=found.method)


def bootstrap_mean(
    values: Sequence[float | None] | np.ndarray,
    question_ids: Sequence[str] | np.ndarray,
    n_bootstrap: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Mean over the answers that have a value, with its percentile interval; None and NaN are left out, also of `n`.

    The interval covers the draw of questions and of answers by this one model, not other finetuning seeds.
    """
    array, ids = np.array(values, dtype=float), np.array(list(question_ids), dtype=str)
    present = ~np.isnan(array)
    columns = np.stack([np.where(present, array, 0.0), present.astype(float)], axis=1)
    groups, n = _groups(columns, ids), int(present.sum())
    whole = Interval(None, None, None, n, len(groups), "no value", len(np.unique(ids)) - len(groups))
    if n == 0:
        return whole
    whole = replace(whole, value=float(array[present].mean()), method="none: all values are equal")
    if np.ptp(array[present]) == 0:
        return whole if n > 1 else replace(whole, method="none: one value has no spread")
    low, high = _percentiles(_bootstrap_means(groups, n_bootstrap, seed), level)
    return replace(whole, low=low, high=high, method=_bootstrap_name(len(groups)))


def paired_contrast(
    arm: Sequence[Score] | Answers,
    reference: Sequence[Score] | Answers,
    estimand: Estimand,
    weighting: Weighting = "macro",
    thresholds: Thresholds = Thresholds(),
    level: float = 0.95,
    population: Population = "questions",
) -> Interval:
    """Rate of `arm` minus rate of `reference` on the questions that have eligible answers in both.

    The variance is that of the difference over the shared questions, so that a question's difficulty cancels (`sum_limits`).
    With one model an arm it covers neither arm's finetuning seed: a difference between two models is not yet one between two recipes.
    """
    pair = [scores if isinstance(scores, Answers) else Answers.from_scores(scores) for scores in (arm, reference)]
    tables = [count_cells(answers, estimand, thresholds).only_eligible() for answers in pair]
    shared = sorted(set(tables[0].questions) & set(tables[1].questions))
    left_out = len(set(pair[0].question_ids) | set(pair[1].question_ids)) - len(shared)
    if not shared:
        return Interval(None, None, None, 0, 0, "no question with eligible answers in both arms", left_out)
    kept = [_of_questions(table, shared) for table in tables]
    parts = [rate_limits(table, weighting, level, population) for table in kept]
    value, low, high = sum_limits(parts, (1.0, -1.0), level)
    n = sum(int(table.eligible.sum()) for table in kept)
    return Interval(value, low, high, n, len(shared), contrast_name(parts), left_out)


def contrast_name(parts: Sequence[Limits]) -> str:
    """How `sum_limits` of these rates were made."""
    way = "MOVER and paired t over questions" if all(part.influence is not None for part in parts) else "MOVER"
    return f"{way}, of: {'; '.join(dict.fromkeys(part.method for part in parts))}"


def _of_questions(cells: Cells, names: Sequence[str]) -> Cells:
    columns = [cells.questions.index(name) for name in names]
    tables = (table[:, columns] for table in (cells.positive, cells.eligible, cells.asked))
    return Cells(list(names), cells.models, *tables).only_eligible()


def mean_interval(values: Sequence[float | None] | np.ndarray, level: float = 0.95) -> Interval:
    """Mean of one value per question (such as a paired difference) with a t interval over questions.

    None and NaN are left out; bounds are None for fewer than 2 values. Only the draw of questions varies here, neither
    the answers within a question nor the finetuning seed.
    """
    array = np.array(values, dtype=float)
    kept = array[~np.isnan(array)]
    n = len(kept)
    value = float(kept.mean()) if n else None
    whole = Interval(value, None, None, n, n, "none: a t interval needs 2 questions or more", len(array) - n)
    if value is None or n < 2:
        return whole
    if np.ptp(kept) == 0:
        return replace(whole, method="none: all values are equal")
    half = float(stats.t.ppf((1 + level) / 2, n - 1) * kept.std(ddof=1) / np.sqrt(n))
    return replace(whole, low=value - half, high=value + half, method=f"t interval over {n} questions")


def stratified_mean_interval(values: np.ndarray, strata: Sequence[str] | np.ndarray, level: float = 0.95) -> Interval:
    """Mean of the strata's means (questions) with a t interval over the values within them (pairs, or answers).

    The questions are taken as given: it says how sure the effect is on these questions, not on others. Bounds are None when a stratum
    has fewer than 2 values. Not covered: the draw of questions, the finetuning seed.
    """
    names = np.asarray(strata)
    parts = [values[names == name] for name in dict.fromkeys(names.tolist())]
    value = float(np.mean([part.mean() for part in parts]))
    whole = Interval(value, None, None, len(values), len(parts), "none: needs 2 values or more in every question")
    if min(len(part) for part in parts) < 2:
        return whole
    error = float(np.sqrt(sum(part.var(ddof=1) / len(part) for part in parts)) / len(parts))
    half = float(stats.t.ppf((1 + level) / 2, len(values) - len(parts))) * error
    return replace(whole, low=value - half, high=value + half, method="t interval over pairs, these questions as given")


def _groups(columns: Float[np.ndarray, "answer column"], ids: np.ndarray) -> list[Float[np.ndarray, "answer column"]]:
    """Rows of each question with a non-zero denominator (column 1), in sorted order.

    Answers outside the denominator stay in: the resampled denominator is random, as the real one is.
    """
    groups = [columns[ids == name] for name in np.unique(ids)]
    return [group for group in groups if group[:, 1].any()]


def _bootstrap_means(
    groups: Sequence[Float[np.ndarray, "answer column"]], n_bootstrap: int, seed: int
) -> Float[np.ndarray, " replicate"]:
    """Means of resampled questions and answers; a single question is always drawn itself."""
    rng = np.random.default_rng(seed)
    sums = _resample(groups, rng.integers(0, len(groups), (n_bootstrap, len(groups))), rng).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums[:, 0] / sums[:, 1]


def _resample(
    groups: Sequence[Float[np.ndarray, "answer column"]],
    drawn: Int[np.ndarray, "replicate question"],
    rng: np.random.Generator,
) -> Float[np.ndarray, "replicate question column"]:
    """Column sums of every drawn question, its answers drawn again with replacement."""
    sums = np.zeros((*drawn.shape, groups[0].shape[1]))
    for index, group in enumerate(groups):
        cells = drawn == index
        picks = rng.integers(0, len(group), (int(cells.sum()), len(group)))
        sums[cells] = group[picks].sum(axis=1)
    return sums


def _percentiles(replicates: Float[np.ndarray, " replicate"], level: float) -> tuple[float, float]:
    low, high = np.nanquantile(replicates, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _bootstrap_name(n_questions: int, models: str = "") -> str:
    if n_questions > 1:
        return f"bootstrap over {models}questions and answers"
    return f"bootstrap over {models}answers only (fewer than 2 questions)"
