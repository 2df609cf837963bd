"""Shares of items and paired differences: a published example, coverage, and what a test of so many items can find."""

import numpy as np
import pytest

from emis_interp.errors import DataError
from emis_interp.stats.proportions import minimal_detectable_difference, paired_difference, wilson


def table(both: int, gained: int, lost: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """After and before."""
    after = np.repeat([True, True, False, False], [both, gained, lost, neither])
    before = np.repeat([True, False, True, False], [both, gained, lost, neither])
    return after, before


def test_the_paired_interval_is_that_of_newcombes_example() -> None:
    """Newcombe (1998), table III: 36, 12, 2, 0 gives 0.2000 with 0.0569 to 0.3404 by method 10."""
    found = paired_difference(*table(36, 12, 2, neither=0))
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0569, 0.3404), abs=1e-4)


def test_no_change_at_all_has_an_interval_that_holds_zero_and_is_narrow() -> None:
    found = paired_difference(*table(400, 0, 0, neither=100))
    assert found.value == 0 and -0.02 < found.low < 0 < found.high < 0.02
    with pytest.raises(DataError, match="same items"):
        paired_difference(np.ones(3, dtype=bool), np.ones(2, dtype=bool))
    with pytest.raises(DataError, match="at least one item"):
        wilson(np.ones(0, dtype=bool))


@pytest.mark.parametrize("share", [0.6, 0.9])
def test_intervals_cover_the_truth(share: float) -> None:
    generator = np.random.default_rng(1)
    hits, paired = 0, 0
    for _ in range(1500):
        before = generator.random(500) < share
        after = np.where(generator.random(500) < 0.1, generator.random(500) < share - 0.1, before)
        found, one = paired_difference(after, before), wilson(before)
        paired += found.low <= 0.1 * -0.1 <= found.high
        hits += one.low <= share <= one.high
    assert hits / 1500 == pytest.approx(0.95, abs=0.02)
    assert 0.94 <= paired / 1500 <= 0.985  # it errs on the wide side where most items agree


def test_a_difference_of_the_stated_size_is_found_in_four_of_five_studies() -> None:
    generator = np.random.default_rng(2)
    n, discordant = 520, 0.1
    size = minimal_detectable_difference(n, discordant)
    assert size == pytest.approx(0.0388, abs=1e-3)
    found = 0
    for _ in range(600):
        draw = generator.random(n)
        lost = draw < (discordant + size) / 2
        gained = (draw >= (discordant + size) / 2) & (draw < discordant)
        before = np.where(lost, True, np.where(gained, False, generator.random(n) < 0.7))
        after = np.where(lost, False, np.where(gained, True, before))
        found += paired_difference(after, before).high < 0
    assert found / 600 == pytest.approx(0.8, abs=0.06)
