"""Turns reconstructions of which the answer is known into FVU, active and dead latents."""

import numpy as np
import pytest
import torch
from sae_planted import planted, pool_of
from sklearn.decomposition import PCA

from probes.sae.agreement import agreement
from probes.sae.reconstruction import firing, fvu, missed, principal_components, squared_errors

TOKENS = planted(1200)[1]
POOL = pool_of(TOKENS)
QUESTIONS = [str(i) for i in range(10)]


def test_the_identity_misses_nothing_and_the_mean_everything() -> None:
    assert missed(POOL, QUESTIONS, lambda rows: rows)["value"] == 0.0
    row = missed(POOL, QUESTIONS, lambda rows: POOL.mean.expand_as(rows))
    assert row["value"] == pytest.approx(1.0)
    assert (row["n"], row["n_questions"]) == (200, 10)
    zero = missed(POOL, QUESTIONS, torch.zeros_like)["value"]
    deviations = (POOL.held_out - POOL.mean).square().sum()
    assert zero == pytest.approx(float(POOL.held_out.square().sum() / deviations), rel=1e-5)


def test_half_way_to_the_mean_misses_a_quarter() -> None:
    assert missed(POOL, QUESTIONS, lambda rows: (rows + POOL.mean) / 2)["value"] == pytest.approx(0.25, rel=1e-4)


def test_the_interval_is_over_questions() -> None:
    errors, deviations = np.ones(40), np.full(40, 2.0)
    errors[:4] = 5.0
    wide = fvu(errors, deviations, ["a"] * 4 + [f"q{i}" for i in range(36)])
    narrow = fvu(errors, deviations, [f"q{i}" for i in range(40)])
    assert wide.low is not None and wide.high is not None and narrow.low is not None and narrow.high is not None
    assert wide.value == narrow.value == (36 + 20) / 80
    assert wide.high - wide.low > narrow.high - narrow.low
    assert (wide.n, wide.n_questions) == (40, 37)


def test_pca_is_scikit_learn_s_and_exact_on_data_of_low_rank() -> None:
    own = principal_components(POOL.train).first(5)
    theirs = PCA(5).fit(POOL.train.numpy())
    expected = theirs.inverse_transform(theirs.transform(POOL.held_out.numpy()))
    torch.testing.assert_close(own(POOL.held_out), torch.from_numpy(expected), atol=1e-4, rtol=1e-4)
    flat = torch.randn(300, 3) @ torch.randn(3, 16) + 2.0
    assert float(squared_errors(flat, principal_components(flat).first(3)).max()) < 1e-6
    assert float(squared_errors(flat, principal_components(flat).first(2)).max()) > 1e-3
    assert float(squared_errors(flat, principal_components(flat).first(99)).max()) < 1e-6


def test_active_and_dead_latents_are_counted() -> None:
    class Ordered:
        n_latents = 4

        def encode(self, rows: torch.Tensor) -> torch.Tensor:
            return torch.stack([rows[:, 0] > 0, rows[:, 1] > 0, rows[:, 0] < -99, rows[:, 0].abs() >= 0], dim=1).float()

    tokens = torch.tensor([[1.0, -1.0], [-1.0, -1.0], [2.0, 3.0]])
    found = firing(Ordered(), tokens)  # type: ignore[arg-type]
    assert found.counts.tolist() == [2, 1, 0, 3]
    assert found.l0 == 2.0
    assert found.dead.tolist() == [False, False, True, False]


def test_a_dictionary_agrees_with_itself_turned_over_and_scaled() -> None:
    own = torch.randn(30, 16)
    row = agreement(own, 3.0 * own[torch.randperm(30)])
    assert row["mean_best_cosine"] == pytest.approx(1.0) and row["n_matched"] == 30
    opposite = agreement(own, -own)
    assert opposite["mean_best_cosine"] < 0.9


def test_random_dictionaries_agree_as_much_as_the_null_says() -> None:
    generator = torch.Generator().manual_seed(1)
    row = agreement(torch.randn(400, 64, generator=generator), torch.randn(400, 64, generator=generator))
    assert row["mean_best_cosine"] == pytest.approx(row["random_mean_best_cosine"], abs=0.01)
    assert row["n_matched"] == 0
