"""Turns judged answers into intervals, each of which says how it was made and what it covers.

The draw of questions and of answers is covered everywhere. The draw of finetuning seeds is covered where `Answers.models` names
several models; one model's interval says nothing about another seed's. No interval covers the judge's bias.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from emis_interp.errors import DataError
from emis_interp.records import Score
from emis_interp.stats.interval import Interval
from evals.names import IntervalMethod, Population
from evals.rates.bootstrap import bootstrap_rates
from evals.rates.confidence import Limits, rate_limits
from evals.rates.counts import AnswerCounts, Answers, Weighting
from evals.rates.differences import sum_limits
from evals.rates.estimands import Estimand, Thresholds, count_cells, rate


def rate_interval(
    scores: Sequence[Score] | Answers,
    estimand: Estimand,
    weighting: Weighting = "pooled",
    *,
    thresholds: Thresholds = Thresholds(),
    level: float = 0.95,
    method: IntervalMethod = "limits",
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
    point = rate(answers, estimand, weighting, thresholds=thresholds)
    cells = count_cells(answers, estimand, thresholds).only_eligible()
    whole = Interval(
        point.value, None, None, point.n, len(cells.questions), "no eligible answer", point.n_questions_left_out
    )
    if point.value is None:
        return whole
    if method == "bootstrap":
        if population == "suite":
            raise DataError("the bootstrap draws questions again; use `limits` for a suite's questions as given")
        low, high = _percentiles(bootstrap_rates(cells, weighting, n_bootstrap, seed=seed), level)
        models = "models, " if len(cells.models) > 1 else ""
        return replace(whole, low=low, high=high, method=_bootstrap_name(len(cells.questions), models))
    found = rate_limits(cells, weighting, level, population=population)
    return replace(whole, low=found.low, high=found.high, method=found.method)


def paired_contrast(
    arm: Sequence[Score] | Answers,
    reference: Sequence[Score] | Answers,
    estimand: Estimand,
    *,
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
    parts = [rate_limits(table, weighting, level, population=population) for table in kept]
    value, low, high = sum_limits(parts, (1.0, -1.0), level)
    n = sum(int(table.eligible.sum()) for table in kept)
    return Interval(value, low, high, n, len(shared), contrast_name(parts), left_out)


def contrast_name(parts: Sequence[Limits]) -> str:
    """How `sum_limits` of these rates were made."""
    way = "MOVER and paired t over questions" if all(part.influence is not None for part in parts) else "MOVER"
    return f"{way}, of: {'; '.join(dict.fromkeys(part.method for part in parts))}"


def _of_questions(cells: AnswerCounts, names: Sequence[str]) -> AnswerCounts:
    columns = [cells.questions.index(name) for name in names]
    tables = (table[:, columns] for table in (cells.positive, cells.eligible, cells.asked))
    return AnswerCounts(list(names), cells.models, *tables).only_eligible()


def _percentiles(replicates: Float[np.ndarray, " replicate"], level: float) -> tuple[float, float]:
    low, high = np.nanquantile(replicates, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _bootstrap_name(n_questions: int, models: str = "") -> str:
    if n_questions > 1:
        return f"bootstrap over {models}questions and answers"
    return f"bootstrap over {models}answers only (fewer than 2 questions)"
