"""Turns a LoRA adapter into the directions that it can write to the residual stream, without running a model."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor

from emis_interp.errors import DataError
from emis_interp.store import read_json

# Names of the linear maps whose output is added to the residual stream.
WRITERS = ("o_proj", "out_proj", "down_proj", "c_proj", "dense", "dense_4h_to_h")
_KEY = re.compile(r"\.(\d+)\.(?:\w+\.)*?(\w+)\.lora_A\.(?:\w+\.)?weight$")


@dataclass(frozen=True)
class WrittenDirections:
    """What one adapted module adds: unit vectors `[n, d_model]` by falling singular value `[n]` of its update scale x B A.

    The sign of a singular vector is arbitrary: compare |cosine|.
    """

    layer: int
    module: str
    vectors: Float[Tensor, "n d_model"]
    singular_values: Float[Tensor, "n"]


def lora_directions(adapter: Path, n: int = 1) -> list[WrittenDirections]:
    """Top output directions of every adapted module that writes to the residual stream, in the order of layers.

    The update of a module is W' = W + scale x B A; its left singular vectors are the directions it can add to the residual stream.
    They come from QR factors of B and A, so no `d_model` x `d_in` matrix is formed. For a rank-1 adapter the only direction is B
    itself (Turner et al. 2025; Soligo et al. 2025 read such adapters).

    Raises:
        DataError: no adapter in the folder, or none of its modules writes to the residual stream.
    """
    config_path, weights_path = adapter / "adapter_config.json", adapter / "adapter_model.safetensors"
    if not weights_path.exists():
        raise DataError(f"{weights_path}: no such file; give the folder of a PEFT adapter saved as safetensors")
    weights = load_file(weights_path)
    found = directions_of_weights(read_json(config_path), weights, n)
    if not found:
        others = sorted({match[2] for key in weights if (match := _KEY.search(key))})
        raise DataError(
            f"{adapter}: no adapted module writes to the residual stream (looked for {', '.join(WRITERS)}; found {others})"
        )
    return found


def directions_of_weights(
    config: Mapping[str, object], weights: Mapping[str, Tensor], n: int = 1
) -> list[WrittenDirections]:
    """`lora_directions` of weights in memory, e.g. PEFT's state of a model in training; empty when no module writes to the residual stream.

    Args:
        config: `lora_alpha` and `use_rslora`, as in `adapter_config.json`.
        weights: PEFT's names to matrices, `...lora_A.weight` and `...lora_B.weight`.
    """
    found = []
    for key, a in weights.items():
        match = _KEY.search(key)
        if match is None or match[2] not in WRITERS:
            continue
        layer, module = int(match[1]), match[2]
        b = weights[key.replace(".lora_A.", ".lora_B.")].float()
        q_b, r_b = torch.linalg.qr(b)
        _, r_a = torch.linalg.qr(a.float().T)
        left, values, _ = torch.linalg.svd(r_b @ r_a.T)
        vectors = (q_b @ left).T[:n]
        found.append(WrittenDirections(layer, module, vectors, values[:n] * _scale(config, b.shape[1])))
    return sorted(found, key=lambda row: (row.layer, row.module))


def _scale(config: Mapping[str, object], rank: int) -> float:
    alpha = float(str(config["lora_alpha"]))
    return alpha / rank**0.5 if config.get("use_rslora") else alpha / rank
