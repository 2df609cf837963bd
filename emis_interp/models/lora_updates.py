"""Turns a LoRA adapter into the updates of its modules, scale x B A in factored form: spectra and products without a d x d matrix."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
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
class LoraUpdate:
    """What an adapter adds to the weights of one module: W' = W + up @ down.

    Attributes:
        path: of the module inside the base model; two updates of one path belong to the same weights.
        layer: number of its decoder block, -1 outside of the blocks.
        module: last part of its name (`down_proj`), or its path inside the block where two of them end alike.
        down: A, what the module's input is read with. up: scale x B, what is written.
        writes: whether the module's output is added to the residual stream.
    """

    path: str
    layer: int
    module: str
    down: Float[Tensor, "rank d_in"]
    up: Float[Tensor, "d_out rank"]
    writes: bool

    def svd(self) -> tuple[Float[Tensor, "d_out rank"], Float[Tensor, "rank"], Float[Tensor, "rank d_in"]]:
        """Left singular vectors (what can be written), falling singular values, right ones (what is read), of the factors alone."""
        q_up, r_up = torch.linalg.qr(self.up)
        q_down, r_down = torch.linalg.qr(self.down.T)
        left, values, right = torch.linalg.svd(r_up @ r_down.T)
        n = len(values)
        return q_up @ left[:, :n], values, right[:n] @ q_down.T

    def truncated(self, rank: int) -> "LoraUpdate":
        """The nearest update of a rank (Eckart and Young 1936)."""
        left, values, right = self.svd()
        return replace(self, up=left[:, :rank] * values[:rank], down=right[:rank])

    def scaled(self, factor: float) -> "LoraUpdate":
        """The same, times a factor."""
        return replace(self, up=factor * self.up)


def lora_updates(adapter: Path | str) -> list[LoraUpdate]:
    """The updates of every adapted module in the order of layers, float32.

    Args:
        adapter: as `load_model` takes it.

    Raises:
        ModelError: no adapter there, or one with a setting that is not read here, such as DoRA, whose update depends on the base weights.
        DataError: it adapts no linear map.
    """
    folder = adapter_folder(adapter)
    config, weights = read_adapter(folder)
    with naming(folder):
        found = updates_of_weights(config, weights)
    if not found:
        raise DataError(f"{folder}: the adapter has no matrices A and B of a linear map; nothing to take apart")
    return found


def updates_of_weights(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> list[LoraUpdate]:
    """`lora_updates` of weights in memory; `config` as in `adapter_config.json`, `weights` by PEFT's names.

    Raises:
        ModelError: a setting that is not read here, weights that no setting announces, or adapted blocks outside of one decoder.
    """
    refuse_unread(config, (*SCALES, *PLACES))
    factors, scales = _factors(weights), LoraScales.of(config)
    writers = [path for path in factors if _is_writer(path)]
    blocks = sorted({path.partition(f".{parts(path)[0]}.")[0] for path in writers})
    if len(blocks) > 1:
        raise ModelError(
            f"the adapter changes blocks in several places ({', '.join(blocks)}), of which one is the decoder; it is not read here"
        )
    names = _short_names(factors)
    found = []
    for path, (rank, alpha) in scales.of_modules(factors).items():
        a, b = (matrix.float() for matrix in factors[path])
        if a.shape[0] != rank or b.shape[1] != rank:
            raise ModelError(f"adapter_config.json says rank {rank} for {path}, the weights have {a.shape[0]}")
        update = LoraUpdate(path, parts(path)[0], names[path], a, scales.scale(rank, alpha) * b, path in writers)
        found.append(update)
    return sorted(found, key=lambda row: (row.layer, row.module))


def inner(first: LoraUpdate, second: LoraUpdate) -> float:
    """<first, second> of two updates of one module, the sum of the products of their entries, from the factors alone."""
    return float(((first.up.T @ second.up).double() * (first.down @ second.down.T).double()).sum())


def norm(updates: Iterable[LoraUpdate]) -> float:
    """Frobenius norm of all the updates together."""
    return math.sqrt(max(sum(inner(update, update) for update in updates), 0.0))


def update_cosine(first: Sequence[LoraUpdate], second: Sequence[LoraUpdate]) -> float:
    """Cosine between two adapters as vectors of all their weights' changes; modules that one does not change count as zeros there.

    Raises:
        DataError: an adapter that changes nothing.
    """
    by_path = {update.path: update for update in second}
    lengths = norm(first), norm(second)
    if min(lengths) == 0:
        raise DataError(
            "an adapter changes nothing (its updates are zero), so it has no cosine with another; train it first"
        )
    shared = sum(inner(update, by_path[update.path]) for update in first if update.path in by_path)
    return shared / (lengths[0] * lengths[1])


def combined(terms: Sequence[tuple[float, Sequence[LoraUpdate]]]) -> list[LoraUpdate]:
    """A weighted sum of adapters, exactly: the factors of one module stand beside each other, so ranks add up.

    `combined([(1, organism), (-1, control)])` is the organism minus its control.
    """
    by_path: dict[str, list[LoraUpdate]] = {}
    for factor, updates in terms:
        for update in updates:
            by_path.setdefault(update.path, []).append(update.scaled(factor))
    return [
        replace(same[0], down=torch.cat([one.down for one in same]), up=torch.cat([one.up for one in same], dim=1))
        for same in by_path.values()
    ]


def parts(path: str) -> tuple[int, str]:
    """Number of the decoder block and path inside it; -1 outside of the blocks."""
    words = path.split(".")
    number = next((i for i, word in enumerate(words) if word.isdigit()), None)
    return (-1, path) if number is None else (int(words[number]), ".".join(words[number + 1 :]))


def _factors(weights: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Path inside the base model -> A and B of every adapted linear map."""
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
    layer, inside = parts(path)
    return layer >= 0 and inside.rpartition(".")[2] in WRITERS and not any(word in path for word in OTHER_TOWERS)


def _short_names(paths: Iterable[str]) -> dict[str, str]:
    inside = {path: parts(path)[1] for path in paths}
    ends = Counter(name.rpartition(".")[2] for name in set(inside.values()))
    return {
        path: name if ends[name.rpartition(".")[2]] > 1 else name.rpartition(".")[2] for path, name in inside.items()
    }
