"""Turns counts of each model and question into the limits of a rate.

The limits speak of the population that the questions (and, with several models, the finetuning seeds) were drawn from.
Two ways, each where simulated studies say that it covers (`scripts/check_coverage.py`, docs/evaluation.md):

- the Korn-Graubard interval, Clopper-Pearson at the effective sample size that the variance between questions leaves (Korn and
  Graubard 1998, Survey Methodology 24; degrees of freedom from the number of questions);
- where few questions show the rarer outcome, that variance is not known, and a beta-binomial model takes its place: each question has a
  rate of its own from a beta distribution, whose mean has Jeffreys' prior and whose intraclass correlation has the prior Beta(1, 4).

Limits of sums and differences of rates are in `evals.rates.differences`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int
from scipy import stats
from scipy.special import betaln, expit, logit

from evals.names import Population
from evals.rates.counts import AnswerCounts, Weighting, rates_of_models

RARE = 0.3
FEW_QUESTIONS = 16
"""The model is used when the rarer outcome has a rate below `RARE` and fewer than `FEW_QUESTIONS` questions show it.

Both are chosen by simulation: at a rate of 0.3 the two ways' limits nearly agree, so that choosing between them by the data does not add
up their coverage; with 16 questions or more, it tells that real question effects have another shape than beta.
"""

# Prior of the share of variance between questions: mean 0.2. `check_coverage.py --runs eval_runs/scores.parquet` prints medians over public
# runs: 0.18 to 0.23 at rates under 12 %, 0.22 to 0.24 in all.
ICC_PRIOR = (1.0, 4.0)


@dataclass(frozen=True, eq=False)
class Limits:
    """A rate with its limits.

    Attributes:
        variance: squared standard error of the rate over questions (and models), 0 where all answers are alike.
        noise: the part of it that the draw of answers brings.
        influence: how far each question pulls the rate, `[question]`; None where no questions are drawn (one question, a given suite).
        between_models: squared standard error that the draw of models brings; 0 with one.
    """

    value: float
    low: float
    high: float
    method: str
    variance: float
    noise: float
    influence: Float[np.ndarray, " question"] | None
    between_models: float
    n_models: int


def rate_limits(
    cells: AnswerCounts, weighting: Weighting, level: float = 0.95, *, population: Population = "questions"
) -> Limits:
    """Limits of the mean over models of each model's rate; every model and question in `cells` needs an eligible answer.

    Args:
        population: `questions` speaks of all questions that might have been asked; `suite` takes these questions (and models) as given
            and speaks of their answers alone, so two suites' limits must not be read as a statement about other questions.
    """
    rates = rates_of_models(cells.positive, cells.eligible, weighting)
    value, (n_models, n_questions) = float(rates.mean()), cells.eligible.shape
    influence = _influence(cells, rates, weighting)
    n = int(cells.eligible.sum())
    if population == "suite":
        return _given_questions(cells, value, weighting, level=level)
    variance, df, between_models = _variance(influence)
    floored = max(variance, value * (1 - value) / n)  # never below that of independent answers
    by_question = influence.mean(axis=0)
    showing = [int((table.sum(axis=0) > 0).sum()) for table in (cells.positive, cells.eligible - cells.positive)]
    rare = 0 if value <= 0.5 else 1
    if n_questions > 1 and min(value, 1 - value) < RARE and showing[rare] < FEW_QUESTIONS:
        low, high = _beta_binomial(cells, value, weighting, level=level)
        if n_models > 1:
            low, high = _widened(low, high, value, variance=floored, df=df, by_question=by_question, level=level)
        method = "beta-binomial model of questions"
    else:
        low, high, effective = _korn_graubard(value, n, floored, df=df, level=level)
        method = f"Korn-Graubard at effective n {effective:.0f}"
    over = "questions and answers" if n_questions > 1 else "answers only (fewer than 2 questions)"
    seeds = f", {n_models} models" if n_models > 1 else ""
    return Limits(
        value,
        min(low, value),
        max(high, value),
        f"{method}, over {over}{seeds}",
        variance,
        _mean_noise(cells, weighting),
        by_question if n_questions > 1 else None,
        between_models,
        n_models,
    )


def _given_questions(cells: AnswerCounts, value: float, weighting: Weighting, *, level: float) -> Limits:
    noise = _mean_noise(cells, weighting)
    low, high, effective = _korn_graubard(value, int(cells.eligible.sum()), noise, df=np.inf, level=level)
    method = f"Korn-Graubard at effective n {effective:.0f}, over answers only, these questions as given"
    return Limits(value, low, high, method, noise, noise, None, 0.0, len(cells.models))


def _influence(
    cells: AnswerCounts, rates: Float[np.ndarray, " model"], weighting: Weighting
) -> Float[np.ndarray, "model question"]:
    """What each question adds to a model's rate, scaled so that a model's mean over questions is 0."""
    shares = cells.positive / np.maximum(cells.eligible, 1)
    return (shares - rates[:, None]) * _question_weights(cells, weighting) + (rates - rates.mean())[:, None]


def _question_weights(cells: AnswerCounts, weighting: Weighting) -> Float[np.ndarray, "model question"]:
    """Weight of each question in its model's rate, 1 on average; 0 without an eligible answer."""
    counts = cells.eligible if weighting == "pooled" else (cells.eligible > 0).astype(int)
    return counts / counts.mean(axis=1, keepdims=True)


