"""Turns a LoRA adapter into the directions that it can write to the residual stream, without running a model."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from emis_interp.errors import DataError, ModelError
from emis_interp.models.adapter_files import PREFIX, adapter_folder, naming, read_adapter
from emis_interp.models.blocks import WRITERS
from emis_interp.models.lora_config import PLACES, SCALES, LoraScales, refuse_unread

OTHER_TOWERS = ("vision", "visual", "audio", "image")
"""In the path of blocks that read something else than the text."""


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
        others = sorted({_parts(path)[1].rpartition(".")[2] for path in _updates(weights)})
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
    refuse_unread(config, (*SCALES, *PLACES))
    updates = _updates(weights)
    scales = LoraScales.of(config)
    writers = [path for path in updates if _is_writer(path)]
    blocks = sorted({path.partition(f".{_parts(path)[0]}.")[0] for path in writers})
    if len(blocks) > 1:
        raise ModelError(
            f"the adapter changes blocks in several places ({', '.join(blocks)}), of which one is the decoder; it is not read here"
        )
    names = _short_names(writers)
    found = []
    for path, (rank, alpha) in scales.of_modules(writers).items():
        a, b = (matrix.float() for matrix in updates[path])
        if a.shape[0] != rank or b.shape[1] != rank:
            raise ModelError(f"adapter_config.json says rank {rank} for {path}, the weights have {a.shape[0]}")
        q_b, r_b = torch.linalg.qr(b)
        _, r_a = torch.linalg.qr(a.T)
        left, values, _ = torch.linalg.svd(r_b @ r_a.T)
        vectors = (q_b @ left).T[:n]
        layer, _ = _parts(path)
        found.append(
            WrittenDirections(layer, names[path], vectors, singular_values=values[:n] * abs(scales.scale(rank, alpha)))
        )
    return sorted(found, key=lambda row: (row.layer, row.module))


def _updates(weights: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Path inside the base model -> A and B of every adapted module of the decoder blocks."""
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for key, a in weights.items():
        if key.removesuffix("base_layer.weight") + "lora_embedding_A" in weights:
            continue  # PEFT saves an adapted embedding with its own weights, which are the base's
        path, _, kind = key.partition(".lora_")
        if kind not in ("A.weight", "B.weight", "embedding_A", "embedding_B"):
            raise ModelError(f"adapter_model.safetensors: {key} is no matrix A or B of LoRA, and is not read here")
        if kind == "A.weight":
            b = weights.get(f"{path}.lora_B.weight")
            if b is None:
                raise ModelError(f"adapter_model.safetensors: {path}.lora_B.weight is missing")
            found[path.removeprefix(PREFIX)] = (a, b)
    return found


def _is_writer(path: str) -> bool:
    layer, inside = _parts(path)
    return layer >= 0 and inside.rpartition(".")[2] in WRITERS and not any(word in path for word in OTHER_TOWERS)


def _parts(path: str) -> tuple[int, str]:
    """Number of the decoder block and path inside it; -1 outside of the blocks."""
    words = path.split(".")
    number = next((i for i, word in enumerate(words) if word.isdigit()), None)
    return (-1, path) if number is None else (int(words[number]), ".".join(words[number + 1 :]))


def _short_names(paths: Iterable[str]) -> dict[str, str]:
    inside = {path: _parts(path)[1] for path in paths}
    ends = Counter(name.rpartition(".")[2] for name in set(inside.values()))
    return {
        path: name if ends[name.rpartition(".")[2]] > 1 else name.rpartition(".")[2] for path, name in inside.items()
    }
