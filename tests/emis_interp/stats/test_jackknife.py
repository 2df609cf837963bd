"""The jackknife against closed forms, on the bounds of its scales, and its coverage where the percentile bootstrap misses."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit

from emis_interp.stats.interval import mean_interval
from emis_interp.stats.jackknife import (
    FISHER,
    LINE,
    answers_mean,
    between,
    groups_mean,
    jackknife_interval,
    jackknife_limits,
)


def test_the_jackknife_of_a_mean_of_questions_is_their_t_interval() -> None:
    values = np.array([0.1, -0.2, 0.4, 0.3, 0.0])
    ours, closed = groups_mean(values), mean_interval(values)
    assert [ours.value, ours.low, ours.high] == pytest.approx([closed.value, closed.low, closed.high])
    assert ours.method == "jackknife t over 5 questions"


def test_questions_with_more_answers_weigh_more_in_a_mean_of_answers() -> None:
    values, ids = [10.0] * 9 + [90.0] * 3 + [50.0] * 3, ["a"] * 9 + ["b"] * 3 + ["c"] * 3
    found = answers_mean(values, ids)
    without = np.array([70.0, (90 + 150) / 12, (90 + 270) / 12])
    half = stats.t.ppf(0.975, 2) * np.sqrt(2 / 3 * ((without - 34) ** 2).sum())
    assert found.value == 34
    assert [found.low, found.high] == pytest.approx([34 - half, 34 + half])


@pytest.mark.parametrize("values", [[99.0, 100, 100, 98, 100, 40], [0.0, 1, 0, 0, 3, 60]])
def test_limits_of_a_bounded_mean_stay_inside_and_reach_towards_the_middle(values: list[float]) -> None:
    found = answers_mean(values, list("abcdef"), (0, 100))
    assert found.value is not None and found.low is not None and found.high is not None
    assert 0 < found.low < found.value < found.high < 100
    to_middle, to_bound = found.value - found.low, found.high - found.value
    assert (to_middle > to_bound) == (found.value > 50)


@pytest.mark.parametrize(
    ("whole", "without", "scale"),
    [
        (1.0, [1.0, 1.0, 1.0], between(0, 1)),  # every question separates
        (1.0, [1.0, 1.0, 1.0], FISHER),
        (0.7, [0.7], LINE),
        (0.7, [0.7, np.nan, np.nan], LINE),
        (0.7, [0.7, 0.7], LINE),
    ],
)
def test_without_spread_or_on_a_bound_there_are_no_limits(whole: float, without: list[float], scale: object) -> None:
    assert jackknife_limits(whole, without, scale) is None  # pyright: ignore[reportArgumentType]


def test_one_question_that_holds_all_the_errors_still_gives_limits() -> None:
    """Without it the AUROC is 1, where the logit is infinite."""
    found = groups_mean(np.array([1.0, 1.0, 0.6, 1.0]), between(0, 1))
    assert found.low is not None and found.high is not None
    assert 0 < found.low < 0.9 < found.high < 1


def test_answers_of_one_question_are_drawn_where_there_is_one_and_said_so() -> None:
    values = np.arange(500.0) % 7
    found = answers_mean(values, ["q"] * 500)
    assert "fewer than 2 questions" in found.method
    assert found.low is not None and found.value is not None
    naive = stats.t.ppf(0.975, 499) * values.std(ddof=1) / np.sqrt(500)
    assert found.value - found.low == pytest.approx(naive, rel=0.3)


def test_questions_that_are_alike_leave_the_draw_of_their_answers() -> None:
    found = answers_mean([10.0, 30.0] * 6, np.repeat(list("abc"), 4))
    assert found.method == "jackknife t over answers only (the questions show no spread)"
    assert found.low is not None and found.high is not None
    half = stats.t.ppf(0.975, 11) * 10 * np.sqrt(12 / 11) / np.sqrt(12)
    assert [found.low, found.high] == pytest.approx([20 - half, 20 + half])


def test_a_statistic_without_a_value_has_no_interval() -> None:
    found = jackknife_interval(lambda keep: None, list("abc"))
    assert (found.value, found.low, found.method) == (None, None, "no value")


def test_bounded_means_of_few_questions_cover_where_the_percentile_bootstrap_misses_on_one_side() -> None:
    """Planted: scores near 90 with question effects; eight questions, unequal numbers of answers."""
    rng = np.random.default_rng(0)
    truth = 100 * expit(2.5 + np.hypot(1.0, 1.2) * rng.normal(size=400_000)).mean()
    hits = {"ours": 0, "percentile": 0}
    for _ in range(300):
        counts = rng.integers(10, 40, 8)
        groups = [100 * expit(2.5 + rng.normal() + 1.2 * rng.normal(size=n)) for n in counts]
        found = answers_mean(np.concatenate(groups), np.repeat(np.arange(8).astype(str), counts), (0, 100))
        assert found.low is not None and found.high is not None
        hits["ours"] += found.low <= truth <= found.high
        sums = np.array([[group.sum(), len(group)] for group in groups])
        drawn = sums[rng.integers(0, 8, (400, 8))].sum(1)
        low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [0.025, 0.975])
        hits["percentile"] += low <= truth <= high
    assert hits["ours"] / 300 > 0.91
    assert hits["percentile"] / 300 < 0.89
