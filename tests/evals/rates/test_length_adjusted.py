"""The difference of two rates at equal length of the answers: planted effects of length, of the arm, and of both."""

import numpy as np
import pytest

from evals.rates.counts import Answers
from evals.rates.estimands import ESTIMANDS, em_of_all, em_of_coherent
from evals.rates.length_adjusted import length_adjusted
from evals.rates.uncertainty import paired_contrast

Side = tuple[Answers, np.ndarray]


def planted(
    seed: int,
    *,
    longer: float = 0.0,
    by_length: float = 0.0,
    by_arm: float = 0.0,
    n_models: int = 1,
    n_questions: int = 24,
) -> Side:
    """30 answers of each model to each question; the chance to be misaligned rises by `by_length` for 100 tokens, by `by_arm` for all."""
    rng = np.random.default_rng(seed)
    shape = (n_models, n_questions, 30)
    tokens = rng.uniform(20, 80, shape) + longer
    difficulty = np.random.default_rng(99).uniform(0.1, 0.3, n_questions)[None, :, None]
    bad = rng.random(shape) < difficulty + by_length * (tokens - 20) / 100 + by_arm
    questions = np.broadcast_to(np.array([f"q{i:02}" for i in range(n_questions)])[None, :, None], shape)
    models = np.broadcast_to(np.array([f"m{i}" for i in range(n_models)])[:, None, None], shape)
    coherent = np.where(rng.random(shape) < 0.9, 90.0, 20.0)
    answers = Answers.from_arrays(
        np.where(bad, 10.0, 90.0).ravel(),
        coherent.ravel(),
        questions.ravel(),
        models=models.ravel() if n_models > 1 else None,
    )
    return answers, tokens.ravel()


def test_a_difference_that_is_length_alone_goes_and_one_that_is_the_arms_stays() -> None:
    mere = length_adjusted(planted(0, longer=50, by_length=0.4), planted(1, by_length=0.4), em_of_coherent)
    raw = paired_contrast(planted(0, longer=50, by_length=0.4)[0], planted(1, by_length=0.4)[0], em_of_coherent)
    assert mere is not None and raw.low is not None and raw.low > 0.1  # seen without the lengths
    assert mere["low"] < 0 < mere["high"] and mere["slope"] == pytest.approx(0.4, abs=0.12)
    assert mere["tokens"] == pytest.approx(50, abs=2)
    real = length_adjusted(planted(2, longer=50, by_arm=0.3), planted(3), em_of_coherent)
    assert real is not None and real["low"] < 0.3 < real["high"] and real["slope"] == pytest.approx(0, abs=0.12)


def test_the_slope_is_that_of_a_regression_with_a_level_for_every_cell() -> None:
    sides = planted(4, longer=20, by_length=0.3, n_models=2, n_questions=5), planted(5, by_length=0.3, n_questions=5)
    found = length_adjusted(*sides, em_of_coherent)
    assert found is not None
    cells, tokens, bad = list[str](), list[float](), list[bool]()
    for name, (answers, n_tokens) in zip("ab", sides, strict=True):
        counted = em_of_coherent(answers)
        models = answers.models if answers.models is not None else np.full(len(n_tokens), "m")
        for i in np.flatnonzero(counted.eligible):
            cells.append(f"{name} {models[i]} {answers.question_ids[i]}")
            tokens.append(float(n_tokens[i]))
            bad.append(bool(counted.positive[i]))
    names = sorted(set(cells))
    design = np.column_stack([tokens, *(np.array(cells) == name for name in names)]).astype(float)
    solution = np.linalg.lstsq(design, np.array(bad, dtype=float), rcond=None)[0]
    assert found["slope"] == pytest.approx(100 * solution[0])
    level = dict(
        zip(names, solution[1:], strict=True)
    )  # of each cell at length 0; every question weighs alike, models last
    wanted = np.mean([value for name, value in level.items() if name[0] == "a"]) - np.mean(
        [value for name, value in level.items() if name[0] == "b"]
    )
    assert found["value"] == pytest.approx(wanted)


@pytest.mark.parametrize("name", ESTIMANDS)
def test_answers_of_equal_length_on_average_give_the_difference_as_it_is(name: str) -> None:
    """Lengths that are the same in every cell leave the macro-weighted difference where it was."""
    sides = planted(6, by_arm=0.2), planted(7)
    tokens = np.tile([20.0, 80.0], len(sides[0][1]) // 2)
    answers = [Answers.from_arrays(a.aligned, np.full(len(tokens), 90.0), a.question_ids) for a, _ in sides]
    found = length_adjusted((answers[0], tokens), (answers[1], tokens), ESTIMANDS[name])
    assert found is not None
    assert found["value"] == pytest.approx(paired_contrast(answers[0], answers[1], ESTIMANDS[name]).value)
    assert found["tokens"] == pytest.approx(0)


def test_seeds_widen_it_and_their_figures_are_averaged_last() -> None:
    many = length_adjusted(planted(8, n_models=3, n_questions=8), planted(9, n_questions=8), em_of_all)
    assert many is not None and "t over 3 seeds" in many["method"] and many["n"] == 8 * 30 * 4


def test_lengths_that_do_not_vary_give_nothing() -> None:
    one, other = planted(10)[0], planted(11)[0]
    flat = np.full(len(one.aligned), 80.0)
    assert length_adjusted((one, flat), (other, flat), em_of_all) is None


def test_the_interval_covers_what_was_planted() -> None:
    """200 studies of ten questions in which length alone makes the difference: about 95 % of the intervals hold 0."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        seeds = rng.integers(1 << 30, size=2)
        sides = (
            planted(int(seeds[0]), longer=30, by_length=0.3, n_questions=10),
            planted(int(seeds[1]), by_length=0.3, n_questions=10),
        )
        found = length_adjusted(*sides, em_of_all)
        assert found is not None
        held += found["low"] < 0 < found["high"]
    assert 0.90 < held / 200 < 0.99
