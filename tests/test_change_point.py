"""Change points: a planted bend is found with an interval that covers it, a straight or noisy series has none."""

import numpy as np

from training.change_point import change_point

STEPS = np.arange(0, 44, 4, dtype=float)


def planted(bend: float, seed: int, noise: float = 0.02) -> np.ndarray:
    random = np.random.default_rng(seed)
    curve = 0.01 * np.maximum(0, STEPS - bend)
    return curve * random.uniform(0.5, 1.5, (12, 1)) + random.normal(0, noise, (12, len(STEPS))).cumsum(1) / 3


def test_a_planted_bend_is_found_and_its_interval_covers_it() -> None:
    covered = 0
    for seed in range(20):
        found = change_point(STEPS, planted(20, seed), n_bootstrap=200)
        assert found.step is not None and found.low is not None and found.high is not None
        assert found.slope_after is not None and found.slope_before is not None
        assert found.slope_after > found.slope_before
        covered += found.low <= 20 <= found.high
    assert covered >= 17


def test_a_straight_series_has_no_change_point_in_all_but_a_few_draws() -> None:
    random = np.random.default_rng(0)
    stated = 0
    for _ in range(60):
        straight = 0.01 * STEPS * random.uniform(0.5, 1.5, (12, 1)) + random.normal(0, 0.02, (12, len(STEPS)))
        stated += change_point(STEPS, straight, n_bootstrap=200).step is not None
    assert stated <= 8  # 5 % expected; 9 or more of 60 has a chance below 0.4 %


def test_too_few_steps_or_questions_give_a_reason_instead_of_a_number() -> None:
    assert change_point(STEPS[:4], np.zeros((12, 4))).reason.startswith("needs 5 steps")
    assert change_point(STEPS, np.zeros((2, len(STEPS)))).step is None
