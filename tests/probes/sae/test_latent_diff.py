"""Changed latents: planted ones are found in both directions, and where nothing changed the procedure finds no more than it promises."""

import numpy as np
import pytest
from scipy import stats

from emis_interp.errors import DataError
from probes.sae.latent_diff import latent_changes, question_means, strongest_latents, swap_null


def noise(n_questions: int, n_latents: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n_questions, n_latents))


def test_planted_latents_are_found_rising_and_falling() -> None:
    differences = noise(12, 200)
    differences[:, 3] += 4
    differences[:, 7] -= 4
    differences[:, 9] = 0.0
    changes = latent_changes(differences)
    found = np.flatnonzero(changes.found(0.05))
    assert {3, 7} <= set(found) and len(found) <= 5
    assert not changes.tested[9] and np.isnan(changes.q[9]) and changes.mean[9] == 0
    assert changes.low[3] < changes.mean[3] < changes.high[3] and changes.low[3] > 0
    rising, falling = strongest_latents(changes, np.ones(200), 3)
    assert rising[0] == 3 and falling[0] == 7 and 9 not in rising + falling


def test_the_largest_residual_effect_comes_first_among_those_that_pass() -> None:
    differences = 0.1 * noise(10, 4)
    differences[:, 0] += 1
    differences[:, 1] += 2
    rising, _ = strongest_latents(latent_changes(differences), np.array([10.0, 1.0, 1.0, 1.0]), 2)
    assert rising == [0, 1]


def test_q_is_never_smaller_than_p_and_agrees_with_a_second_route() -> None:
    differences = noise(9, 50)
    changes = latent_changes(differences)
    by_hand = np.array([stats.ttest_rel(row, np.zeros(9)).pvalue for row in differences.T])
    np.testing.assert_allclose(changes.p, by_hand)
    order = np.argsort(by_hand)
    steps = by_hand[order] * 50 / np.arange(1, 51)
    expected = np.minimum.accumulate(steps[::-1])[::-1]
    np.testing.assert_allclose(changes.q[order], np.minimum(expected, 1))


def test_swaps_find_nothing_where_there_is_nothing_and_little_where_there_is_something() -> None:
    null = swap_null(noise(14, 100), 100, seed=1)
    assert (null.n_found > 0).mean() < 0.15 and not null.all_swaps
    assert 0.3 < null.p.mean() < 0.7
    planted = noise(14, 100)
    planted[:, :10] += 4
    found = latent_changes(planted).found().sum()
    assert found >= 9 and np.percentile(swap_null(planted, 100).n_found, 95) < found
    assert (swap_null(planted, 100).p[:10] <= 0.05).all()


def test_swaps_of_few_questions_are_all_taken_once_and_agree_with_a_loop() -> None:
    differences = noise(5, 8)
    null = swap_null(differences, 1000)
    assert null.all_swaps and len(null.largest) == 2**4 - 1
    own = np.abs(latent_changes(differences).t)
    reached = np.zeros(8)
    for bits in range(1, 2**4):
        signs = np.array([1, *(-1 if bits >> i & 1 else 1 for i in range(4))])
        reached += np.abs(latent_changes(differences * signs[:, None]).t) >= own - 1e-9
    np.testing.assert_allclose(null.p, (1 + reached) / 16)


def test_a_latent_that_no_question_varies_in_is_not_tested() -> None:
    changes = latent_changes(np.zeros((4, 3)))
    assert not changes.found().any() and strongest_latents(changes, np.ones(3), 2) == ([], [])
    assert swap_null(np.zeros((4, 3))).n_found.tolist() == [0.0] * 7


def test_two_questions_are_refused_with_advice() -> None:
    with pytest.raises(DataError, match="give texts that answer more questions"):
        latent_changes(noise(2, 3))


def test_question_means_weight_texts_within_a_question_alike() -> None:
    values = np.array([[1.0], [3.0], [10.0]])
    assert question_means(values, ["a", "a", "b"], ["b", "a"]).tolist() == [[10.0], [2.0]]
