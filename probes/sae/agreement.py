"""Turns two SAEs of one layer into how many latents of one the other has: what of a dictionary is the data's, and what is the seed's."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from emis_interp.errors import ModelError

MATCH = 0.7
"""Cosine from which two latents count as one (Paulo and Belrose 2025, "Sparse autoencoders trained on the same data learn different
features", count at 0.7, encoder and decoder)."""


def best_cosines(
    own: Float[Tensor, "n_latents d_model"], other: Float[Tensor, "n_others d_model"]
) -> Float[Tensor, "n_latents"]:
    """The largest cosine of each row with any row of the other; a zero row has 0.

    Raises:
        ModelError: decoders of different widths.
    """
    if own.shape[-1] != other.shape[-1]:
        raise ModelError(
            f"decoders of {own.shape[-1]} and {other.shape[-1]} dimensions; they are of different models and cannot be matched"
        )
    units = torch.nn.functional.normalize(other.float(), dim=-1).T
    rows = torch.nn.functional.normalize(own.float(), dim=-1)
    return torch.cat([(part @ units).max(dim=-1).values for part in rows.split(2048)])


def agreement(
    own: Float[Tensor, "n_latents d_model"], other: Float[Tensor, "n_others d_model"], *, seed: int = 0
) -> dict[str, Any]:
    """Mean of the best cosines and the share above `MATCH`, beside the same with a random dictionary of the other's size.

    Give the rows of living latents alone: a dead one still is what it was drawn as.
    """
    random = torch.randn(other.shape, generator=torch.Generator().manual_seed(seed))
    found, by_chance = best_cosines(own, other), best_cosines(own, random)
    return {
        "n_latents": len(found),
        "n_others": len(other),
        "mean_best_cosine": float(found.mean()),
        "share_matched": float((found > MATCH).float().mean()),
        "n_matched": int((found > MATCH).sum()),
        "match": MATCH,
        "random_mean_best_cosine": float(by_chance.mean()),
        "random_share_matched": float((by_chance > MATCH).float().mean()),
    }
