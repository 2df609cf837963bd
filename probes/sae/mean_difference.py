"""Turns two models' mean residuals by question into their plain mean-difference direction, and how much of it latents explain.

An encoder and its labels have to add something to the difference of two means, which costs nothing and needs no dictionary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from emis_interp.directions import cosine
from emis_interp.passes.edits import orthonormal
from emis_interp.stats.permutation import NullP, null_p


@dataclass(frozen=True)
class Explained:
    """How much of the mean difference the first k latents explain.

    Attributes:
        span: share of its squared norm in the span of their decoder vectors.
        random_span: the same of k random latents that fire on the texts, by draw; `p` of the chosen ones among them.
        summed: 1 - |D - sum_j change_j d_j|^2 / |D|^2, with each latent's own change as its coefficient; it may be negative.
    """

    k: int
    span: float
    random_span: Float[np.ndarray, "n_draws"]
    p: NullP
    summed: float


def span_share(vector: Float[Tensor, "d_model"], decoder: Float[Tensor, "k d_model"]) -> float:
    """Share of a vector's squared norm in the span of k vectors.

    Raises:
        DataError: the vectors depend on each other.
    """
    inside = orthonormal(decoder) @ vector.double()
    return float(inside.square().sum() / vector.double().square().sum())


def summed_share(
    vector: Float[Tensor, "d_model"], decoder: Float[Tensor, "k d_model"], change: Float[np.ndarray, "k"]
) -> float:
    """1 - |vector - sum_j change_j d_j|^2 / |vector|^2."""
    rest = vector.double() - torch.from_numpy(np.asarray(change, dtype=float)) @ decoder.double()
    return float(1 - rest.square().sum() / vector.double().square().sum())


def explained(
    vector: Float[Tensor, "d_model"],
    decoder: Float[Tensor, "n_latents d_model"],
    *,
    chosen: Sequence[int],
    change: Float[np.ndarray, "n_latents"],
    firing: Int[np.ndarray, "n_firing"],
    n_draws: int = 100,
    seed: int = 0,
) -> Explained:
    """What the chosen latents explain of the mean difference, beside as many random ones of those that fire.

    Args:
        vector: mean difference of questions that had no part in choosing.
        change: of every latent, on the same questions as `vector`.
        firing: latents that the random ones are drawn from.
    """
    generator = np.random.default_rng(seed)
    pool = np.setdiff1d(firing, list(chosen))
    rows = [
        generator.choice(pool, size=len(chosen), replace=False)
        for _ in range(n_draws if len(pool) >= len(chosen) else 0)
    ]
    null = np.array([span_share(vector, decoder[row]) for row in rows])
    span = span_share(vector, decoder[list(chosen)])
    summed = summed_share(vector, decoder[list(chosen)], change[list(chosen)])
    return Explained(len(chosen), span, null, null_p(null, span), summed)


def cosines_with(
    vector: Float[Tensor, "d_model"], decoder: Float[Tensor, "n_latents d_model"], firing: Int[np.ndarray, "n_firing"]
) -> tuple[Float[np.ndarray, "n_latents"], Float[np.ndarray, "n_latents"]]:
    """Cosine of every latent's decoder vector with a vector, and p of its size among the latents that fire."""
    values = cosine(decoder, vector).numpy()
    sizes = np.sort(np.abs(values[firing]))
    # Each firing latent is among those it is compared with, so that no further 1 is added.
    reached = len(sizes) - np.searchsorted(sizes, np.abs(values) - 1e-12)
    return values, np.clip(reached, 1, None) / max(1, len(sizes))
