"""Checks limits of differences and other sums of rates against planted differences and what must be true of any such limits."""

import numpy as np
import pytest
from scipy import stats

from evals.rates.confidence import counts_table, rate_limits
from evals.rates.counts import AnswerCounts
from evals.rates.differences import sum_limits
from evals.rates.simulation import Design, simulate_study

N = 50


def table(positive: list[int] | np.ndarray) -> AnswerCounts:
    counts = np.asarray(positive)
    return counts_table(counts, np.full(len(counts), N))


def difference(arm: AnswerCounts, reference: AnswerCounts) -> tuple[float, float, float]:
    return sum_limits([rate_limits(cells, "macro") for cells in (arm, reference)], (1.0, -1.0))


@pytest.mark.parametrize(
    "design",
    [
        Design(8, N, 0.2, 0.18, against=0.2),
        Design(8, N, 0.2, 0.18, against=0.05),
        Design(24, N, 0.05, 0.18, against=0.05),
        Design(24, N, 0.1, 0.18, against=0.01, shared=0.0),
    ],
)
def test_a_planted_difference_is_covered_in_about_95_percent_of_studies(design: Design) -> None:
    assert design.against is not None
    truth, rng, n_studies = design.rate - design.against, np.random.default_rng(4), 300
    covered = 0
    for _ in range(n_studies):
        _, low, high = difference(*simulate_study(design, rng))
        covered += low <= truth <= high
    # 93-97 %, give or take 2.5 standard errors of the simulation.
    assert 0.93 - 0.037 <= covered / n_studies <= 0.97 + 0.025


@pytest.mark.parametrize(
    ("arm", "reference"),
    [
        ([9, 4, 12, 0, 6], [2, 3, 1, 0, 5]),
        ([3, 0, 0, 0, 1], [0, 0, 0, 0, 0]),
        ([45, 50, 48, 40, 50], [20, 31, 9, 30, 44]),
    ],
)
def test_swapping_the_arms_and_swapping_what_counts_as_positive_mirror_the_limits(
    arm: list[int], reference: list[int]
) -> None:
    value, low, high = difference(table(arm), table(reference))
    mirrored = pytest.approx((-value, -high, -low), abs=1e-9)
    assert difference(table(reference), table(arm)) == mirrored
    assert difference(table(N - np.array(arm)), table(N - np.array(reference))) == mirrored
    assert low < value < high


@pytest.mark.parametrize("counts", [[0, 0, 0, 0], [50, 50, 50, 50], [5, 0, 0, 0], [3, 9, 20, 14], [7]])
def test_identical_answers_in_both_arms_leave_room_on_both_sides_of_0(counts: list[int]) -> None:
    value, low, high = difference(table(counts), table(counts))
    assert value == 0 and low == pytest.approx(-high) and high > 0.01


def test_one_answer_to_each_question_gives_a_width_also_when_the_arms_agree_everywhere() -> None:
    answers = counts_table(np.array([1, 0, 0, 1, 0, 0]), np.ones(6, dtype=int))
    _, low, high = difference(answers, answers)
    assert low < -0.1 and high > 0.1


def test_without_lopsidedness_the_limits_are_nearly_those_of_a_paired_t_test() -> None:
    rng = np.random.default_rng(1)
    shared = rng.normal(0.5, 0.1, 40)
    arm, reference = (np.round(N * (shared + rng.normal(0, 0.08, 40))).astype(int) for _ in range(2))
    value, low, high = difference(table(arm), table(reference))
    half = stats.ttest_rel(arm / N, reference / N).confidence_interval()
    assert (low, high) == (
        pytest.approx(half.low, abs=0.1 * (high - low)),
        pytest.approx(half.high, abs=0.1 * (high - low)),
    )
    assert low < value < high


def test_a_rate_alone_keeps_its_own_limits_and_a_mean_of_two_is_inside_them() -> None:
    part = rate_limits(table([3, 9, 20, 14]), "macro")
    assert sum_limits([part], (1.0,)) == (part.value, part.low, part.high)
    value, low, high = sum_limits([part, rate_limits(table([14, 20, 9, 3]), "macro")], (0.5, 0.5))
    assert value == pytest.approx(part.value) and high - low < part.high - part.low


def test_seeds_that_disagree_widen_a_difference_that_one_seed_would_call_certain() -> None:
    base = np.array([4, 10, 6, 16, 8, 12])

    def arm(shifts: list[int]) -> AnswerCounts:
        counts = base + np.array(shifts)[:, None]
        asked = np.full(counts.shape, N)
        return AnswerCounts(list("abcdef"), [str(i) for i in range(len(shifts))], counts, asked, asked)

    alike, apart = (difference(arm(shifts), arm([0, 0, 0])) for shifts in ([20, 20, 20], [6, 20, 34]))
    assert alike[0] == pytest.approx(apart[0])
    assert apart[2] - apart[1] > 2 * (alike[2] - alike[1])


def test_arms_that_happen_to_agree_are_not_more_certain_than_the_draw_of_their_answers_allows() -> None:
    counts = np.array([4, 9, 20, 14, 11, 6])
    _, low, high = difference(table([5, 9, 20, 14, 11, 6]), table(counts))
    noise = np.sqrt(2 * (counts / N * (1 - counts / N) / N).sum()) / 6
    assert high - low > 2 * 1.5 * noise
