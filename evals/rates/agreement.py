"""Turns two judges' scores of the same answers into how far they agree, and into what the choice of the judge does to every rate.

Differences are the first judge minus the second, in points of 0-100 or as rates in [0, 1]. Agreement is not correctness: two judges can
share a mistake.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from sklearn.metrics import cohen_kappa_score

from emis_interp.files.names import METRICS
from emis_interp.stats.interval import Interval, square_and_add
from emis_interp.stats.jackknife import answers_mean, jackknife_interval
from emis_interp.stats.rank_correlation import spearman_interval
from evals.rates.estimands import ESTIMANDS, Answers, Estimand, Thresholds, Weighting, rate
from evals.rates.uncertainty import rate_interval
from evals.settings.names import WEIGHTINGS

N_BINS = 10
"""Bins of the weighted kappa: [0, 10), [10, 20), ... [90, 100]; equal widths, since quadratic weights take bins as equally far apart."""

# With fewer answers that the judges count differently, resampling them says too little about how many more there are.
FEWEST_DISCORDANT = 5


def agreement_of(first: Answers, second: Answers) -> dict[str, dict[str, Any]]:
    """For `aligned` and `coherent`: what `metric_agreement` says of the same answers in the same order."""
    return {metric: metric_agreement(*_columns((first, second), metric), first.question_ids) for metric in METRICS}


def compare_judges(first: Answers, second: Answers, thresholds: Thresholds = Thresholds()) -> dict[str, Any]:
    """Agreement in every metric, the labels of both judges, and every rate under each of them.

    Args:
        first, second: the same answers in the same order.

    Returns:
        `n` answers, `n_questions`; `aligned` and `coherent` as `metric_agreement`; `labels`: first judge's label -> second's -> answers,
        with "number" and "unscored" beside the labels; `rates`: estimand -> weighting -> `rate_effect`.

    Raises:
        ValueError: the answers differ in number or in their questions.
    """
    if not np.array_equal(first.question_ids, second.question_ids):
        raise ValueError("two judges are compared on the same answers in the same order")
    return {
        "n": len(first.question_ids),
        "n_questions": len(np.unique(first.question_ids)),
        **agreement_of(first, second),
        "labels": _crossed(_kinds(first), _kinds(second)),
        "rates": {
            name: {
                weighting: rate_effect(first, second, estimand, weighting=weighting, thresholds=thresholds)
                for weighting in WEIGHTINGS
            }
            for name, estimand in ESTIMANDS.items()
        },
    }


def metric_agreement(
    first: Float[np.ndarray, " answer"],
    second: Float[np.ndarray, " answer"],
    question_ids: np.ndarray,
) -> dict[str, Any]:
    """Agreement of two columns of scores, NaN where there is none; only answers with both count, the others are counted.

    Returns:
        `n`, `n_only_first`, `n_only_second`, `n_neither`: answers by who scored them;
        `spearman`, `spearman_low`, `spearman_high`: rank correlation with its 95 % jackknife interval over questions; None
        with fewer than three answers, or when a judge gave one score to all;
        `mean_difference`, `mean_difference_low`, `mean_difference_high`: the bias, with the same kind of interval;
        `limits_low`, `limits_high`: the 95 % limits of agreement, bias -+ 1.96 standard deviations of the differences (Bland & Altman
        1986): where a single answer's difference lies; None with fewer than two answers;
        `kappa`: quadratic-weighted kappa (Cohen 1968) on ten bins of ten points; None when both judges use one and the same bin.
    """
    scored = [~np.isnan(first), ~np.isnan(second)]
    both = scored[0] & scored[1]
    a, b, ids = first[both], second[both], question_ids[both]
    bias = answers_mean(a - b, ids)
    spread = 1.96 * float((a - b).std(ddof=1)) if len(a) > 1 else None
    rank = spearman_interval(a, b, ids)
    return {
        "n": int(both.sum()),
        "n_only_first": int((scored[0] & ~scored[1]).sum()),
        "n_only_second": int((scored[1] & ~scored[0]).sum()),
        "n_neither": int((~scored[0] & ~scored[1]).sum()),
        "spearman": rank.value,
        "spearman_low": rank.low,
        "spearman_high": rank.high,
        "mean_difference": bias.value,
        "mean_difference_low": bias.low,
        "mean_difference_high": bias.high,
        "limits_low": None if spread is None or bias.value is None else bias.value - spread,
        "limits_high": None if spread is None or bias.value is None else bias.value + spread,
        "kappa": _kappa(a, b),
    }


def rate_effect(
    first: Answers,
    second: Answers,
    estimand: Estimand,
    *,
    weighting: Weighting = "pooled",
    thresholds: Thresholds = Thresholds(),
) -> dict[str, Any]:
    """One rate under each judge, and their difference on the same answers, each with its interval.

    The difference's interval is over questions, both judges on the same answers (jackknife). When the judges differ on fewer than 5 answers
    it is made from the two rates' own intervals (Newcombe 1998), which is too wide rather than too narrow.
    """
    rates = [rate_interval(answers, estimand, weighting, thresholds=thresholds) for answers in (first, second)]
    return {
        "first": rates[0].as_json("n", "method"),
        "second": rates[1].as_json("n", "method"),
        "difference": _difference(first, second, rates, estimand=estimand, weighting=weighting, thresholds=thresholds),
    }


def _difference(
    first: Answers,
    second: Answers,
    rates: Sequence[Interval],
    *,
    estimand: Estimand,
    weighting: Weighting,
    thresholds: Thresholds,
) -> dict[str, Any]:
    a, b = rates
    if a.value is None or b.value is None or a.low is None or a.high is None or b.low is None or b.high is None:
        return {"value": None, "low": None, "high": None, "n_discordant": 0, "method": "a rate has no eligible answer"}
    columns = np.stack([*estimand(first, thresholds), *estimand(second, thresholds)], axis=1).astype(int)
    n_discordant = int((columns[:, :2] != columns[:, 2:]).any(axis=1).sum())
    value = a.value - b.value
    if n_discordant < FEWEST_DISCORDANT:
        low, high = square_and_add([(a.value, a.low, a.high), (b.value, b.low, b.high)])
        low, high = max(-1.0, low), min(1.0, high)
        method = f"Newcombe's difference of unpaired intervals, the judges differ on {n_discordant} answers"
    else:
        found = jackknife_interval(
            lambda keep: _rate_difference(
                first.only(keep), second.only(keep), estimand, weighting=weighting, thresholds=thresholds
            ),
            first.question_ids,
        )
        if found.low is None or found.high is None:
            return {"value": value, "low": None, "high": None, "n_discordant": n_discordant, "method": found.method}
        low, high, method = (
            max(-1.0, found.low),
            min(1.0, found.high),
            f"{found.method}, both judges on the same answers",
        )
    return {"value": value, "low": low, "high": high, "n_discordant": n_discordant, "method": method}


def _rate_difference(
    first: Answers, second: Answers, estimand: Estimand, *, weighting: Weighting, thresholds: Thresholds
) -> float | None:
    values = [rate(answers, estimand, weighting, thresholds=thresholds).value for answers in (first, second)]
    return None if values[0] is None or values[1] is None else values[0] - values[1]


def _kappa(a: Float[np.ndarray, " answer"], b: Float[np.ndarray, " answer"]) -> float | None:
    bins = [np.minimum(scores // (100 / N_BINS), N_BINS - 1).astype(int) for scores in (a, b)]
    if len(np.unique(np.concatenate(bins))) < 2:
        return None
    return float(cohen_kappa_score(*bins, labels=list(range(N_BINS)), weights="quadratic"))


def _columns(pair: tuple[Answers, Answers], metric: str) -> tuple[np.ndarray, np.ndarray]:
    return getattr(pair[0], metric), getattr(pair[1], metric)


def _kinds(answers: Answers) -> np.ndarray:
    """What the judge said of alignment: a label, "number" or "unscored"."""
    kinds = np.where(np.isnan(answers.aligned), "unscored", "number")
    return np.where(answers.labels == "", kinds, answers.labels)


def _crossed(first: np.ndarray, second: np.ndarray) -> dict[str, dict[str, int]]:
    names, column = np.unique(first, return_inverse=True)
    others, other_column = np.unique(second, return_inverse=True)
    counts = np.bincount(column * len(others) + other_column, minlength=len(names) * len(others))
    table: dict[str, dict[str, int]] = {}
    for place in np.flatnonzero(counts).tolist():
        row, other = divmod(place, len(others))
        table.setdefault(str(names[row]), {})[str(others[other])] = int(counts[place])
    return table
