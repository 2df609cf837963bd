"""Turns small SAEs in the layouts of sae-lens, sparsify and dictionary_learning into dictionaries, and sets them against their formulas."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from emis_interp.errors import DataError, EmisError, ModelError
from probes.sae.dictionary import as_dictionary
from probes.sae.layouts import load_dictionary

D_MODEL, N_LATENTS, K = 6, 20, 3
LAYER = 5


def weights(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    return {
        "enc": draw(N_LATENTS, D_MODEL),
        "b_enc": draw(N_LATENTS),
        "dec": draw(N_LATENTS, D_MODEL),
        "b_dec": draw(D_MODEL),
    }


def residuals() -> torch.Tensor:
    return torch.randn(50, D_MODEL, generator=torch.Generator().manual_seed(9))


def top_k(values: torch.Tensor) -> torch.Tensor:
    found = values.relu().topk(K, dim=-1)
    return torch.zeros_like(values).scatter(-1, found.indices, found.values)


def sae_lens_sae(**more: Any) -> Any:
    from sae_lens import TopKSAE, TopKSAEConfig
    from sae_lens.saes.sae import SAEMetadata

    metadata = SAEMetadata(
        **{"model_name": "tiny", "hook_name": f"blocks.{LAYER}.hook_resid_post", **more.pop("metadata", {})}
    )
    sae = TopKSAE(TopKSAEConfig(d_in=D_MODEL, d_sae=N_LATENTS, k=K, metadata=metadata, **more))
    own = weights()
    for name, value in (
        ("W_enc", own["enc"].T),
        ("b_enc", own["b_enc"]),
        ("W_dec", own["dec"]),
        ("b_dec", own["b_dec"]),
    ):
        getattr(sae, name).data.copy_(value)
    return sae


def write_sparsify(folder: Path, **more: Any) -> None:
    """As sparsify writes one: `W_dec` is [num_latents, d_in], and the input loses the decoder's bias whether it is normalised or not."""
    folder.mkdir(parents=True)
    own = weights()
    held = {"encoder.weight": own["enc"], "encoder.bias": own["b_enc"], "W_dec": own["dec"], "b_dec": own["b_dec"]}
    save_file({name: value.contiguous() for name, value in held.items()}, folder / "sae.safetensors")
    cfg = {
        "d_in": D_MODEL,
        "num_latents": N_LATENTS,
        "expansion_factor": 32,
        "k": K,
        "normalize_decoder": True,
        "signed": False,
    }
    (folder / "cfg.json").write_text(json.dumps({**cfg, **more}))


