"""Latent scaling: nu of latents planted in one model, in both, half as strong, and hidden among other latents."""

import numpy as np
import pytest
import torch
from planted_sae import planted_dictionary, rotation

from emis_interp.errors import ModelError
from probes.sae.latent_scaling import ScalingSide, latent_scales, shared_words
from probes.sae.latent_sharing import scaling_side

D, N = 16, 600
AXES = rotation(D)
DECODER = AXES[:8]
QUESTION = np.arange(N) % 10


def activations(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(N, 8, generator=generator) * (torch.rand(N, 8, generator=generator) > 0.6)


def nus(own: torch.Tensor, other: torch.Tensor, threshold: float = 0.0) -> dict[str, list[float | None]]:
    """nu of latents 0-3 with residuals as given, read by the planted dictionary."""
    dictionary = planted_dictionary(DECODER, threshold=threshold)
    chosen = [0, 1, 2, 3]
    one, two = (scaling_side(dictionary, x, chosen) for x in (own, other))
    found = latent_scales(one, two, DECODER[chosen], question=QUESTION)
    return {target: [row.nu.value for row in rows] for target, rows in found.items()}


def test_a_latent_of_one_model_has_nu_0_and_a_shared_one_nu_1() -> None:
    f = activations()
    own = f @ DECODER
    absent = f.clone()
    absent[:, 0] = 0  # only the first model has latent 0
    absent[:, 2] *= 0.5  # and twice as much of latent 2
    found = nus(own, absent @ DECODER)
    for target in ("error", "reconstruction"):
        assert found[target] == pytest.approx([0, 1, 0.5, 1], abs=1e-5), target


def test_the_error_finds_a_latent_that_is_there_below_its_threshold() -> None:
    """Complete shrinkage: the other model holds it, too weakly for its encoder to fire."""
    f = activations()
    own, weak = 2 + f, f.clone()
    own[:, 0], weak[:, 0] = 4.0 * (f[:, 0] > 0), 0.9 * (f[:, 0] > 0)
    found = nus(own @ DECODER, weak @ DECODER, threshold=1.0)
    assert found["reconstruction"][0] == pytest.approx(0, abs=1e-5)
    assert found["error"][0] == pytest.approx(0.9 / 4, abs=1e-4)


def test_the_reconstruction_finds_a_latent_that_is_written_with_other_latents() -> None:
    """Latent decoupling: latents 0 and 7 write the same; one model uses one, the other the other."""
    decoder = DECODER.clone()
    decoder[7] = decoder[0]
    f = activations()[:, :1]
    zeros = torch.zeros(N, D)
    own = ScalingSide(zeros, f @ decoder[:1], f)
    other = ScalingSide(zeros, f @ decoder[7:], torch.zeros(N, 1))
    found = latent_scales(own, other, decoder[:1], question=QUESTION)
    assert found["error"][0].nu.value == pytest.approx(0, abs=1e-6)
    assert found["reconstruction"][0].nu.value == pytest.approx(1, abs=1e-6)


def test_beta_is_the_least_squares_scale() -> None:
    generator = torch.Generator().manual_seed(3)
    f = activations()[:, :1]
    y = torch.randn(N, D, generator=generator) + 0.5 * f @ DECODER[:1]
    side = ScalingSide(y - f @ DECODER[:1], y, f)
    found = latent_scales(side, side, DECODER[:1], question=QUESTION)
    design = (f @ DECODER[:1]).reshape(-1, 1).double()
    expected = torch.linalg.lstsq(design, y.reshape(-1, 1).double()).solution.item()
    assert found["error"][0].beta_own == pytest.approx(expected)
    assert found["reconstruction"][0].beta_own == pytest.approx(expected)
    assert found["error"][0].nu.value == pytest.approx(1)


def test_the_interval_over_questions_holds_the_planted_value() -> None:
    generator = torch.Generator().manual_seed(4)
    f = activations()
    both = f @ DECODER
    half = f.clone()
    half[:, 1] *= 0.4 + 0.4 * torch.rand(N, generator=generator)
    dictionary = planted_dictionary(DECODER)
    one, two = (scaling_side(dictionary, x, [1]) for x in (both, half @ DECODER))
    nu = latent_scales(one, two, DECODER[[1]], question=QUESTION)["error"][0].nu
    assert nu.low is not None and nu.high is not None and nu.low < 0.6 < nu.high and nu.high - nu.low < 0.1
    assert nu.n_questions == 10


def test_a_latent_that_never_fires_has_no_nu_and_says_why() -> None:
    f = activations()
    f[:, 0] = 0
    one = two = scaling_side(planted_dictionary(DECODER, threshold=0.01), f @ DECODER, [0])
    found = latent_scales(one, two, DECODER[:1], question=QUESTION)
    nu = found["error"][0].nu
    assert nu.value is None and "does not fire" in nu.method


def test_other_tokens_are_refused() -> None:
    one = ScalingSide(torch.zeros(3, D), torch.zeros(3, D), torch.zeros(3, 1))
    two = ScalingSide(torch.zeros(4, D), torch.zeros(4, D), torch.zeros(4, 1))
    with pytest.raises(ModelError, match="the same tokens"):
        latent_scales(one, two, DECODER[:1], question=np.zeros(3, dtype=int))


def test_words_count_latents_of_one_model() -> None:
    assert shared_words([0.0, 1.0, None, 0.1], [0.1, 0.9, 0.0, 0.8]).startswith("1 of 3 of one model only")
