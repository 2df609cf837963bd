"""Intervals over questions and finetuning seeds: they cover a planted truth, and one seed changes nothing."""

import numpy as np
import pytest

from emis_interp.stats.families import mean_p
from emis_interp.stats.interval import Interval, mean_interval
from emis_interp.stats.seeds import mean_p_with_seeds, with_seeds


def simulated(rng: np.random.Generator, n_questions: int, n_models: tuple[int, int], sds: tuple[float, float, float]):
    """Values `[model question]` of two arms whose true difference is 0; standard deviations of questions, of models, of their cells.

    A reference of one model (base) is not drawn: the statement is about this one.
    """
    of_questions, of_models, of_cells = sds
    arms = []
    for place, n in enumerate(n_models):
        drawn = rng.normal(0, of_models, (n, 1)) + rng.normal(0, of_cells, (n, n_questions))
        if place == 0:
            drawn = drawn + rng.normal(0, of_questions, n_questions)
        arms.append(drawn if n > 1 else np.zeros((1, n_questions)))
    return arms


def interval_of(arm: np.ndarray, reference: np.ndarray) -> Interval:
    own = [{str(i): float(row.mean()) for i, row in enumerate(one)} for one in (arm, reference)]
    return with_seeds(mean_interval(arm.mean(axis=0) - reference.mean(axis=0)), *own)


@pytest.mark.parametrize("n_models", [(2, 1), (2, 2), (3, 1), (2, 5)])
@pytest.mark.parametrize("sds", [(1.0, 0.0, 0.3), (1.0, 0.3, 0.5), (1.0, 1.0, 0.3), (0.3, 1.0, 0.3)])
def test_a_difference_of_arms_covers_the_draw_of_questions_and_seeds(
    n_models: tuple[int, int], sds: tuple[float, float, float]
) -> None:
    rng, n_studies, hits, narrow = np.random.default_rng(0), 500, 0, 0
    for _ in range(n_studies):
        arm, reference = simulated(rng, 8, n_models, sds=sds)
        found = interval_of(arm, reference)
        over_questions = mean_interval(arm.mean(axis=0) - reference.mean(axis=0))
        assert found.low is not None and found.high is not None
        assert over_questions.low is not None and over_questions.high is not None
        hits += found.low <= 0 <= found.high
        narrow += over_questions.low <= 0 <= over_questions.high
    assert hits / n_studies >= 0.93
    if sds[1] == 1.0:
        assert narrow / n_studies < 0.85  # what would be claimed with the seeds taken as given


def test_arms_of_one_model_keep_their_interval_to_the_bit() -> None:
    interval = mean_interval([0.1, 0.25, 0.4])
    assert with_seeds(interval, {"a": 0.25}, {"b": 0.0}) is interval
    assert with_seeds(interval, {"a.seed-1": 0.25, "a.seed-2": None}) is interval


def test_the_half_width_is_that_of_questions_and_of_seeds_added_in_squares() -> None:
    interval = Interval(0.5, 0.2, 0.9, 3, 3, "over questions")
    found = with_seeds(interval, {"a": 0.4, "b": 0.6}, {"c": 0.0})
    seeds = 12.7062 * np.std([0.4, 0.6], ddof=1) / np.sqrt(2)
    assert found.low == pytest.approx(0.5 - np.hypot(0.3, seeds), abs=1e-4)
    assert found.high == pytest.approx(0.5 + np.hypot(0.4, seeds), abs=1e-4)
    assert found.value == 0.5
    assert found.method == "over questions, and t over 2 seeds, added in squares"


def test_without_bounds_over_questions_there_are_none_over_seeds() -> None:
    interval = mean_interval([0.3])
    assert with_seeds(interval, {"a": 0.2, "b": 0.4}).low is None


def test_without_several_seeds_p_is_students_and_with_them_it_goes_with_the_interval() -> None:
    rng = np.random.default_rng(0)
    for n_seeds, effect in ((1, 0.3), (2, 0.3), (3, 0.0), (5, 0.6)):
        values = rng.normal(effect, 0.5, 15)
        seeds = {str(i): float(value) for i, value in enumerate(rng.normal(values.mean(), 0.1, n_seeds))}
        found, p = with_seeds(mean_interval(values), seeds), mean_p_with_seeds(values, seeds)
        assert p is not None and found.low is not None and found.high is not None
        assert (p < 0.05) == (found.low > 0 or found.high < 0)
        alone = mean_p(values)
        assert alone is not None and (p == pytest.approx(alone, rel=1e-3) if n_seeds == 1 else p > alone)
    assert mean_p_with_seeds([0.1]) is None and mean_p_with_seeds([0.2, 0.2]) is None
    assert mean_p_with_seeds([0.1, -0.1]) == pytest.approx(1.0)
