"""The plain mean difference: shares that planted latents explain, beside random ones."""

import numpy as np
import pytest
import torch
from planted_sae import rotation

from emis_interp.errors import DataError
from probes.sae.mean_difference import cosines_with, explained, span_share, summed_share

AXES = rotation(24)


def test_a_difference_of_two_latents_is_explained_by_them_alone() -> None:
    vector = 3 * AXES[0] + 4 * AXES[1]
    assert span_share(vector, AXES[:1]) == pytest.approx(9 / 25, abs=1e-5)
    assert span_share(vector, AXES[:2]) == pytest.approx(1, abs=1e-5)
    change = np.zeros(24)
    change[:2] = 3, 4
    assert summed_share(vector, AXES[:2], change[:2]) == pytest.approx(1, abs=1e-5)
    assert summed_share(vector, AXES[:1], np.array([-3.0])) == pytest.approx(1 - (36 + 16) / 25, abs=1e-5)
    one = explained(vector, AXES, chosen=[0, 1], change=change, firing=np.arange(24), n_draws=50)
    assert one.span == pytest.approx(1, abs=1e-5) and one.p.at_floor and one.random_span.max() < 1e-6


def test_random_latents_explain_what_chance_gives() -> None:
    generator = torch.Generator().manual_seed(0)
    decoder = torch.nn.functional.normalize(torch.randn(400, 24, generator=generator))
    vector = torch.randn(24, generator=generator)
    one = explained(vector, decoder, chosen=[0, 1, 2], change=np.zeros(400), firing=np.arange(400), n_draws=300)
    assert one.random_span.mean() == pytest.approx(3 / 24, rel=0.15)
    assert one.summed == pytest.approx(0)


def test_cosines_stand_beside_those_of_the_other_latents() -> None:
    values, p = cosines_with(AXES[5], AXES, np.arange(24))
    assert values[5] == pytest.approx(1, abs=1e-5) and p[5] == pytest.approx(1 / 24)
    assert p[4] > 1 / 24


def test_dependent_latents_are_refused() -> None:
    with pytest.raises(DataError, match="dependent"):
        span_share(AXES[0], torch.stack([AXES[1], AXES[1]]))
