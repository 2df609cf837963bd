"""SAEs of differences: what they are trained on is the planted update, and `latents` reads the folder as one of differences."""

from pathlib import Path

import pytest
import torch
from adapters_made import made_adapter, planted_rank_one

from emis_interp.errors import ConfigError, StageError
from emis_interp.files.store import read_record
from emis_interp.latent_results import DifferenceSaeReport
from emis_interp.models.lora_updates import lora_updates
from emis_interp.passes.token_store import TokenStore
from probes.sae.difference_sae import DifferenceStore, hash_of, run, say
from probes.sae.latent_reading import of_differences
from probes.sae.latent_settings import DifferenceSaeSettings
from probes.sae.layouts import load_dictionary

D = 32


def settings_of(folder: Path, adapter: Path | None, **changes: object) -> DifferenceSaeSettings:
    given: dict[str, object] = {
        "model": "tiny",
        "adapter": adapter,
        "sources": ("contrast",),
        "max_texts": 24,
        "layer": 1,
        "k": 2,
        "n_samples": 2048,
        "batch_size": 64,
        "device": "cpu",
        "dtype": "float32",
        "out": folder / "out",
    }
    return DifferenceSaeSettings(**(given | changes))  # type: ignore[arg-type]


def test_a_difference_sae_finds_the_vector_that_an_update_writes(tmp_path: Path) -> None:
    write = torch.eye(D)[5] * 2
    adapter = planted_rank_one(tmp_path / "a", read=torch.ones(64), write=write, path="layers.1.mlp.down_proj")
    result = run(settings_of(tmp_path, adapter, seeds=(0,), n_samples=40_000))
    report = read_record(tmp_path / "out" / "difference_sae.json", DifferenceSaeReport)
    dictionary = load_dictionary(tmp_path / "out" / "seed-0" / "sae")
    assert of_differences(dictionary) and dictionary.n_latents == 2 * D and dictionary.layer == 1
    store = DifferenceStore(
        TokenStore(tmp_path / "out" / "tokens-organism"), TokenStore(tmp_path / "out" / "tokens-base")
    )
    differences = torch.cat([values for _, values in store.layer(1)])
    # The last block writes nothing else: every difference lies along the planted vector.
    assert float(differences[:, 5].square().sum() / differences.square().sum()) == pytest.approx(1, abs=1e-5)
    x = differences[::7]
    error = (x - dictionary.reconstruct(x)).square().sum() / (x - x.mean(0)).square().sum()
    assert float(error) < 0.2 and report.saes[0].fvu.value is not None and report.saes[0].fvu.value < 0.2
    assert report.saes[0].pca_fvu.value == pytest.approx(0, abs=1e-4)
    fired = dictionary.encode(x).sum(0)
    strongest = torch.nn.functional.normalize(dictionary.decoder[fired.argmax()], dim=0)
    assert abs(float(strongest[5])) > 0.8
    assert report.mean_norm > 0 and report.agreement == []
    assert "minus base, layer 1" in say(result)


def test_another_adapter_is_never_read_from_the_same_folder(tmp_path: Path) -> None:
    one, other = made_adapter(tmp_path / "one"), made_adapter(tmp_path / "other", seed=1)
    assert hash_of(lora_updates(one)) != hash_of(lora_updates(other))
    first = run(settings_of(tmp_path, one))
    assert len(first["agreement"]) == 2 and run(settings_of(tmp_path, one)) == first
    with pytest.raises(StageError):
        run(settings_of(tmp_path, other))


def test_what_makes_no_difference_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give --adapter"):
        run(settings_of(tmp_path, None))
    with pytest.raises(ConfigError, match="nothing to learn"):
        run(settings_of(tmp_path, made_adapter(tmp_path / "none", std=0.0)))
