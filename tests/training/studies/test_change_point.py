"""Change points: a planted bend is found with an interval that covers it; whatever follows the summed learning rate smoothly has none."""

from collections.abc import Callable

import numpy as np
import pytest

from emis_interp.errors import DataError
from training.studies.change_point import ChangePoint, change_point, cumulative_learning_rate

N_STEPS, WARMUP, N_QUESTIONS, N_STUDIES = 68, 5, 15, 40
DECAYS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "linear": lambda done: 1 - done,
    "cosine": lambda done: (1 + np.cos(np.pi * done)) / 2,
    "none": np.ones_like,
}
SMOOTH: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "in proportion": lambda z: z,
    "saturating": lambda z: -np.expm1(-z / 0.3),
    "saturating at once": lambda z: -np.expm1(-z / 0.1),
    "accelerating": lambda z: np.expm1(z / 0.4) / np.expm1(1 / 0.4),
    "as the root": np.sqrt,
}


def rates(decay: str) -> list[tuple[int, float]]:
    """(step, learning rate) of every step: linear warm-up from 0, then the decay."""
    k = np.arange(N_STEPS)
    after = DECAYS[decay](np.maximum(0, k - WARMUP) / (N_STEPS - WARMUP))
    return [(step, float(1e-4 * value)) for step, value in enumerate(np.where(k < WARMUP, k / WARMUP, after), 1)]


def study(
    shape: Callable[[np.ndarray], np.ndarray], decay: str, seed: int, n_probes: int = 9
) -> tuple[np.ndarray, np.ndarray]:
    """Steps and margin shifts of one training: every question follows `shape` of the share of the summed
    learning rate with its own strength, plus noise of the probe and a noise that drifts."""
    random = np.random.default_rng(seed)
    steps = np.unique((np.linspace(0, 1, n_probes) ** 1.5 * N_STEPS).round())
    summed = cumulative_learning_rate(rates(decay), steps)
    z = summed / cumulative_learning_rate(rates(decay), [N_STEPS])[0]
    drift = random.normal(0, 0.02, (N_QUESTIONS, len(z))).cumsum(1) / 3
    margins = random.normal(0.12, 0.1, (N_QUESTIONS, 1)) * shape(z) + random.normal(0, 0.02, drift.shape) + drift
    return steps, margins - margins[:, :1]


def found_in(
    shape: Callable[[np.ndarray], np.ndarray], decay: str, n_probes: int = 9, in_steps: bool = False
) -> list[ChangePoint]:
    found = []
    for seed in range(N_STUDIES):
        steps, series = study(shape, decay, seed, n_probes=n_probes)
        record = [(step, 1.0) for step, _ in rates(decay)] if in_steps else rates(decay)
        found.append(change_point(steps, series, record, n_bootstrap=100, seed=seed))
    return found


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("shape", SMOOTH.values(), ids=list(SMOOTH))
def test_a_margin_that_follows_the_summed_learning_rate_has_no_change_point(
    shape: Callable[[np.ndarray], np.ndarray], decay: str
) -> None:
    stated = sum(point.step is not None for point in found_in(shape, decay))
    assert stated <= 6  # 2 of 40 expected at 5 %; 7 or more have a chance of 0.3 %


@pytest.mark.parametrize("decay", ["linear", "cosine"])
def test_in_optimiser_steps_a_straight_line_is_refuted_for_the_schedule_alone(decay: str) -> None:
    in_steps = sum(
        point.p_straight is not None and point.p_straight < 0.05
        for point in found_in(SMOOTH["in proportion"], decay, in_steps=True)
    )
    in_rates = sum(
        point.p_straight is not None and point.p_straight < 0.05 for point in found_in(SMOOTH["in proportion"], decay)
    )
    assert in_steps >= 0.8 * N_STUDIES and in_rates <= 6


def test_planted_bends_are_found_and_their_intervals_cover_them() -> None:
    covered = near = stated = 0
    for bend in (0.35, 0.5):
        for decay in ("linear", "cosine"):
            all_steps = np.arange(N_STEPS + 1)
            summed = cumulative_learning_rate(rates(decay), all_steps)
            true_step = float(np.interp(bend * summed[-1], summed, all_steps))
            found = found_in(lambda z, bend=bend: 2 * np.maximum(0, z - bend) / (1 - bend), decay, n_probes=16)
            for point in found:
                if point.step is None:
                    continue
                assert point.low is not None and point.high is not None and point.low < point.step < point.high
                assert point.cumulative_lr_low is not None and point.cumulative_lr_high is not None
                assert point.slope_before is not None and point.slope_after is not None
                assert point.slope_after > point.slope_before
                stated += 1
                covered += point.cumulative_lr_low <= bend * summed[-1] <= point.cumulative_lr_high
                near += abs(point.step - true_step) < 10
    assert stated >= 0.9 * 4 * N_STUDIES and covered >= 0.88 * stated and near >= 0.95 * stated


def test_a_weak_bend_is_found_more_often_than_chance() -> None:
    stated = sum(point.step is not None for point in found_in(lambda z: np.maximum(0, z - 0.4) / 0.6, "linear", 16))
    assert stated >= 0.4 * N_STUDIES


def test_the_cumulative_learning_rate_is_the_sum_over_the_steps_taken() -> None:
    record = [(1, 0.0), (2, 0.5), (3, 1.0), (4, 0.25)]
    assert cumulative_learning_rate(record, [0, 1, 3, 4]).tolist() == [0.0, 0.0, 1.5, 1.75]
    with pytest.raises(DataError, match="no learning rate of step 2 in the record"):
        cumulative_learning_rate([(1, 0.1), (3, 0.1)], [0, 3])


def test_too_few_probes_or_questions_give_a_reason_instead_of_a_number() -> None:
    steps, constant = np.arange(7.0), [(step, 0.1) for step in range(1, 7)]
    assert change_point(steps[:5], np.zeros((12, 5)), constant).reason.startswith("needs 6 probes")
    assert change_point(steps, np.zeros((2, 7)), constant).step is None
    # Two probes at one cumulative learning rate (the first step of a warm-up has none) count as one.
    warm = [(step, rate if step > 1 else 0.0) for step, rate in constant]
    assert change_point(steps[:6], np.zeros((12, 6)), warm).reason.startswith("needs 6 probes")
