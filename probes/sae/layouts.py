"""Turns a folder or a published release into a `Dictionary`: the layouts of sae-lens, sparsify and dictionary_learning.

sae-lens              cfg.json, sae_weights.safetensors                       this project's own, too
sparsify              cfg.json, sae.safetensors                               a folder named `layers.L`
dictionary_learning   config.json, ae.safetensors (ae.pt, made readable)      the published ones of this question have this
"""

import re
import warnings
from pathlib import Path
from typing import Any

import torch
from sae_lens import SAE
from sae_lens.loading.pretrained_sae_loaders import (
    get_sparsify_config_from_disk,
    load_safetensors_weights,
    sae_lens_disk_loader,
)
from safetensors import SafetensorError
from torch import Tensor

from emis_interp.errors import DataError, ModelError, did_you_mean, shown
from emis_interp.files.strict_json import as_object, read_json_object
from emis_interp.models.weight_files import CONVERT
from probes.sae.dictionary import Dictionary, as_dictionary
from probes.sae.finished import FINISHED, WEIGHTS, read_finished

SAE_LENS, SPARSIFY, LEARNING = "sae_weights.safetensors", "sae.safetensors", "ae.safetensors"
_WEIGHTS = ("W_enc", "W_dec", "b_enc", "b_dec", "b_gate", "b_mag", "r_mag")
Loaded = tuple[dict[str, Any], dict[str, Tensor]]
_RENAMED = {
    "encoder.weight": "W_enc",
    "decoder.weight": "W_dec",
    "encoder.bias": "b_enc",
    "bias": "b_dec",
    "decoder_bias": "b_dec",
    "gate_bias": "b_gate",
    "mag_bias": "b_mag",
}
"""Names of dictionary_learning's tensors here; its two linear maps are stored as torch does, outputs first."""


def load_dictionary(
    source: Path | str,
    sae_id: str | None = None,
    *,
    device: str = "cpu",
    layer: int | None = None,
    scale: float | None = None,
) -> Dictionary:
    """An SAE from a folder, or from a release that sae-lens knows (or a hub repository in its own layout).

    Args:
        source: a folder in one of three layouts, or the name of a release.
        sae_id: which SAE of a release, such as `resid_post_layer_11_trainer_1`.
        layer: block whose output it reads, where the file does not say or says it in words that are not known here.
        scale: see `as_dictionary`.

    Raises:
        DataError: no such folder, an unknown layout, or files that are not what their configuration says, or not those that the training
            beside them wrote.
        ModelError: as `as_dictionary`, an unknown release, or one that cannot be fetched.
    """
    folder = Path(source)
    if not folder.is_dir():
        return as_dictionary(_released(str(source), sae_id, device), layer=layer, scale=scale, source=str(source))
    if sae_id is not None:
        raise ModelError(f"{source}: a folder holds one SAE; leave {shown(sae_id)} out, or give the folder inside it")
    return as_dictionary(_of_folder(folder, device), layer=layer, scale=scale, source=str(source))


def _of_folder(folder: Path, device: str) -> Any:
    known = {SAE_LENS: sae_lens_disk_loader, SPARSIFY: sparsify_loader, LEARNING: dictionary_learning_loader}
    for weights, converter in known.items():
        if not (folder / weights).exists():
            continue
        if weights == SAE_LENS and folder.name == WEIGHTS and (folder.parent / FINISHED).exists():
            read_finished(folder.parent, SAE_LENS)
        try:
            return SAE.load_from_disk(folder, device=device, dtype="float32", converter=converter)
        except (KeyError, TypeError, ValueError, OSError, RuntimeError, SafetensorError) as error:
            reason = (str(error).strip().splitlines() or ["no reason given"])[0][:200]
            raise DataError(
                f"{folder}: its configuration and {weights} do not make an SAE ({type(error).__name__}: {reason}); "
                "save it again with the tool that trained it"
            ) from error
    pickled = folder / "ae.pt"
    if pickled.exists():
        command = CONVERT.format(found=pickled, wanted=folder / LEARNING)
        raise DataError(f"{pickled}: is pickled, which can run code when it is read; if you trust it: {command}")
    raise DataError(
        f"{folder}: no SAE (looked for {', '.join(known)}); give the folder that holds the weights and their configuration"
    )


def _released(release: str, sae_id: str | None, device: str) -> Any:
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    known = get_pretrained_saes_directory()
    if release not in known and ("/" not in release or release.startswith((".", "/"))):
        raise ModelError(f"{release}: no such folder, and no release that sae-lens knows{_near(release, known)}")
    if sae_id is None or (release in known and sae_id not in known[release].saes_map):
        ids = known[release].saes_map if release in known else []
        asked = "no SAE named" if sae_id is None else f"no SAE {shown(sae_id)}"
        raise ModelError(f"{release}: {asked}; give its id{did_you_mean(sae_id or '', ids)}")
    converter: Any = sparsify_hub_loader if release in known and known[release].conversion_func == "sparsify" else None
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="norm_scaling_factor not found")  # `as_dictionary` asks for it
            return SAE.from_pretrained(release, sae_id, device=device, dtype="float32", converter=converter)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = (str(error).strip().splitlines() or ["no reason given"])[0][:200]
        raise ModelError(
            f"{release} {sae_id}: cannot be loaded ({type(error).__name__}: {reason}); is the hub reachable (HF_HUB_OFFLINE), or was it "
            "fetched before? A folder that you fetched yourself can be given instead"
        ) from error


