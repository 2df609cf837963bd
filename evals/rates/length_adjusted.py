"""Turns the rates of an arm and its reference into their difference at equal length of the answers.

Longer answers have more room to be called misaligned, or to be cut; an arm that merely writes longer can look worse. The adjustment is the
analysis of covariance: what a token more brings *within* the answers of one model to one question (the pooled slope, which no difference
between arms enters) is taken off for every token by which the arms differ. It is no correction: where misalignment itself makes answers
shorter or longer, the length is a part of the effect.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from emis_interp.stats.interval import Interval
from emis_interp.stats.jackknife import jackknife_limits
from emis_interp.stats.seeds import with_seeds
from evals.rates.counts import Answers
from evals.rates.estimands import Counted, Estimand, Thresholds


@dataclass(frozen=True)
class _Cells:
    """Eligible answers by model and question (columns: the same questions in both arms).

    Attributes:
        n: answers. outcome, length: their means, NaN without any.
        products, squares: sums of (length - its mean) times (outcome - its mean), and of the former squared.
    """

    n: Float[np.ndarray, "model question"]
    outcome: Float[np.ndarray, "model question"]
    length: Float[np.ndarray, "model question"]
    products: Float[np.ndarray, "model question"]
    squares: Float[np.ndarray, "model question"]

    def only(self, questions: Bool[np.ndarray, " question"]) -> "_Cells":
        """These questions, of the models that have an answer to some."""
        models = self.n[:, questions].any(axis=1)
        tables = (self.n, self.outcome, self.length, self.products, self.squares)
        return _Cells(*(table[models][:, questions] for table in tables))

    def at(self, slope: float) -> Float[np.ndarray, " model"]:
        """Each model's mean over questions of the outcome less what the slope gives its length."""
        return np.nanmean(self.outcome - slope * self.length, axis=1)


def length_adjusted(
    arm: tuple[Answers, Float[np.ndarray, " answer"]],
    reference: tuple[Answers, Float[np.ndarray, " answer"]],
    estimand: Estimand,
    *,
    thresholds: Thresholds = Thresholds(),
) -> dict[str, Any] | None:
    """The macro-weighted difference of a rate, arm minus reference, at equal length; models are averaged last.

    Args:
        arm, reference: answers of one or several models, and the tokens of each answer.

    Returns:
        `value`, `low`, `high` (jackknife t over the shared questions with the slope estimated anew each time, and t over seeds where an
        arm has several), `n`, `n_questions`, `method`; `slope`, change of the rate for 100 tokens more; `tokens`, by how many tokens
        the arm's eligible answers are longer. None where no question is shared, or no cell has answers of different lengths.
    """
    names = sorted({*arm[0].question_ids.tolist(), *reference[0].question_ids.tolist()})
    sides = [_cells(*side, estimand(side[0], thresholds), names=names) for side in (arm, reference)]
    shared = np.all([side.n.any(axis=0) for side in sides], axis=0)
    own, other = (side.only(shared) for side in sides)
    slope = _slope(own, other)
    if slope is None:
        return None
    k = int(shared.sum())
    value = float(own.at(slope).mean() - other.at(slope).mean())
    limits = jackknife_limits(value, [_without(own, other, place) for place in range(k)])
    low, high = limits or (None, None)
    method = f"jackknife t over {k} questions" if limits else "none: the questions show no spread"
    interval = Interval(value, low, high, int(own.n.sum() + other.n.sum()), k, method)
    by_model = [{str(place): float(one) for place, one in enumerate(side.at(slope))} for side in (own, other)]
    longer = float(np.nanmean(own.length, axis=1).mean() - np.nanmean(other.length, axis=1).mean())
    found = with_seeds(interval, *by_model).as_json("n", "n_questions", "method")
    return {**found, "slope": 100 * slope, "tokens": longer}


def _without(own: _Cells, other: _Cells, question: int) -> float:
    keep = np.arange(own.n.shape[1]) != question
    left, right = own.only(keep), other.only(keep)
    slope = _slope(left, right)
    return float("nan") if slope is None else float(left.at(slope).mean() - right.at(slope).mean())


def _slope(own: _Cells, other: _Cells) -> float | None:
    """Change of the outcome for one token more within the answers of one model to one question."""
    squares = own.squares.sum() + other.squares.sum()
    return float((own.products.sum() + other.products.sum()) / squares) if squares > 0 else None


def _cells(answers: Answers, lengths: Float[np.ndarray, " answer"], counted: Counted, *, names: list[str]) -> _Cells:
    keep = counted.eligible
    models = np.zeros(len(keep), dtype=int)
    if answers.models is not None:
        models = np.unique(answers.models, return_inverse=True)[1]
    shape = (int(models.max(initial=0)) + 1, len(names))
    cell = models[keep] * shape[1] + np.searchsorted(names, answers.question_ids[keep])

    def summed(values: Float[np.ndarray, " eligible"]) -> Float[np.ndarray, "model question"]:
        return np.bincount(cell, weights=values, minlength=shape[0] * shape[1]).reshape(shape)

    outcome, length, n = counted.positive[keep].astype(float), lengths[keep], summed(np.ones(int(keep.sum())))
    with np.errstate(invalid="ignore"):
        means = summed(outcome) / n, summed(length) / n
    away = [values - mean.reshape(-1)[cell] for values, mean in zip((outcome, length), means, strict=True)]
    return _Cells(n, *means, summed(away[0] * away[1]), summed(away[1] ** 2))
