"""Two models that read the same texts: a latent planted in one of them is found, beside what seeds and the mean difference say."""

import numpy as np
import pytest
import torch
from planted_sae import planted_dictionary, rotation

from emis_interp.directions import Direction
from emis_interp.latent_results import LatentComparison
from probes.sae.dictionary import Dictionary
from probes.sae.latent_comparison import ComparisonSettings, compare
from probes.sae.latent_reading import ArmReading, read_arm
from probes.sae.latent_texts import LatentTexts

D = 24
DECODER = 2 * rotation(D)
N_QUESTIONS, N_ANSWERS, N_TOKENS = 16, 3, 20
QUESTIONS = tuple(f"q{i}" for i in range(N_QUESTIONS) for _ in range(N_ANSWERS))
HALVES = tuple("selection" if int(name[1:]) % 2 else "report" for name in QUESTIONS)
TEXTS = LatentTexts(tuple((name, "answer") for name in QUESTIONS), QUESTIONS, HALVES, "planted")
OWNER = np.repeat(np.arange(len(QUESTIONS)), N_TOKENS)


def activations(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    n = len(OWNER)
    return torch.rand(n, D, generator=generator) * (torch.rand(n, D, generator=generator) > 0.7)


def reading(dictionary: Dictionary, latents: torch.Tensor) -> ArmReading:
    return read_arm(dictionary, latents @ DECODER, OWNER)


@pytest.fixture(scope="module")
def found() -> LatentComparison:
    dictionary = planted_dictionary(DECODER, threshold=0.01)
    base = activations(0)
    jitter = 0.1 * activations(1)
    organism = base + jitter
    organism[:, 5] += 0.5  # rises everywhere
    organism[:, 6] = 0  # vanishes
    readings = {
        "base": reading(dictionary, base),
        "organism": reading(dictionary, organism),
        "other": reading(dictionary, base + 0.1 * activations(2)),
        "another": reading(dictionary, base + 0.1 * activations(3)),
    }
    result = compare(
        dictionary,
        readings,
        TEXTS,
        first="organism",
        second="base",
        settings=ComparisonSettings(n_top=4, n_permutations=100),
        residual_norm=10.0,
        direction=Direction(DECODER[5] / 2, 1, raw_norm=1.0, residual_norm=1.0),
        seeds=("other", "another"),
    )
    return LatentComparison.model_validate(result)


def test_planted_latents_come_first_on_either_side(found: LatentComparison) -> None:
    rising = [row for row in found.latents if row.side == "rises"]
    falling = [row for row in found.latents if row.side == "falls"]
    assert rising[0].latent == 5 and [row.latent for row in falling] == [6]
    assert rising[0].passed and falling[0].passed and found.n_falling == 1
    estimate = rising[0].report
    assert estimate.low is not None and estimate.high is not None and estimate.value is not None
    # 0.5, and 0.015 of jitter; where base does not fire, the encoder takes its threshold of 0.01 off.
    assert estimate.low < 0.515 - 0.7 * 0.01 < estimate.high
    assert rising[0].effect == pytest.approx(2 * estimate.value)
    assert falling[0].firing_rate["organism"] == 0 < falling[0].firing_rate["base"]


def test_what_swapped_models_find_is_less_than_what_was_found(found: LatentComparison) -> None:
    assert found.swapped.p < 0.05 and found.swapped.n_found == found.n_rising + found.n_falling
    assert found.n_replicated >= 2
    # 8 questions: 127 swaps, more than the 100 that were asked for.
    assert not found.swapped.all_swaps and found.swapped.p_n == 100


def test_two_seeds_differ_by_less_than_the_planted_latents(found: LatentComparison) -> None:
    assert found.seeds is not None and found.seeds.largest < 0.2
    assert found.seeds.n_found <= 2
    row = found.latents[0]
    assert row.seed_p == pytest.approx(1 / 25) and row.seed_gap is not None and abs(row.seed_gap.value or 0) < 0.05


def test_nu_says_which_latent_only_one_model_has(found: LatentComparison) -> None:
    by_latent = {row.latent: {one.target: one.nu.value for one in row.nu} for row in found.latents}
    assert by_latent[6] == pytest.approx({"error": 0, "reconstruction": 0}, abs=0.02)
    others = [value or 0.0 for j, row in by_latent.items() if j not in (5, 6) for value in row.values()]
    assert min(others) > 0.85


def test_the_mean_difference_is_explained_by_the_planted_latents_alone(found: LatentComparison) -> None:
    shares = {row.k: row for row in found.plain.explained}
    assert shares[1].span == pytest.approx(0.9, abs=0.1) and shares[5].span > 0.97
    assert shares[5].random is not None and shares[5].random.high < 0.2
    assert found.plain.half_cosine > 0.98 and found.plain.direction_cosine == pytest.approx(0.95, abs=0.05)
    # All latents together: what they do not explain is the threshold of the encoder.
    assert (found.plain.all_summed or 0) > 0.99
    row = found.latents[0]
    assert row.cosine_direction == pytest.approx(1, abs=1e-5) and row.cosine_direction_p == pytest.approx(1 / D)


def test_the_mean_difference_is_the_sum_of_changes_and_the_change_of_the_error() -> None:
    """decode is linear: an identity that a wrong weighting of texts or questions would break."""
    dictionary = planted_dictionary(DECODER, threshold=0.2)
    one, other = (reading(dictionary, activations(seed)) for seed in (4, 5))
    residual = (one.text_residuals - other.text_residuals).mean(0)
    change = torch.from_numpy((one.text_latents - other.text_latents).mean(0)).double()
    errors = [
        side.residuals - dictionary.decode(dictionary.encode(side.residuals)) - dictionary.bias for side in (one, other)
    ]
    missed = (errors[0] - errors[1]).double().mean(0)
    torch.testing.assert_close(residual, change @ DECODER.double() + missed, rtol=1e-4, atol=1e-5)


def test_the_share_left_unexplained_is_that_of_the_variance() -> None:
    dictionary = planted_dictionary(DECODER[:12], threshold=0.0)
    latents = activations(6)
    found = reading(dictionary, latents)
    x = (latents @ DECODER).double()
    lost = (latents[:, 12:] @ DECODER[12:]).double()
    expected = lost.square().sum() / (x - x.mean(0)).square().sum()
    assert found.fvu == pytest.approx(float(expected), rel=1e-3)
