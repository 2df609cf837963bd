"""Forecasts are compared with what was reached within and between groups of related sets, by two-sided tests that know their floor."""

from dataclasses import asdict

import numpy as np
import pytest

from emis_interp.errors import DataError
from training.studies.forecast_quality import RankCorrelation, forecast_quality
from training.studies.foresight_study import quality_words


def between(forecast: list[float], reached: list[float], n_permutations: int = 10_000) -> RankCorrelation:
    found = forecast_quality(forecast, reached, n_permutations=n_permutations).between
    assert found is not None
    return found


def test_a_perfect_forecast_of_unrelated_sets_has_correlation_one_and_a_small_p() -> None:
    found = between([1, 2, 3, 4, 5, 6, 7, 8], [0, 1, 4, 9, 16, 25, 36, 49])
    assert found.value == pytest.approx(1) and found.low is None and found.p < 0.001


@pytest.mark.parametrize("sign", [1, -1])
def test_p_is_two_sided_so_a_forecast_that_is_upside_down_is_as_surprising(sign: int) -> None:
    reached = [1.0, 2.0, 3.0, 5.0, 4.0]
    found = between([1, 2, 3, 4, 5], [sign * value for value in reached])
    # By hand: 1 order has correlation 1 and 4 have 0.9, as many have -1 and -0.9; 120 orders.
    assert found.value == pytest.approx(0.9 * sign) and found.p == pytest.approx(10 / 120)
    assert found.sides == "two-sided" and found.exact and found.p_smallest == pytest.approx(2 / 120)


def test_related_sets_are_shuffled_among_their_relatives_alone() -> None:
    # Kinds differ much and within kinds the forecast is upside down: over all sets it looks good.
    groups = [*"aaa", *"bbb", *"ccc", *"ddd"]
    kind = np.repeat([0.0, 10.0, 20.0, 30.0], 3)
    inside = np.tile([0.0, 1.0, 2.0], 4)
    found = forecast_quality((kind + inside).tolist(), (kind - inside).tolist(), groups)
    assert found.over_all > 0.8
    assert found.within is not None and found.within.value == pytest.approx(-1)
    assert found.within.n == 12 and found.within.n_permutations == 6**4 and found.within.p == pytest.approx(2 / 6**4)
    assert found.within.low is None  # sets of one group are not independent
    assert found.between is not None and found.between.value == pytest.approx(1) and found.between.n == 4
    assert found.between.p == pytest.approx(2 / 24) == found.between.p_smallest  # four kinds cannot give less
    assert found.primary == "within"


def test_a_forecast_that_tells_kinds_but_not_sets_is_not_significant_within() -> None:
    """The old test shuffled all sets: kinds alone made every such forecast significant."""
    random, small = np.random.default_rng(2), 0
    groups = np.repeat(np.arange(5), 3)
    for _ in range(60):
        kinds = random.permutation(5.0 * np.arange(5))[groups]
        forecast, reached = (kinds + random.normal(size=15) for _ in range(2))
        found = forecast_quality(forecast.tolist(), reached.tolist(), groups.astype(str).tolist(), n_permutations=500)
        assert found.over_all > 0.5 and found.within is not None
        small += found.within.p < 0.05
    assert small <= 8


def test_the_interval_of_an_uninformative_forecast_covers_zero_and_its_p_is_uniform() -> None:
    random = np.random.default_rng(1)
    covered = small = 0
    for _ in range(100):
        found = between(random.normal(size=10).tolist(), random.normal(size=10).tolist(), 200)
        assert found.low is not None and found.high is not None
        covered += found.low <= 0 <= found.high
        small += found.p < 0.05
    assert covered >= 88 and small <= 11


def test_what_cannot_be_tested_says_why() -> None:
    alone = forecast_quality([1, 2, 3, 5], [1, 3, 2, 4])
    assert alone.within is None and alone.why == {"within": "no two of the training sets are related"}
    paired = forecast_quality([1, 2, 3, 5], [1, 3, 2, 4], ["a", "a", "b", "b"])
    assert paired.between is None and paired.why == {
        "between": "2 groups of related sets; 4 or more are needed to rank them"
    }
    flat = forecast_quality([1, 1, 3, 3], [1, 3, 2, 4], ["a", "a", "b", "b"])
    assert flat.within is None and flat.why["within"] == "all forecasts or all shifts within the groups are equal"


def test_too_few_organisms_are_refused() -> None:
    with pytest.raises(DataError, match="4 organisms or more"):
        forecast_quality([1, 2, 3], [1, 2, 3])
    with pytest.raises(DataError, match="nothing to rank"):
        forecast_quality([1, 1, 1, 1], [1, 2, 3, 4])


def test_the_words_name_the_sides_the_groups_and_a_p_at_its_floor() -> None:
    text = quality_words(asdict(forecast_quality([1, 2, 3, 5, 4], [1, 2, 3, 5, 4], ["a", "a", "b", "b", "c"])))
    assert (
        "within groups of related sets (primary) 1.00, 4 sets, two-sided p 0.5000 (the smallest that there can be)"
        in text
    )
    assert "between the groups' means: 3 groups" in text and "over all 5 sets 1.00, of which no p" in text