def _mean_noise(cells: AnswerCounts, weighting: Weighting) -> float:
    """Variance of the rate that comes from the draw of answers."""
    share = cells.positive / np.maximum(cells.eligible, 1)
    noise = share * (1 - share) / np.maximum(cells.eligible, 1) * _question_weights(cells, weighting) ** 2
    return float(noise.mean()) / noise.size


def _variance(influence: Float[np.ndarray, "model question"]) -> tuple[float, float, float]:
    """Variance of the rate with questions and models crossed, its degrees of freedom, and the variance between models.

    Two-way clustering (Cameron, Gelbach and Miller 2011): between questions plus between models minus between cells; Satterthwaite's
    degrees of freedom.
    """
    n_models, n_questions = influence.shape
    questions = influence.mean(axis=0).var(ddof=1) / n_questions if n_questions > 1 else 0.0
    models = influence.mean(axis=1).var(ddof=1) / n_models if n_models > 1 else 0.0
    both = 0.0
    if n_questions > 1 and n_models > 1:
        inner = influence - influence.mean(axis=0) - influence.mean(axis=1, keepdims=True) + influence.mean()
        both = float((inner**2).sum()) / ((n_models - 1) * (n_questions - 1)) / (n_models * n_questions)
    variance = max(questions + models - both, questions, models)
    df = satterthwaite([(float(questions), n_questions - 1), (float(models), n_models - 1)])
    return float(variance), df, float(models)


def satterthwaite(parts: Sequence[tuple[float, int]]) -> float:
    """Degrees of freedom of a sum of variances, each with its own; infinite without any variance."""
    squares = sum(variance**2 / df for variance, df in parts if variance > 0)
    return sum(variance for variance, _ in parts) ** 2 / squares if squares > 0 else np.inf


def _korn_graubard(value: float, n: int, variance: float, *, df: float, level: float) -> tuple[float, float, float]:
    """Low, high and effective sample size."""
    tail = (1 - level) / 2
    effective = value * (1 - value) / variance if variance > 0 else float(n)  # 0 or 1: one question, all answers alike
    adjusted = effective * float(stats.norm.isf(tail) / stats.t.isf(tail, df)) ** 2
    return *_clopper_pearson(value, adjusted, tail), effective


