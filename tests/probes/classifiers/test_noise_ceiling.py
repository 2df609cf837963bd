import numpy as np
import pytest

from emis_interp.errors import DataError
from emis_interp.fitting.reliability import auroc_by_question
from emis_interp.results import Estimate
from probes.classifiers.noise_ceiling import best_auroc, chance_misaligned, noise_ceiling, spread_of_repeats


def test_the_ceiling_is_what_the_best_reader_reaches_over_redrawn_labels() -> None:
    generator = np.random.default_rng(0)
    p = np.round(generator.random(40), 1)  # ties too
    reached = []
    for _ in range(4000):
        labels = generator.random(40) < p
        reached.append(auroc_by_question(p, labels, ["q"] * 40)["q"])
        assert 0 <= reached[-1] <= 1
    assert best_auroc(p) == pytest.approx(np.mean(reached), abs=0.005)


def test_no_ranking_does_better_than_that_of_the_chances() -> None:
    generator = np.random.default_rng(1)
    p = generator.random(30)
    best = best_auroc(p)
    labels = generator.random((3000, 30)) < p
    other = p + 0.3 * generator.standard_normal(30)
    reached = np.mean([auroc_by_question(other, row, ["q"] * 30)["q"] for row in labels])
    assert best is not None and reached < best


def test_a_judge_that_is_sure_leaves_nothing_unexplained_and_one_that_guesses_everything() -> None:
    sure = noise_ceiling(np.array([0.0, 100.0] * 8), [f"q{i // 4}" for i in range(16)])
    assert sure["value"] == 1.0
    guess = noise_ceiling(np.full(16, 50.0), [f"q{i // 4}" for i in range(16)])
    assert guess["value"] == 0.5
    assert best_auroc(np.ones(5)) is None


def test_a_narrow_spread_leaves_clear_labels_alone_and_a_wide_one_does_not() -> None:
    scores = np.array([10.0, 25.0, 75.0, 95.0] * 4)
    questions = [f"q{i // 4}" for i in range(16)]
    narrow, wide = (Estimate.model_validate(noise_ceiling(scores, questions, spread=s)).value for s in (1.0, 60.0))
    assert wide is not None
    assert narrow == pytest.approx(1.0, abs=1e-6)
    assert 0.5 < wide < 0.95
    assert chance_misaligned(np.array([50.0]), 5.0)[0] == pytest.approx(0.5)


def test_scores_of_another_scale_and_a_spread_of_nothing_are_refused() -> None:
    with pytest.raises(DataError, match="0-100"):
        noise_ceiling(np.array([0.1, 120.0]), ["q", "q"])
    with pytest.raises(DataError, match="above 0"):
        noise_ceiling(np.array([0.1, 99.0]), ["q", "q"], spread=0.0)


def test_the_spread_of_repeats_is_that_of_the_draws() -> None:
    generator = np.random.default_rng(0)
    answers = [f"a{i // 3}" for i in range(900)]
    scores = np.repeat(generator.uniform(20, 80, 300), 3) + 4 * generator.standard_normal(900)
    assert spread_of_repeats(answers, scores) == pytest.approx(4, rel=0.1)
    assert spread_of_repeats(["a", "b"], np.array([1.0, 2.0])) is None
