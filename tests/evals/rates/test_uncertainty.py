"""Checks intervals against closed forms, planted truths and the cases where a bootstrap alone would mislead."""

import numpy as np
import pytest
from scipy import stats

from emis_interp.stats.interval import Interval, mean_interval, stratified_mean_interval
from emis_interp.stats.jackknife import answers_mean
from evals.names import IntervalMethod
from evals.rates.bootstrap import bootstrap_rates
from evals.rates.confidence import counts_table, rate_limits
from evals.rates.counts import AnswerCounts, Answers
from evals.rates.estimands import count_cells, em_of_all, em_of_coherent
from evals.rates.uncertainty import paired_contrast, rate_interval


def arm(positives: dict[str, int], n: int) -> Answers:
    """n coherent answers to each question, of which so many are misaligned."""
    aligned = np.concatenate([np.where(np.arange(n) < count, 10.0, 90.0) for count in positives.values()])
    return Answers.from_arrays(aligned, np.full(len(aligned), 90.0), np.repeat(list(positives), n))


def bounds(found: Interval) -> tuple[float, float]:
    assert found.low is not None and found.high is not None
    return found.low, found.high


def width(found: Interval) -> float:
    low, high = bounds(found)
    return high - low


SPREAD = {"a": 2, "b": 9, "c": 4, "d": 12, "e": 0, "f": 6}


