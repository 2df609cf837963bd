"""Dictionaries whose latents are known: orthonormal decoder vectors, each read by its own coordinate."""

from pathlib import Path

import torch
from sae_lens import StandardSAE, StandardSAEConfig
from sae_lens.saes.sae import SAEMetadata

from probes.sae.dictionary import Dictionary, as_dictionary


def planted_sae(
    decoder: torch.Tensor, *, layer: int = 1, threshold: float = 0.0, reads: str | None = None
) -> StandardSAE:
    """latent_i = relu(<x, d_i> / |d_i|^2 - threshold), which is exact for orthogonal vectors."""
    metadata = {"model_name": "tiny", "hook_name": f"blocks.{layer}.hook_resid_post"} | (
        {} if reads is None else {"reads": reads}
    )
    n, width = decoder.shape
    sae = StandardSAE(StandardSAEConfig(d_in=width, d_sae=n, metadata=SAEMetadata(**metadata)))
    sae.W_dec.data = decoder.clone(memory_format=torch.contiguous_format)
    sae.W_enc.data = (decoder / decoder.square().sum(-1, keepdim=True)).T.contiguous()
    sae.b_enc.data = torch.full((n,), -threshold)
    sae.b_dec.data = torch.zeros(width)
    return sae


def planted_dictionary(decoder: torch.Tensor, **place: float | int | str | None) -> Dictionary:
    return as_dictionary(planted_sae(decoder, **place), source="planted")  # type: ignore[arg-type]


def saved_sae(folder: Path, decoder: torch.Tensor, **place: float | int | str | None) -> Path:
    """A folder that `load_dictionary` reads."""
    planted_sae(decoder, **place).save_model(folder)  # type: ignore[arg-type]
    return folder


def rotation(n: int, seed: int = 0) -> torch.Tensor:
    """n orthonormal rows."""
    return torch.linalg.qr(torch.randn(n, n, generator=torch.Generator().manual_seed(seed))).Q.contiguous()
