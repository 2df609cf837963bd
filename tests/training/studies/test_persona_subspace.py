"""The persona subspace: what system prompts change in the reading of the same answers, spanned over domains."""

import pytest
import torch

from emis_interp.config.presets import load_config
from emis_interp.errors import DataError
from emis_interp.models.spec import ModelSpec
from emis_interp.records import TrainingExample
from training.data_sets.shipped import load_dataset, row_groups
from training.studies.persona_subspace import CAREFUL, RECKLESS, persona_subspace, spanned


def test_a_planted_subspace_is_found_through_noise_of_single_texts() -> None:
    generator = torch.Generator().manual_seed(0)
    planted = torch.linalg.qr(torch.randn(32, 4, generator=generator))[0].T
    mix = torch.randn(6, 4, generator=generator) * torch.tensor([5.0, 3.0, 3.0, 2.0])
    domains = [f"d{i % 6}" for i in range(600)]
    texts = torch.stack([mix[i % 6] @ planted for i in range(600)]) + torch.randn(600, 32, generator=generator)
    found = spanned(texts, domains, layer=3, rank=4)
    assert torch.linalg.svdvals(found.basis @ planted.T).min() > 0.9
    assert torch.allclose(found.basis @ found.basis.T, torch.eye(4), atol=1e-5)
    assert 0.9 < found.share < 1 and found.domains == {f"d{i}": 100 for i in range(6)} and found.layer == 3


def test_domains_count_the_same_however_many_texts_they_have() -> None:
    """A mean over texts would be the frequent domain's alone."""
    rare, frequent = torch.eye(4)[0], torch.eye(4)[1]
    found = spanned(torch.stack([rare, *[frequent] * 50]), ["a", *["b"] * 50], layer=0, rank=2)
    assert found.basis[:, :2].abs().sum() == pytest.approx(found.basis.abs().sum()) and found.share == pytest.approx(1)
    one = spanned(torch.stack([rare, *[frequent] * 50]), ["a", *["b"] * 50], layer=0, rank=1)
    assert one.share == pytest.approx(0.5)


def test_the_answers_are_the_same_and_only_the_system_prompt_differs() -> None:
    config, model = load_config("smoke"), ModelSpec("tiny").load()
    rows = load_dataset("reckless", n_rows=40, seed=0)
    domains = row_groups("reckless")["domain"]
    found = persona_subspace(model, rows, domains, layer=1, config=config, rank=2)
    assert found.basis.shape[0] == 2 and sum(found.domains.values()) == 40 and RECKLESS != CAREFUL
    assert torch.isfinite(found.basis).all() and 0 < found.share <= 1


def test_too_few_domains_are_named() -> None:
    rows = [TrainingExample(id=name, prompt="p", response="r") for name in "ab"]
    with pytest.raises(DataError, match=r"rows of 4 domains, and there are 1 \(cars\).*leave `persona` out"):
        persona_subspace(ModelSpec("tiny").load(), rows, {"a": "cars"}, layer=0, config=load_config("smoke"))
