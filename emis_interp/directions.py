"""Turns activations of aligned and misaligned texts into directions, one per layer, and keeps a direction as a file.

A direction is a unit vector that points from aligned to misaligned, with the norm of the raw difference beside it.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from emis_interp.errors import DataError, ModelError
from emis_interp.store import load_tensors, save_tensors


@dataclass(frozen=True)
class Direction:
    """A direction in the residual stream.

    Attributes:
        vector: unit vector `[d_model]`, float32, from aligned to misaligned.
        layer: decoder block whose output (`resid_post`) it was found in.
        raw_norm: norm of the raw difference of means, residual-stream units.
        residual_norm: mean norm of single tokens' residuals at that layer; a steering coefficient is in multiples of it.
        position: pooling of the texts that it was fitted on.
        card: where it comes from and how far it can be trusted (model, texts, reliability, controls).
    """

    vector: Float[Tensor, "d_model"]
    layer: int
    raw_norm: float
    residual_norm: float
    position: str = "response_mean"
    card: dict[str, Any] = field(default_factory=dict)

    def project(self, residuals: Float[Tensor, "... d_model"]) -> Float[Tensor, "..."]:
        """Coordinates along the direction, in residual-stream units; larger is more misaligned."""
        if residuals.shape[-1] != self.vector.shape[0]:
            raise ModelError(
                f"direction has d_model {self.vector.shape[0]}, activations have {residuals.shape[-1]}; they are of different models"
            )
        return residuals.float() @ self.vector

    def save(self, path: Path) -> None:
        """Write `path`.safetensors and its card `path`.json."""
        card = {
            **self.card,
            "layer": self.layer,
            "raw_norm": self.raw_norm,
            "residual_norm": self.residual_norm,
            "position": self.position,
            "hook_point": "resid_post",
            "sign": "from aligned to misaligned",
        }
        save_tensors(_tensor_path(path), {"vector": self.vector}, card)

    @classmethod
    def load(cls, path: Path) -> "Direction":
        """Read what `save` wrote.

        Raises:
            DataError: a file is missing, damaged, or is no direction.
        """
        tensors, card = load_tensors(_tensor_path(path))
        needed = {"layer", "raw_norm", "residual_norm", "position"}
        if "vector" not in tensors or not needed <= card.keys():
            raise DataError(f"{path}: not a direction (expected a tensor `vector` and {sorted(needed)} on its card)")
        rest = {
            key: value for key, value in card.items() if key not in {*needed, "hook_point", "sign", "tensors", "sha256"}
        }
        return cls(tensors["vector"], card["layer"], card["raw_norm"], card["residual_norm"], card["position"], rest)


def _tensor_path(path: Path) -> Path:
    """`path`.safetensors; a dot elsewhere in the name (`qwen2.5`) is kept."""
    return path if path.suffix == ".safetensors" else path.with_name(f"{path.name}.safetensors")


def mean_difference(
    x: Float[Tensor, "n_texts *rest"], misaligned: Bool[np.ndarray, "n_texts"]
) -> Float[Tensor, "*rest"]:
    """Mean of the misaligned texts minus mean of the aligned ones."""
    chosen = torch.from_numpy(np.asarray(misaligned, dtype=bool))
    if chosen.all() or not chosen.any():
        raise DataError("a direction needs both misaligned and aligned texts; only one class was given")
    return x[chosen].mean(0) - x[~chosen].mean(0)


def unit(vectors: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
    """Each vector divided by its norm; a zero vector is refused."""
    norms = vectors.norm(dim=-1, keepdim=True)
    if not (norms > 0).all():
        raise DataError(
            "a difference of means is zero or not a number; do both classes hold the same texts, or were they read at "
            "`last_prompt`, before the answers differ?"
        )
    return vectors / norms


def cosine(a: Float[Tensor, "... d_model"], b: Float[Tensor, "... d_model"]) -> Float[Tensor, "..."]:
    return torch.nn.functional.cosine_similarity(a.float(), b.float(), dim=-1)


def top_dimensions_share(vector: Float[Tensor, "d_model"], n_top: int = 5) -> float:
    """Share of the squared norm in the `n_top` largest coordinates; near 1 means a few massive dimensions are all there is."""
    squares = vector.float().square()
    return float(squares.topk(n_top).values.sum() / squares.sum())
