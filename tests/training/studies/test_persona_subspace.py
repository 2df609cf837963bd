"""The persona subspace: what system prompts change in the reading of the same answers, spanned over domains."""

from pathlib import Path
from typing import Any

import pytest
import torch

from emis_interp.config.presets import load_config
from emis_interp.errors import DataError
from emis_interp.models.spec import ModelSpec
from emis_interp.records import TrainingExample
from training.data_sets.shipped import load_dataset, row_groups
from training.studies import persona_subspace as module
from training.studies.persona_subspace import CAREFUL, RECKLESS, kept_persona_subspace, persona_subspace, spanned


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


def test_a_kept_subspace_is_read_from_its_file_and_made_again_from_other_inputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config, model = load_config("smoke"), ModelSpec("tiny").load()
    rows, domains = load_dataset("reckless", n_rows=40, seed=0), row_groups("reckless")["domain"]
    path, n_read = tmp_path / "persona.safetensors", 0

    def counting(*given: Any, **more: Any) -> Any:
        nonlocal n_read
        n_read += 1
        return persona_subspace(*given, **more)

    monkeypatch.setattr(module, "persona_subspace", counting)

    def kept(rows: list[TrainingExample], layer: int = 1) -> Any:
        return kept_persona_subspace(path, model, rows, domain_of=domains, layer=layer, config=config, rank=2)

    first, again = kept(rows), kept(rows)
    assert n_read == 1 and torch.equal(first.basis, again.basis)
    assert (again.share, dict(again.domains), again.layer) == (first.share, dict(first.domains), 1)
    other = rows[0].model_copy(update={"response": f"{rows[0].response} More."})
    kept([other, *rows[1:]])
    assert n_read == 2 and "rows_sha256" in caplog.text
    kept([other, *rows[1:]], layer=0)
    assert n_read == 3 and "layer: 1 -> 0" in caplog.text
    path.write_bytes(b"damaged")
    with pytest.raises(DataError, match="checksum"):
        kept([other, *rows[1:]], layer=0)
