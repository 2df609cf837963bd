"""The forecast from the prompt: a planted curve is found again, noise gains nothing, no question is forecast by itself."""

import numpy as np
import pytest
from scipy.special import expit

from emis_interp.errors import DataError
from probes.monitoring.forecast import METHODS, calibrator, prompt_forecast, reliability_bins


def planted(slope: float, n_questions: int = 40, n: int = 60) -> tuple[np.ndarray, np.ndarray, list[str]]:
    generator = np.random.default_rng(0)
    scores = np.repeat(generator.normal(size=n_questions), n)
    labels = generator.random(len(scores)) < expit(slope * scores - 0.5)
    return scores, labels, [f"q{i // n}" for i in range(len(scores))]


@pytest.mark.parametrize("method", METHODS)
def test_a_planted_curve_is_calibrated_on_questions_that_had_no_part(method: str) -> None:
    scores, labels, questions = planted(1.5)
    found = prompt_forecast(scores, labels, questions, prompts=questions, method=method)  # pyright: ignore[reportArgumentType]
    assert found.gain_low is not None and found.gain_low > 0
    assert found.auroc is not None and found.auroc > 0.7
    assert found.base_rate == pytest.approx(labels.mean())
    assert sum(one.n for one in found.bins) == len(labels)
    assert all(abs(one.forecast - one.observed) < 0.12 for one in found.bins)


def test_platt_finds_the_logistic_curve_that_was_planted() -> None:
    scores, labels, _ = planted(1.5)
    at = np.array([-1.0, 0.0, 1.0])
    assert calibrator(scores, labels, "platt")(at) == pytest.approx(expit(1.5 * at - 0.5), abs=0.05)


def test_a_score_that_says_nothing_gains_nothing() -> None:
    _, labels, questions = planted(0.0)
    noise = np.repeat(np.random.default_rng(9).normal(size=40), 60)
    found = prompt_forecast(noise, labels, questions, prompts=questions)
    assert found.gain == pytest.approx(0, abs=0.005)
    assert found.gain_low is not None and found.gain_low < 0


def test_a_question_is_forecast_without_its_own_answers() -> None:
    questions = ["a"] * 20 + ["b"] * 20 + ["c"] * 20
    labels = np.array([True] * 10 + [False] * 10 + [True] * 10 + [False] * 10 + [True] * 20)
    scores = np.repeat([0.0, 0.0, 50.0], 20)
    found = prompt_forecast(scores, labels, questions, prompts=questions)
    # Two questions with one score and one half misaligned: whatever the third's score, its forecast knows one half alone.
    of_c = [one for one in found.bins if one.observed == 1.0]
    assert [round(one.forecast, 3) for one in of_c] == [0.5]


def test_too_few_questions_and_one_class_are_refused() -> None:
    with pytest.raises(DataError, match="answers to 2 questions"):
        prompt_forecast(np.zeros(4), np.array([True, False] * 2), ["a", "a", "b", "b"], prompts=["a"] * 4)
    with pytest.raises(DataError, match="one class alone"):
        prompt_forecast(np.zeros(3), np.array([True, False, False]), ["a", "b", "c"], prompts=["a"] * 3)


def test_equal_forecasts_share_a_bin() -> None:
    bins = reliability_bins(np.array([0.1] * 50 + [0.9] * 50), np.array([False] * 50 + [True] * 50))
    assert [(one.n, one.forecast, one.observed) for one in bins] == [
        (50, pytest.approx(0.1), 0.0),
        (50, pytest.approx(0.9), 1.0),
    ]