def write_learning(
    folder: Path, kind: str, *, save: Callable[[Any, Path], None] = save_file, name: str = "ae.safetensors"
) -> None:
    """As dictionary_learning writes one: two linear maps, outputs first, with k and a threshold as buffers."""
    folder.mkdir(parents=True)
    own = weights()
    held = {
        "encoder.weight": own["enc"],
        "encoder.bias": own["b_enc"],
        "decoder.weight": own["dec"].T,
        "b_dec": own["b_dec"],
        "k": torch.tensor(K, dtype=torch.int),
        "threshold": torch.tensor(0.5),
    }
    save({name: value.contiguous() for name, value in held.items()}, folder / name)
    trainer = {
        "dict_class": kind,
        "activation_dim": D_MODEL,
        "dict_size": N_LATENTS,
        "k": K,
        "layer": LAYER,
        "lm_name": "owner/Some-Model",
    }
    (folder / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": {"ctx_len": 128}}))


def formula(activation: Callable[[torch.Tensor], torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    own = weights()
    latents = activation((residuals() - own["b_dec"]) @ own["enc"].T + own["b_enc"])
    return latents, latents @ own["dec"] + own["b_dec"]


def test_a_folder_of_sae_lens_reads_as_sae_lens_reads_it(tmp_path: Path) -> None:
    sae = sae_lens_sae()
    sae.save_model(tmp_path)
    found = load_dictionary(tmp_path)
    assert (found.layer, found.model, found.hook_name) == (LAYER, "tiny", f"blocks.{LAYER}.hook_resid_post")
    assert (found.d_model, found.n_latents) == (D_MODEL, N_LATENTS)
    torch.testing.assert_close(found.encode(residuals()), sae.encode(residuals()))
    torch.testing.assert_close(found.reconstruct(residuals()), sae(residuals()))


def test_sparsify_is_read_by_its_own_formula(tmp_path: Path) -> None:
    write_sparsify(tmp_path / f"layers.{LAYER}")
    found = load_dictionary(tmp_path / f"layers.{LAYER}")
    latents, reconstruction = formula(top_k)
    torch.testing.assert_close(found.encode(residuals()), latents)
    torch.testing.assert_close(found.reconstruct(residuals()), reconstruction)
    assert found.layer == LAYER


@pytest.mark.parametrize(
    ("kind", "activation"),
    [("AutoEncoderTopK", top_k), ("BatchTopKSAE", lambda values: values.relu() * (values > 0.5))],
)
def test_dictionary_learning_is_read_by_its_own_formula(
    tmp_path: Path, kind: str, activation: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    write_learning(tmp_path / "a", kind)
    found = load_dictionary(tmp_path / "a")
    latents, reconstruction = formula(activation)
    torch.testing.assert_close(found.encode(residuals()), latents)
    torch.testing.assert_close(found.reconstruct(residuals()), reconstruction)
    assert (found.layer, found.model) == (LAYER, "Some-Model")


def test_a_published_release_is_read_from_the_hub_s_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The layout, names and reader of qwen2.5-7b-instruct-andyrdt, with a small SAE where the hub's cache would keep the large one."""
    root = tmp_path / "models--andyrdt--saes-qwen2.5-7b-instruct"
    write_learning(
        root / "snapshots" / "0" / "resid_post_layer_11" / "trainer_1", "BatchTopKSAE", save=torch.save, name="ae.pt"
    )
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("0")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    found = load_dictionary("qwen2.5-7b-instruct-andyrdt", "resid_post_layer_11_trainer_1")
    torch.testing.assert_close(
        found.reconstruct(residuals()), formula(lambda values: values.relu() * (values > 0.5))[1]
    )


def test_rows_of_the_decoder_are_what_latents_add(tmp_path: Path) -> None:
    """Also where sae-lens divides by the norms of the decoder on the way."""
    sae = sae_lens_sae(rescale_acts_by_decoder_norm=True)
    before = sae(residuals()).detach()
    found = as_dictionary(sae, source="here")
    latents = found.encode(residuals())
    torch.testing.assert_close(latents @ found.decoder + found.bias, before)
    torch.testing.assert_close(found.decode(latents), before)


def test_a_factor_of_training_is_folded_in(tmp_path: Path) -> None:
    sae = sae_lens_sae(normalize_activations="expected_average_only_in")
    sae.save_model(tmp_path)
    expected = sae(3.0 * residuals()).detach() / 3.0
    torch.testing.assert_close(load_dictionary(tmp_path, scale=3.0).reconstruct(residuals()), expected)
    with pytest.raises(ModelError, match="give it as scale="):
        load_dictionary(tmp_path)


def test_a_norm_of_the_token_s_own_is_applied_and_has_no_decoder(tmp_path: Path) -> None:
    sae = sae_lens_sae(normalize_activations="layer_norm")
    found = as_dictionary(sae, source="here")
    torch.testing.assert_close(found.reconstruct(residuals()), sae(residuals()))
    assert found.encode(residuals()).shape == (50, N_LATENTS)
    for use in (lambda: found.decoder, lambda: found.decode(torch.zeros(2, N_LATENTS))):
        with pytest.raises(ModelError, match="norm of its own"):
            use()


def test_the_input_of_a_block_is_the_output_of_the_one_before() -> None:
    sae = sae_lens_sae(metadata={"hook_name": "blocks.4.hook_resid_pre"})
    assert as_dictionary(sae, source="here").layer == 3


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"hook_name": "blocks.3.hook_mlp_out"}, "expected blocks.L.hook_resid_post"),
        ({"hook_name": None}, "names no hook"),
        ({"hook_name": "blocks.0.hook_resid_pre"}, "reads the embedding"),
        ({"hook_name_out": "blocks.5.hook_mlp_out"}, "a transcoder"),
    ],
)
def test_other_places_are_refused(metadata: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        as_dictionary(sae_lens_sae(metadata=metadata), source="here")


def test_the_layer_can_be_given_where_the_file_says_none() -> None:
    assert as_dictionary(sae_lens_sae(metadata={"hook_name": None}), layer=2, source="here").layer == 2


def test_files_that_are_no_sae_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no SAE \(looked for"):
        load_dictionary(tmp_path)
    write_learning(tmp_path / "pickled", "BatchTopKSAE", save=torch.save, name="ae.pt")
    with pytest.raises(DataError, match=r"is pickled.*python -c"):
        load_dictionary(tmp_path / "pickled")
    write_learning(tmp_path / "odd", "CrossCoder")
    with pytest.raises(DataError, match="unknown dict_class CrossCoder"):
        load_dictionary(tmp_path / "odd")
    write_sparsify(tmp_path / "layers.5.mlp")
    with pytest.raises(DataError, match=r"expected layers\.L"):
        load_dictionary(tmp_path / "layers.5.mlp")
    write_sparsify(tmp_path / "layers.6", transcode=True)
    with pytest.raises(DataError, match="a transcoder"):
        load_dictionary(tmp_path / "layers.6")
    write_sparsify(tmp_path / "layers.7", num_latents=N_LATENTS + 1)
    with pytest.raises(DataError, match="do not make an SAE"):
        load_dictionary(tmp_path / "layers.7")


@pytest.mark.parametrize(
    ("release", "sae_id", "message"),
    [
        ("qwen2.5-7b-instruct-andyrt", None, "did you mean `qwen2.5-7b-instruct-andyrdt`"),
        ("no-such-folder", None, "no such folder, and no release"),
        ("qwen2.5-7b-instruct-andyrdt", "resid_post_layer_4", "no SAE `resid_post_layer_4`; give its id"),
        ("owner/name", None, "no SAE named"),
        ("owner/name", "layer_3", "is the hub reachable"),
    ],
)
def test_releases_that_cannot_be_had_say_what_to_do(release: str, sae_id: str | None, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_dictionary(release, sae_id)


def test_a_model_that_the_sae_is_not_of_is_refused(tiny: Any) -> None:
    found = as_dictionary(sae_lens_sae(), source="here")
    with pytest.raises(ModelError, match="reads residuals of 6 dimensions, tiny: 32"):
        found.check_model(tiny)
    with pytest.raises(ModelError, match="the residuals given: 7"):
        found.encode(torch.zeros(2, 7))
    with pytest.raises(ModelError, match="19 latents given, the SAE has 20"):
        found.decode(torch.zeros(2, 19))


def test_layer_and_name_of_a_model_are_checked(tiny: Any) -> None:
    from sae_lens import TopKSAE, TopKSAEConfig
    from sae_lens.saes.sae import SAEMetadata

    def of(layer: int, model: str) -> Any:
        metadata = SAEMetadata(model_name=model, hook_name=f"blocks.{layer}.hook_resid_post")
        return as_dictionary(TopKSAE(TopKSAEConfig(d_in=tiny.d_model, d_sae=64, k=2, metadata=metadata)), source="here")

    of(1, "tiny").check_model(tiny)
    of(1, "owner/Tiny").check_model(tiny)
    of(1, "other").check_model(tiny, other_model=True)
    with pytest.raises(ModelError, match=r"reads layer 2, tiny has 2 \(0-1\)"):
        of(2, "tiny").check_model(tiny)
    with pytest.raises(EmisError, match="trained on `other`, the model is `tiny`"):
        of(1, "other").check_model(tiny)