def test_the_same_seed_gives_the_same_bootstrap_and_another_seed_nearly_so() -> None:
    first, again, other = (
        rate_interval(arm(SPREAD, 20), em_of_all, method="bootstrap", n_bootstrap=2000, seed=seed) for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other
    assert first.low == pytest.approx(other.low, abs=0.03)


@pytest.mark.parametrize("method", ["limits", "bootstrap"])
def test_one_question_has_its_answers_alone_and_matches_the_binomial(method: IntervalMethod) -> None:
    found = rate_interval(arm({"a": 60}, 200), em_of_all, method=method)
    assert found.method.endswith("answers only (fewer than 2 questions)")
    half = 1.96 * np.sqrt(0.3 * 0.7 / 200)
    assert (found.low, found.high) == (pytest.approx(0.3 - half, abs=0.01), pytest.approx(0.3 + half, abs=0.01))


def test_the_bootstrap_follows_a_loop_over_models_questions_and_answers() -> None:
    rng = np.random.default_rng(5)
    models, questions = np.repeat(["s1", "s2", "s3"], 60), np.tile(np.repeat(list("abcd"), 15), 3)
    chance = 0.1 + 0.2 * (models == "s2") + 0.3 * (questions == "b")
    answers = Answers.from_arrays(
        np.where(rng.random(180) < chance, 10.0, 90.0),
        np.where(rng.random(180) < 0.8, 90.0, 20.0),
        questions,
        labels=None,
        models=models,
    )
    cells = count_cells(answers, em_of_coherent)
    counted = em_of_coherent(answers)
    slow = []
    for _ in range(1500):
        rates = []
        for model in rng.choice(["s1", "s2", "s3"], 3):
            shares = []
            for question in rng.choice(list("abcd"), 4):
                # Each model meets the same drawn questions in the crossed design; here the models' draws differ, and only the mean agrees.
                rows = rng.choice(np.flatnonzero((models == model) & (questions == question)), 15)
                if counted.eligible[rows].any():
                    shares.append(counted.positive[rows].sum() / counted.eligible[rows].sum())
            rates.append(np.mean(shares))
        slow.append(np.mean(rates))
    fast = bootstrap_rates(cells, "macro", 4000)
    assert fast.mean() == pytest.approx(np.mean(slow), abs=0.01)
    assert fast.std() > np.std(slow)  # questions shared by the models do not average out


def test_questions_that_differ_widen_the_interval() -> None:
    alike = rate_interval(arm(dict.fromkeys("abcdef", 5), 20), em_of_all)
    apart = rate_interval(arm({"a": 20, "b": 10, "c": 0, "d": 0, "e": 0, "f": 0}, 20), em_of_all)
    assert alike.value == apart.value == 0.25
    assert width(apart) > 2 * width(alike)


def test_questions_without_variance_within_follow_the_closed_form() -> None:
    values, ids = np.repeat([0.0, 10, 20, 30, 40, 50, 60, 70, 80, 90], 5), np.repeat(list("abcdefghij"), 5)
    found = answers_mean(values, ids)
    half = stats.t.ppf(0.975, 9) * np.std(np.arange(10) * 10.0, ddof=1) / np.sqrt(10)
    assert found.value == 45
    assert width(found) / 2 == pytest.approx(half)


def test_zero_positives_give_an_upper_bound_that_more_questions_lower() -> None:
    for weighting in ("pooled", "macro"):
        few, many = (rate_interval(arm({str(k): 0 for k in range(n)}, 50), em_of_all, weighting) for n in (8, 48))
        assert few.value == few.low == many.low == 0
        assert few.method == "beta-binomial model of questions, over questions and answers"
        assert 0.005 < bounds(many)[1] < 0.02 < bounds(few)[1] < 0.1


def test_zero_positives_of_one_question_give_the_exact_binomial_bound() -> None:
    found = rate_interval(arm({"a": 0}, 60), em_of_all)
    assert found.high == pytest.approx(1 - 0.025 ** (1 / 60))
    assert "fewer than 2 questions" in found.method


def test_a_suite_taken_as_given_is_more_certain_than_the_population_of_questions() -> None:
    counts, asked = np.array([0, 3, 30, 12]), np.full(4, 50)
    given = rate_limits(counts_table(counts, asked), "macro", population="suite")
    drawn = rate_limits(counts_table(counts, asked), "macro")
    error = np.sqrt((counts / 50 * (1 - counts / 50) / 50).sum()) / 4
    assert (given.high - given.low) / 2 == pytest.approx(1.96 * error, rel=0.05)
    assert drawn.high - drawn.low > 2 * (given.high - given.low)


def test_arms_with_equal_counts_still_differ_by_the_noise_of_their_answers() -> None:
    same = arm(SPREAD, 20)
    found = paired_contrast(same, same, em_of_all)
    low, high = bounds(found)
    noise = np.sqrt(2 * sum(k / 20 * (1 - k / 20) / 20 for k in SPREAD.values())) / 6
    assert high == pytest.approx(-low) and found.value == 0
    assert 1.5 * noise < high < 3.5 * noise


def test_all_positives_give_a_lower_bound() -> None:
    found = rate_interval(arm({"a": 10, "b": 10}, 10), em_of_all)
    assert found.value == found.high == 1
    assert 0.6 < bounds(found)[0] < 0.95


def test_a_single_positive_does_not_shrink_the_interval_below_that_of_none() -> None:
    none = rate_interval(arm({"a": 0, "b": 0, "c": 0, "d": 0}, 25), em_of_all)
    one = rate_interval(arm({"a": 1, "b": 0, "c": 0, "d": 0}, 25), em_of_all)
    assert bounds(one)[0] < 0.01 < bounds(none)[1] < bounds(one)[1]


def test_nothing_eligible_gives_no_interval() -> None:
    nothing = Answers.from_arrays([None, None], [90.0, 90.0], ["a", "b"])
    found = rate_interval(nothing, em_of_coherent)
    assert (found.value, found.low, found.high, found.method) == (None, None, None, "no eligible answer")
    assert (found.n, found.n_questions, found.n_questions_left_out) == (0, 0, 2)


@pytest.mark.parametrize("rate", [0.05, 0.2])
def test_intervals_cover_a_planted_rate_in_most_simulated_suites(rate: float) -> None:
    rng = np.random.default_rng(3)
    covered = naive = 0
    for _ in range(200):
        strength = 1 / 0.15 - 1  # intraclass correlation 0.15
        cells = counts_table(rng.binomial(50, rng.beta(rate * strength, (1 - rate) * strength, 8)), np.full(8, 50))
        found = rate_limits(cells, "macro")
        covered += found.low <= rate <= found.high
        error = 1.96 * np.sqrt(found.value * (1 - found.value) / 400)
        naive += abs(found.value - rate) <= error
    assert 182 <= covered <= 199  # 5 standard errors around 95 %
    assert naive < 150


def test_seeds_that_differ_widen_the_interval_and_equal_ones_hardly_do() -> None:
    counts = np.tile([4, 10, 6, 16, 8, 12], (4, 1))
    asked = np.full(counts.shape, 20)

    def limits(shift: list[int]) -> float:
        moved = counts + np.array(shift)[:, None]
        found = rate_limits(AnswerCounts(list("abcdef"), list("1234"), moved, asked, asked), "macro")
        return found.high - found.low

    alone = rate_limits(counts_table(counts[0], asked[0]), "macro")
    assert limits([0, 0, 0, 0]) == pytest.approx(alone.high - alone.low, rel=0.05)
    assert limits([-4, -4, 4, 4]) > 1.3 * limits([0, 0, 0, 0])


def test_mean_leaves_out_missing_values_and_counts_what_is_there() -> None:
    found = answers_mean([10.0, None, 30.0, float("nan"), 50.0], ["a", "a", "b", "c", "b"], (0, 100))
    assert (found.value, found.n, found.n_questions, found.n_questions_left_out) == (30.0, 3, 2, 1)
    low, high = bounds(found)
    assert 0 < low < 30 < high < 100


@pytest.mark.parametrize(
    ("values", "value", "method"),
    [
        ([], None, "no value"),
        ([None], None, "no value"),
        ([7.0], 7.0, "none: one value has no spread"),
        ([7.0, 7.0], 7.0, "none: all values are equal"),
    ],
)
def test_a_mean_without_spread_has_no_bounds(values: list[float | None], value: float | None, method: str) -> None:
    found = answers_mean(values, ["a", "b"][: len(values)])
    assert (found.value, found.low, found.high, found.method) == (value, None, None, method)


def test_a_question_that_is_hard_for_both_arms_cancels_in_the_contrast() -> None:
    base = {name: 3 * index for index, name in enumerate("abcdef")}
    more = {name: count + 4 for name, count in base.items()}
    found = paired_contrast(arm(more, 20), arm(base, 20), em_of_all)
    apart = [rate_interval(arm(counts, 20), em_of_all, "macro") for counts in (more, base)]
    assert found.value == pytest.approx(0.2)
    assert width(found) < 0.7 * np.hypot(width(apart[0]), width(apart[1]))
    assert found.method.startswith("MOVER and paired t over questions")


def test_a_contrast_uses_shared_questions_only_and_counts_the_others() -> None:
    left, right = arm({"a": 10, "b": 5, "only": 20}, 20), arm({"a": 0, "b": 1, "other": 20}, 20)
    found = paired_contrast(left, right, em_of_all)
    assert (found.n_questions, found.n_questions_left_out, found.n) == (2, 2, 80)
    assert found.value == pytest.approx((0.5 + 0.2) / 2)
    assert paired_contrast(arm({"a": 1}, 5), arm({"b": 1}, 5), em_of_all).value is None


def test_a_contrast_of_two_arms_without_positives_is_not_certain() -> None:
    none = arm(dict.fromkeys("abcd", 0), 10)
    found = paired_contrast(none, none, em_of_all)
    assert found.value == 0
    low, high = bounds(found)
    assert high == -low > 0.05


def test_swapping_the_arms_mirrors_the_contrast() -> None:
    few, none = arm({"a": 2, "b": 1, "c": 0}, 10), arm({"a": 0, "b": 0, "c": 0}, 10)
    (low, high), (mirrored_low, mirrored_high) = (
        bounds(paired_contrast(*arms, em_of_all)) for arms in ((few, none), (none, few))
    )
    assert (low, high) == (pytest.approx(-mirrored_high), pytest.approx(-mirrored_low))


def test_a_t_interval_follows_the_textbook_and_needs_two_questions() -> None:
    found = mean_interval([1.0, 2.0, 3.0, 4.0])
    half = 3.1824463 * np.std([1, 2, 3, 4], ddof=1) / 2
    assert (found.value, found.n) == (2.5, 4)
    assert (found.low, found.high) == (pytest.approx(2.5 - half), pytest.approx(2.5 + half))
    assert (mean_interval([1.0]).value, mean_interval([1.0]).low) == (1.0, None)
    assert mean_interval([]).value is None
    assert mean_interval([1.0, None, 3.0]).n == 2


def test_a_stratified_mean_ignores_differences_between_questions_and_weighs_them_equally() -> None:
    values = np.array([1.0, 1.2, 0.8, 1.0, 11.0, 11.2])
    strata = ["a"] * 4 + ["b"] * 2
    interval = stratified_mean_interval(values, strata)
    assert interval.value == pytest.approx((1.0 + 11.1) / 2)
    error = np.sqrt(values[:4].var(ddof=1) / 4 + values[4:].var(ddof=1) / 2) / 2
    assert interval.high is not None and interval.value is not None
    assert interval.high - interval.value == pytest.approx(stats.t.ppf(0.975, 4) * error)
    assert stratified_mean_interval(values[:5], strata[:5]).low is None