def _clopper_pearson(value: float, n: float, tail: float) -> tuple[float, float]:
    positives = value * n
    low = float(stats.beta.ppf(tail, positives, n - positives + 1)) if value > 0 else 0.0
    high = float(stats.beta.isf(tail, positives + 1, n - positives)) if value < 1 else 1.0
    return low, high


@lru_cache(maxsize=1)
def _grid() -> tuple[Float[np.ndarray, " mean"], Float[np.ndarray, "4 mean icc"]]:
    """Logits of the mean; for each mean and intraclass correlation: a and b of the beta distribution, betaln(a, b), log prior mass."""
    logits = np.linspace(-12.0, 12.0, 481)
    icc = np.concatenate([[0.001, 0.003, 0.01], np.linspace(0.02, 0.9, 45)])
    mean = expit(logits)
    on_mean = 0.5 * np.log(mean * (1 - mean))  # Beta(1/2, 1/2), times the derivative of the logit
    on_icc = stats.beta.logpdf(icc, *ICC_PRIOR) + np.log(np.gradient(icc))
    a, b = np.multiply.outer([mean, 1 - mean], 1 / icc - 1)
    return logits, np.stack([a, b, betaln(a, b), on_mean[:, None] + on_icc])


@lru_cache(maxsize=128)
def _log_likelihood(positive: int, eligible: int) -> Float[np.ndarray, "mean icc"]:
    """Of one question's answers, without the constant; kept (0.2 MB each) because studies repeat the same counts."""
    _, (a, b, log_norm, _) = _grid()
    return betaln(positive + a, eligible - positive + b) - log_norm


def _beta_binomial(cells: AnswerCounts, value: float, weighting: Weighting, *, level: float) -> tuple[float, float]:
    """Limits of the mean rate of the questions; several models' answers to a question count together.

    The model knows the mean of questions (macro). A pooled rate's limits are the same ones moved on the logit scale by as much as
    the pooled rate is away from the macro rate.
    """
    positive, eligible = cells.positive.sum(axis=0), cells.eligible.sum(axis=0)
    logits, (_, _, _, log_mass) = _grid()
    pairs, times = np.unique(np.stack([positive, eligible]), axis=1, return_counts=True)
    for (x, n), count in zip(pairs.T, times, strict=True):
        log_mass = log_mass + count * _log_likelihood(int(x), int(n))
    mass = np.exp(log_mass - log_mass.max()).sum(axis=1)
    below = (np.cumsum(mass) - mass / 2) / mass.sum()  # half of a point's own mass lies below it
    tail = (1 - level) / 2
    ends = [float(np.interp(share, below, logits)) for share in (tail, 1 - tail)]
    macro = float((positive / eligible).mean())
    if weighting == "pooled" and 0 < value < 1:
        ends = [end + float(logit(value) - logit(macro)) for end in ends]
    low, high = (float(expit(end)) for end in ends)
    return (0.0 if value == 0 else low), (1.0 if value == 1 else high)


def _widened(
    low: float,
    high: float,
    value: float,
    *,
    variance: float,
    df: float,
    by_question: Float[np.ndarray, " question"],
    level: float,
) -> tuple[float, float]:
    """Limits over questions made wider, on the logit scale, by what the models add to the variance."""
    k = len(by_question)
    questions = by_question.var(ddof=1) / k
    if not 0 < value < 1 or questions == 0:
        return low, high
    tail = (1 - level) / 2
    factor = max(1.0, float(np.sqrt(variance / questions) * stats.t.isf(tail, df) / stats.t.isf(tail, k - 1)))
    center = logit(value)
    return tuple(float(expit(center + factor * (logit(end) - center))) for end in (low, high))  # pyright: ignore[reportReturnType]


def counts_table(positive: Int[np.ndarray, " question"], eligible: Int[np.ndarray, " question"]) -> AnswerCounts:
    """Counts of one model, as `rate_limits` takes them."""
    names = [str(place) for place in range(len(positive))]
    return AnswerCounts(names, [""], positive[None], eligible[None], eligible[None])
