"""Turns a LoRA adapter into the directions that it can write to the residual stream, without running a model."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from emis_interp.errors import DataError
from emis_interp.models.adapter_files import adapter_folder, naming, read_adapter
from emis_interp.models.blocks import WRITERS
from emis_interp.models.lora_updates import parts, updates_of_weights


@dataclass(frozen=True)
class WrittenDirections:
    """What one adapted module adds: unit vectors `[n, d_model]` by falling singular value `[n]` of its update scale x B A.

    `module` is the last part of its name (`down_proj`), or its path inside the block where two of them end alike (GPT-2's `attn.c_proj`
    and `mlp.c_proj`, experts). The sign of a singular vector is arbitrary: compare |cosine|.
    """

    layer: int
    module: str
    vectors: Float[Tensor, "n d_model"]
    singular_values: Float[Tensor, "n"]


def lora_directions(adapter: Path | str, n: int = 1) -> list[WrittenDirections]:
    """Top output directions of every adapted module that writes to the residual stream, in the order of layers.

    The update of a module is W' = W + scale x B A; its left singular vectors are the directions it can add to the residual stream.
    They come from QR factors of B and A, so no `d_model` x `d_in` matrix is formed. For a rank-1 adapter the only direction is B
    itself (Turner et al. 2025; Soligo et al. 2025 read such adapters).

    Args:
        adapter: as `load_model` takes it.

    Raises:
        DataError: none of its modules writes to the residual stream.
        ModelError: no adapter there, or one with a setting that is not read here, such as DoRA, whose update depends on the base weights.
    """
    folder = adapter_folder(adapter)
    config, weights = read_adapter(folder)
    with naming(folder):
        found = directions_of_weights(config, weights, n)
    if not found:
        others = sorted({parts(update.path)[1].rpartition(".")[2] for update in updates_of_weights(config, weights)})
        raise DataError(
            f"{folder}: no adapted module writes to the residual stream (looked for {', '.join(WRITERS)}; found {others})"
        )
    return found


def directions_of_weights(
    config: Mapping[str, Any], weights: Mapping[str, Tensor], n: int = 1
) -> list[WrittenDirections]:
    """`lora_directions` of weights in memory, e.g. PEFT's state of a model in training; empty when no module writes to the residual stream.

    Args:
        config: the settings, as in `adapter_config.json`.
        weights: PEFT's names to matrices, `...lora_A.weight` and `...lora_B.weight`.

    Raises:
        ModelError: a setting that is not read here, or weights that no setting announces.
    """
    found = []
    for update in updates_of_weights(config, weights):
        if update.writes:
            left, values, _ = update.svd()
            found.append(WrittenDirections(update.layer, update.module, left.T[:n], singular_values=values[:n]))
    return sorted(found, key=lambda row: (row.layer, row.module))
