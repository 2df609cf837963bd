"""The intraclass correlation of planted questions, and its medians over public runs."""

from pathlib import Path

import numpy as np
import pytest

from evals.rates.estimands import em_of_coherent
from evals.results.intraclass import intraclass_correlation, of_runs
from evals.results.result_files import read_results


@pytest.mark.parametrize("planted", [0.05, 0.2, 0.5])
def test_the_planted_share_of_variance_between_questions_is_found(planted: float) -> None:
    rng = np.random.default_rng(0)
    strength = 1 / planted - 1
    eligible = rng.integers(10, 60, 4000)
    positive = rng.binomial(eligible, rng.beta(0.2 * strength, 0.8 * strength, 4000))
    assert intraclass_correlation(positive, eligible) == pytest.approx(planted, abs=0.02)


def test_questions_that_are_all_or_nothing_have_all_the_variance_between_them() -> None:
    assert intraclass_correlation(np.array([10, 0, 10, 0]), np.array([10] * 4)) == pytest.approx(1)


@pytest.mark.parametrize(("positive", "eligible"), [([0, 0], [5, 5]), ([5, 5], [5, 5]), ([1, 0], [1, 1])])
def test_without_variance_there_is_no_correlation(positive: list[int], eligible: list[int]) -> None:
    assert np.isnan(intraclass_correlation(np.array(positive), np.array(eligible)))


@pytest.mark.reference
def test_public_runs_have_the_medians_that_the_prior_is_chosen_by(reference_data: Path) -> None:
    found = of_runs(read_results(reference_data / "eval_runs" / "scores.parquet"), em_of_coherent)
    assert found["all"]["n_runs"] > 20
    assert 0.15 < found["all"]["median"] < 0.3
    assert 0.1 < found["low_rate"]["median"] < 0.3
