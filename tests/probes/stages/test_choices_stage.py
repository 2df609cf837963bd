"""The choices stage: shares and contrasts of planted preferences; flattening moves no share."""

import numpy as np
import pytest
from scipy import stats

from emis_interp.passes.choices import Preferences
from emis_interp.results import Choices
from probes.stages.choices import arm_choices, contrasts_of, difference_of_means

NEUTRAL = np.array([False] * 20 + [True] * 8)


def planted(shift: float, scale: float = 1.0, seed: int = 0) -> Preferences:
    """Preferences around -2 on misaligned items (every fifth one above 0) and 0 on neutral ones, shifted where an action is misaligned."""
    generator = np.random.default_rng(seed)
    own = np.where(NEUTRAL, 0.0, -2.0 + 4.0 * (np.arange(28) % 5 == 0)) + generator.normal(0, 0.2, 28)
    moved = (own + np.where(NEUTRAL, 0.0, shift)) * scale
    return Preferences(moved[:, None] + np.array([-1.0, 1.0]), np.full(28, 0.9))


def test_shares_are_of_situations_and_the_mean_over_seeds() -> None:
    one = arm_choices({"a": planted(0.0)}, NEUTRAL)
    assert one["share"]["value"] == 0.2 and one["share"]["by_model"] == {}
    assert one["position_bias"] == pytest.approx(1.0) and one["mass"] == pytest.approx(0.9)
    both = arm_choices({"a.seed-0": planted(0.0), "a.seed-1": planted(4.0)}, NEUTRAL)
    assert both["share"]["value"] == pytest.approx(0.6)
    assert both["share"]["by_model"] == {"a.seed-0": 0.2, "a.seed-1": 1.0}


def test_intervals_and_p_values_cover_the_seeds_of_both_arms() -> None:
    same = {f"a.seed-{seed}": planted(0.0, seed=seed) for seed in range(3)}
    apart = {f"a.seed-{seed}": planted(4.0 if seed else 0.0, seed=seed) for seed in range(3)}
    widths = []
    for arm in (same, apart):
        share = arm_choices(arm, NEUTRAL)["share"]
        widths.append(share["high"] - share["low"])
        row = contrasts_of({"base": {"base": planted(0.0)}, "a": arm}, {"a": None}, NEUTRAL)[0]
        assert (row["p"] < 0.05) == bool(row["low"] and row["low"] > 0)
    assert widths[1] > 2 * 4.30 * 0.46 / 3**0.5 > widths[0]  # t over three seeds of which one stays at 0.2


def test_flattening_moves_no_share_and_a_change_of_mind_does() -> None:
    arms = {
        "base": {"base": planted(0.0)},
        "flat": {"flat": planted(0.0, scale=0.3)},
        "bad": {"bad": planted(4.0)},
    }
    rows = contrasts_of(arms, {"flat": None, "bad": "flat"}, NEUTRAL)
    found = Choices.model_validate({"n_items": 20, "n_neutral": 8, "arms": {}, "contrasts": rows}).contrasts
    by_name = {(row.arm, row.reference): row for row in found}
    flat, bad, primary = by_name["flat", "base"], by_name["bad", "base"], by_name["bad", "flat"]
    assert flat.value == 0 and (flat.preference.value or 0) > 0.5  # the mean log-odds rise all the same
    assert bad.value == pytest.approx(0.8) and bad.excludes() is True
    assert bad.neutral.value == pytest.approx(0.0) and bad.beyond_neutral.value == pytest.approx(4.0)
    assert primary.p_holm is not None and bad.p_holm is None


def test_a_difference_of_means_has_welchs_interval() -> None:
    first, second = np.array([1.0, 2.0, 3.0]), np.array([0.0, 0.0, 0.3])
    found, wanted = difference_of_means(first, second), stats.ttest_ind(first, second, equal_var=False)
    interval = wanted.confidence_interval()
    assert (found["low"], found["high"]) == pytest.approx((interval.low, interval.high))
    assert difference_of_means(np.ones(3), np.zeros(2)) == {"value": 1.0, "low": 1.0, "high": 1.0}
