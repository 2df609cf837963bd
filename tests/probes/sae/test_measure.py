"""Turns an SAE that is there into the figures that its training gave it."""

from pathlib import Path

import pytest
import torch
from sae_planted import pool_of

from emis_interp.errors import ConfigError, ModelError
from probes.sae import measure, train
from probes.sae.settings import MeasureSaeSettings, SaeSettings
from probes.sae.training import TrainingPlan, trained

TEXTS = {"model": "tiny", "sources": ("harmless",), "held_out": 0.2, "n_spliced": 4}


def test_a_loaded_sae_has_the_figures_that_its_training_gave(tmp_path: Path) -> None:
    first = train.run(
        SaeSettings(
            out=tmp_path / "made",
            expansion=2,
            k=3,
            n_samples=1280,
            batch_size=128,
            seeds=(0,),
            no_control=True,
            **TEXTS,
        )
    )
    folder = str(tmp_path / "made" / "seed-0" / "sae")
    again = measure.run(MeasureSaeSettings(out=tmp_path / "measured", saes=(folder,), **TEXTS))
    [one], [other] = first["saes"], again["saes"]
    assert {key: one[key] for key in ("fvu", "l0", "pca_fvu", "n_dead", "n_rare", "spliced")} == {
        key: other[key] for key in ("fvu", "l0", "pca_fvu", "n_dead", "n_rare", "spliced")
    }
    assert (again["layer"], other["architecture"], other["trained_on"]) == (1, "topk", "tiny")
    assert "PCA with 3 components" in measure.say(again) and folder in measure.say(again)
    assert first["agreement"] == [] and first["control"] is None


def made(folder: Path, *, d_model: int = 32, layer: int = 1, model: str = "tiny") -> str:
    pool = pool_of(torch.randn(300, d_model, generator=torch.Generator().manual_seed(0)))
    plan = TrainingPlan(n_latents=40, k=2, n_samples=256, batch_size=64)
    trained(folder, pool, plan, about={"model": model, "layer": layer, "adapter": None})
    return str(folder / "sae")


def test_saes_of_another_model_or_of_several_layers_are_refused(tmp_path: Path) -> None:
    one, other = made(tmp_path / "one"), made(tmp_path / "other", layer=0)
    with pytest.raises(ConfigError, match="reads layer 0; give each SAE once, and those of one layer"):
        measure.run(MeasureSaeSettings(out=tmp_path / "out", saes=(one, other), **TEXTS))
    with pytest.raises(ModelError, match="reads residuals of 16 dimensions, tiny: 32"):
        measure.run(MeasureSaeSettings(out=tmp_path / "out", saes=(made(tmp_path / "w", d_model=16),), **TEXTS))
    with pytest.raises(ModelError, match="reads layer 7, tiny has 2"):
        measure.run(MeasureSaeSettings(out=tmp_path / "out", saes=(made(tmp_path / "l", layer=7),), **TEXTS))
    named = made(tmp_path / "n", model="another")
    with pytest.raises(ModelError, match="--other-model"):
        measure.run(MeasureSaeSettings(out=tmp_path / "out", saes=(named,), **TEXTS))
    with pytest.raises(ModelError, match="no such folder, and no release"):
        measure.run(MeasureSaeSettings(out=tmp_path / "out", saes=("nowhere:layer_3",), **TEXTS))
