"""Turns the updates of an adapter into norms, spectra and ranks by module, and two adapters into their cosines."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from emis_interp.errors import DataError
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.lora_updates import LoraUpdate, norm, update_cosine
from emis_interp.passes.low_rank import weight_norm
from emis_interp.stats.permutation import null_p

N_PERMUTED = 20


def stable_rank(values: Float[Tensor, "rank"]) -> float:
    """Squared Frobenius norm over squared spectral norm (Rudelson and Vershynin 2007): 1 for one component, n for n equal ones."""
    return float(values.square().sum() / values.max().square())


def effective_rank(values: Float[Tensor, "rank"]) -> float:
    """Exponential of the entropy of the singular values, taken as shares of their sum (Roy and Vetterli 2007)."""
    shares = (values / values.sum()).double()
    kept = shares[shares > 0]
    return float((-(kept * kept.log()).sum()).exp())


def module_rows(chat_model: ChatModel, updates: Sequence[LoraUpdate]) -> list[dict[str, Any]]:
    """One row for each module: norms, also relative to the base weights there, singular values, ranks.

    Raises:
        DataError: an update that is zero, as that of an adapter that was not trained.
    """
    rows = []
    for update in updates:
        _, values, _ = update.svd()
        if not values.max() > 0:
            raise DataError(f"the update of {update.path} is zero; the adapter was not trained there")
        frobenius = float(values.norm())
        rows.append(
            {
                "layer": update.layer,
                "module": update.module,
                "rank": len(update.down),
                "norm": frobenius,
                "relative_norm": frobenius / weight_norm(chat_model, update.path),
                "stable_rank": stable_rank(values),
                "effective_rank": effective_rank(values),
                "first_share": float(values[0].square() / values.square().sum()),
                "singular_values": values.tolist(),
            }
        )
    return rows


def grouped_rows(rows: Sequence[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """Of all modules of a kind or a layer: norm of all of them together, and means of the ranks."""
    groups: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row[key], []).append(row)
    return [
        {
            "name": str(name),
            "n_modules": len(own),
            "norm": float(np.sqrt(sum(row["norm"] ** 2 for row in own))),
            "relative_norm": float(np.mean([row["relative_norm"] for row in own])),
            "stable_rank": float(np.mean([row["stable_rank"] for row in own])),
            "effective_rank": float(np.mean([row["effective_rank"] for row in own])),
        }
        for name, own in groups.items()
    ]


def similarity(first: Sequence[LoraUpdate], second: Sequence[LoraUpdate], *, seed: int = 0) -> dict[str, Any]:
    """Cosines of two adapters: of all their updates, by module kind, by layer, beside `N_PERMUTED` adapters like the second one.

    Adapters that began from one seed share their A matrices nearly (`read_cosine`), which alone does not make updates alike: B begins at
    zero. In the controls the rows of each of the second's B are permuted, so that A, the ranks and all norms stay as they are.
    """
    generator = torch.Generator().manual_seed(seed)
    null = [update_cosine(first, [_permuted(one, generator) for one in second]) for _ in range(N_PERMUTED)]
    whole = update_cosine(first, second)
    return {
        "cosine": whole,
        "permuted": {"mean": float(np.mean(null)), "low": min(null), "high": max(null)},
        **null_p(null, whole, "both").as_json(),
        "norm_ratio": norm(second) / norm(first),
        "read_cosine": _read_cosine(first, second),
        "by_module": _cosines(first, second, "module"),
        "by_layer": _cosines(first, second, "layer"),
    }


def _cosines(first: Sequence[LoraUpdate], second: Sequence[LoraUpdate], key: str) -> dict[str, float]:
    found = {}
    for name in dict.fromkeys(getattr(one, key) for one in first):
        ours, theirs = ([one for one in side if getattr(one, key) == name] for side in (first, second))
        if theirs:
            found[str(name)] = update_cosine(ours, theirs)
    return found


def _permuted(update: LoraUpdate, generator: torch.Generator) -> LoraUpdate:
    order = torch.randperm(len(update.up), generator=generator)
    return LoraUpdate(update.path, update.layer, update.module, update.down, update.up[order], update.writes)


def _read_cosine(first: Iterable[LoraUpdate], second: Sequence[LoraUpdate]) -> float | None:
    """Mean cosine of the A matrices of modules that both adapt with one rank; None without any."""
    by_path = {one.path: one for one in second}
    both = [(one, by_path[one.path]) for one in first if one.path in by_path]
    values = [
        float(torch.nn.functional.cosine_similarity(one.down.flatten(), other.down.flatten(), dim=0))
        for one, other in both
        if one.down.shape == other.down.shape
    ]
    return float(np.mean(values)) if values else None