def _near(release: str, known: dict[str, Any]) -> str:
    near = did_you_mean(release, known)
    return near if near.startswith("; did") else f"; {len(known)} are known, such as {next(iter(known))}"


def sparsify_loader(path: Path | str, device: str, cfg_overrides: dict[str, Any] | None) -> Loaded:
    """Of EleutherAI's sparsify. sae-lens' own reader turns `W_dec` over, which is stored [n_latents, d_model] already, reads weights in
    bfloat16, and leaves the decoder's bias in the input where the decoder is normalised, which sparsify never does."""
    folder = Path(path)
    written = read_json_object(folder / "cfg.json", "d_in", "k")
    if written.get("transcode"):
        raise ValueError("a transcoder, which does not reconstruct what it reads")
    if written.get("activation", "topk") != "topk" or written.get("signed"):
        raise ValueError("an activation other than the k largest")
    if not re.fullmatch(r"layers[._]\d+", folder.name):  # `layers.5.mlp` is no residual, and would pass for one
        raise ValueError(f"its folder is called {folder.name}; expected layers.L, the output of block L")
    cfg = get_sparsify_config_from_disk(folder, device, {**(cfg_overrides or {}), "apply_b_dec_to_input": True})
    held = load_safetensors_weights(folder / SPARSIFY, device=device, dtype=cfg["dtype"])
    decoder = held["W_dec"] if "W_dec" in held else held["decoder.weight"].T
    weights = {
        "W_enc": held["encoder.weight"].T,
        "b_enc": held["encoder.bias"],
        "W_dec": decoder,
        "b_dec": held["b_dec"],
    }
    return cfg, {name: value.contiguous() for name, value in weights.items()}


def sparsify_hub_loader(
    repo_id: str, folder_name: str, device: str, *, force_download: bool, cfg_overrides: dict[str, Any] | None
) -> tuple[dict[str, Any], dict[str, Tensor], None]:
    """`sparsify_loader` of a folder of a hub repository."""
    from huggingface_hub import hf_hub_download

    files = [
        hf_hub_download(repo_id, f"{folder_name}/{name}", force_download=force_download)
        for name in ("cfg.json", SPARSIFY)
    ]
    return *sparsify_loader(Path(files[0]).parent, device, cfg_overrides), None


def dictionary_learning_loader(path: Path | str, device: str, cfg_overrides: dict[str, Any] | None) -> Loaded:
    """Of dictionary_learning: an `AutoEncoderTopK`, `BatchTopKSAE`, `MatryoshkaBatchTopKSAE`, `AutoEncoder` or `JumpReluAutoEncoder`.

    BatchTopK and its kin keep a threshold that they read with, and are JumpReLU SAEs.
    """
    folder = Path(path)
    trainer = as_object(
        read_json_object(folder / "config.json", "trainer")["trainer"], f"{folder}/config.json: trainer"
    )
    kind = trainer["dict_class"]
    architectures = {
        "AutoEncoderTopK": "topk",
        "BatchTopKSAE": "jumprelu",
        "MatryoshkaBatchTopKSAE": "jumprelu",
        "JumpReluAutoEncoder": "jumprelu",
        "AutoEncoder": "standard",
        "GatedAutoEncoder": "gated",
    }
    if kind not in architectures:
        raise ValueError(f"unknown dict_class {kind}{did_you_mean(str(kind), architectures)}")
    held = load_safetensors_weights(folder / LEARNING, device=device, dtype="float32")
    weights = {_RENAMED.get(name, name): value.T if name.endswith(".weight") else value for name, value in held.items()}
    k, threshold = weights.get("k"), weights.get("threshold")
    weights = {name: value for name, value in weights.items() if name in _WEIGHTS}
    if architectures[kind] == "jumprelu":
        if threshold is None or bool((threshold < 0).any()):
            raise ValueError("its threshold was never set (trained too shortly), so it cannot read single tokens")
        weights["threshold"] = threshold.expand(weights["b_enc"].shape).to(torch.float32)
    cfg = {
        "architecture": architectures[kind],
        "d_in": trainer["activation_dim"],
        "d_sae": trainer["dict_size"],
        "device": device,
        "apply_b_dec_to_input": kind != "JumpReluAutoEncoder",
        "metadata": {
            "model_name": trainer["lm_name"].split("/")[-1],
            "hook_name": f"blocks.{trainer['layer']}.hook_resid_post",
            "sae_lens_version": "6.0.0",  # what the keys above are of
        },
        **({"k": trainer.get("k", k if k is None else int(k))} if architectures[kind] == "topk" else {}),
        **(cfg_overrides or {}),
    }
    return cfg, {name: value.contiguous() for name, value in weights.items()}
