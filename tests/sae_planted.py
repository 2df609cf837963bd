"""Turns known vectors into tokens that are sparse sums of them."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probes.sae.pool import TokenPool

ABOUT = {"model": "tiny", "layer": 1, "adapter": None}


def planted(
    n_tokens: int, n_vectors: int = 24, d_model: int = 16, *, n_active: int = 2, seed: int = 0
) -> tuple[Float[Tensor, "n_vectors d_model"], Float[Tensor, "n_tokens d_model"]]:
    """Unit vectors, and tokens that are a mean plus `n_active` of them with weights between 1 and 2."""
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.nn.functional.normalize(torch.randn(n_vectors, d_model, generator=generator), dim=-1)
    chosen = torch.rand(n_tokens, n_vectors, generator=generator).topk(n_active, dim=-1).indices
    weights = torch.zeros(n_tokens, n_vectors).scatter(-1, chosen, 1 + torch.rand(chosen.shape, generator=generator))
    return vectors, weights @ vectors + 0.5


def pool_of(tokens: Float[Tensor, "n_tokens d_model"], n_held: int = 200, per_text: int = 20) -> TokenPool:
    """The last `n_held` tokens held out, in texts of `per_text` tokens."""
    train, held = tokens[:-n_held], tokens[-n_held:]
    owner = np.arange(n_held) // per_text
    return TokenPool(train, held, owner, train.mean(0), float(train.norm(dim=-1).mean()), 1e9, {})
