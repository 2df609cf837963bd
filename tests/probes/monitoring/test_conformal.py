"""The threshold: its rank, its promise over draws, its refusals, and the rates that are measured at it."""

import numpy as np
import pytest

from emis_interp.errors import DataError
from probes.monitoring.conformal import (
    conformal_rank,
    conformal_threshold,
    flag_rate,
    maxima_of,
    n_needed,
    rate_spread,
    trailing_means,
)


@pytest.mark.parametrize(("rate", "n"), [(0.01, 99), (0.001, 999), (0.05, 19), (0.1, 9), (0.03, 33)])
def test_the_smallest_number_of_texts_is_that_of_the_rule_and_one_fewer_is_refused(rate: float, n: int) -> None:
    assert n_needed(rate) == n
    assert conformal_rank(n, rate) <= n
    with pytest.raises(DataError, match=f"it takes at least {n}. Give 1 more benign texts, or ask for a rate"):
        conformal_rank(n - 1, rate)


def test_ranks_are_exact_where_floats_are_not() -> None:
    assert conformal_rank(99, 0.01) == 99
    assert conformal_rank(199, 0.01) == 198
    assert conformal_rank(999, 0.1) == 900  # (1 - 0.1) * 1000 is not 900 in floats on every route
    assert conformal_threshold(np.arange(99.0)[::-1].copy(), 0.01) == (98.0, 99)


def test_over_many_calibrations_the_false_alarm_rate_is_below_the_promise_and_spread_as_the_beta_law_says() -> None:
    generator, n, rate, realised = np.random.default_rng(0), 150, 0.05, []
    for _ in range(400):
        threshold, rank = conformal_threshold(generator.normal(size=n), rate)
        realised.append((generator.normal(size=4000) > threshold).mean())
    law = rate_spread(n, rank)
    assert np.mean(realised) == pytest.approx(law.mean, abs=0.003)
    assert law.mean <= rate
    assert np.mean([(law.low <= one <= law.high) for one in realised]) == pytest.approx(0.95, abs=0.04)


def test_a_rate_outside_zero_and_one_and_scores_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(DataError, match=r"a false-alarm rate of 1\.5"):
        conformal_rank(1000, 1.5)
    with pytest.raises(DataError, match="not a finite number"):
        conformal_threshold(np.array([np.nan] * 99), 0.01)


def test_trailing_means_use_nothing_of_what_comes_later() -> None:
    scores = np.array([4.0, 0.0, 2.0, 6.0])
    assert trailing_means(scores, 2).tolist() == [-np.inf, 2.0, 1.0, 4.0]
    assert trailing_means(scores, 1).tolist() == scores.tolist()
    assert trailing_means(scores, 9).tolist() == [
        -np.inf,
        -np.inf,
        -np.inf,
        3.0,
    ]  # a short answer: its mean, at its end
    for k in range(2, 5):
        assert trailing_means(scores[:k], 2)[-1] == trailing_means(scores, 2)[k - 1]
    with pytest.raises(DataError, match="a window of 0 tokens"):
        trailing_means(scores, 0)


def test_a_text_without_a_scored_token_is_named() -> None:
    with pytest.raises(DataError, match="text 1 has no scored token"):
        maxima_of([np.ones(3), np.empty(0)], 2)


def test_the_exact_interval_is_that_of_the_tables_and_clusters_widen_the_other() -> None:
    maxima = np.array([2.0] * 5 + [0.0] * 95)
    spread = flag_rate(maxima, 1.0, [str(i) for i in range(100)], source="here")
    assert (spread.value, spread.n, spread.n_flagged) == (0.05, 100, 5)
    assert (spread.low, spread.high) == (pytest.approx(0.0164, abs=1e-4), pytest.approx(0.1128, abs=1e-4))
    few = flag_rate(maxima, 1.0, [str(i // 5) for i in range(100)], source="here")
    assert spread.high_by_question and few.high_by_question and few.high_by_question > 1.5 * spread.high_by_question
    none = flag_rate(maxima, 9.0, ["a"] * 100, source="here")
    assert (none.value, none.low) == (0.0, 0.0) and none.high == pytest.approx(0.0362, abs=1e-4)
    assert none.high_by_question is None
