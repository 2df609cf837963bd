"""Turns a latent's activations and two models' residuals at the same tokens into nu: how far the other model holds the latent too.

Latent scaling (Minder et al. 2025, "Robustly identifying concepts introduced during chat fine-tuning using crosscoders", also "Overcoming
sparsity artifacts in crosscoders", section on latent scaling). With f_i the latent's activation in the model in which it fires more, d its
decoder vector and y_i^m a target of model m at token i, the scale that fits the latent best to the target is least squares in closed form,

    beta^m = argmin_beta sum_i |beta f_i d - y_i^m|^2 = sum_i f_i <y_i^m, d> / (|d|^2 sum_i f_i^2),

and nu = beta^other / beta^own: near 0 for what only one model has, near 1 for what both have. Two targets, for two ways to be misled:

- error: what the dictionary leaves unexplained, h - h_hat, with the latent's own contribution put back (f^m d, of model m's own
  activation), so that the model's latent is judged on what no other latent explains. It finds latents that are in the other model but do
  not fire there (complete shrinkage).
- reconstruction: h_hat - b with b the decoder's bias: it finds latents that the other model writes with other latents (latent decoupling).

The paper has a crosscoder, where a chat-only latent has no decoder in base, so that only the chat model's error needs the latent put back.
Here one dictionary reads both models and has it back in both; for a latent that does not fire in base the two are the same. The bias is
taken out because it would stand in both models' targets alike and draw nu to 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from emis_interp.errors import ModelError
from emis_interp.stats.interval import Interval
from emis_interp.stats.jackknife import jackknife_limits


@dataclass(frozen=True)
class ScalingSide:
    """One model at the tokens: its residuals, what the dictionary makes of them (without the decoder's bias), and the latents' activations.

    `error` and `reconstruction` are in units of the residual stream.
    """

    error: Float[Tensor, "n_tokens d_model"]
    reconstruction: Float[Tensor, "n_tokens d_model"]
    latents: Float[Tensor, "n_tokens n_chosen"]


@dataclass(frozen=True)
class LatentScale:
    """Scales of one latent for one target, with nu and its interval over questions; None where it does not fire at all.

    `beta_own` near 1 says that the latent stands in its own model's target as it is decoded.
    """

    beta_own: float | None
    beta_other: float | None
    nu: Interval


def latent_scales(
    own: ScalingSide,
    other: ScalingSide,
    decoder: Float[Tensor, "n_chosen d_model"],
    *,
    question: Int[np.ndarray, "n_tokens"],
) -> dict[str, list[LatentScale]]:
    """`error` and `reconstruction` -> the scales of each chosen latent.

    Args:
        own: the model in which the chosen latents fire more, whose activations f are scaled.
        question: index of each token's question, for the interval (jackknife).

    Raises:
        ModelError: the two sides hold other numbers of tokens.
    """
    if own.error.shape != other.error.shape or len(question) != len(own.error):
        raise ModelError(
            f"latent scaling compares the same tokens: {list(own.error.shape)} against {list(other.error.shape)}, {len(question)} questions"
        )
    vectors = decoder.double()
    squares = vectors.square().sum(-1)
    f = own.latents.double()
    power = _by_question(f.square() * squares, question)
    found = {}
    for target in ("error", "reconstruction"):
        products = []
        for side in (own, other):
            along = getattr(side, target).double() @ vectors.T
            if target == "error":
                along = along + side.latents.double() * squares
            products.append(_by_question(f * along, question))
        found[target] = [_scale(power[:, j], products[0][:, j], products[1][:, j]) for j in range(len(vectors))]
    return found


def _by_question(
    values: Float[Tensor, "n_tokens n_chosen"], question: Int[np.ndarray, "n_tokens"]
) -> Float[np.ndarray, "n_questions n_chosen"]:
    rows = torch.from_numpy(np.unique(question, return_inverse=True)[1])
    sums = torch.zeros(int(rows.max()) + 1, values.shape[1], dtype=values.dtype)
    return sums.index_add_(0, rows, values.cpu()).numpy()


def _scale(
    power: Float[np.ndarray, "n_questions"],
    own: Float[np.ndarray, "n_questions"],
    other: Float[np.ndarray, "n_questions"],
) -> LatentScale:
    """From each question's sums; the power cancels in nu."""
    n, fired = len(power), int((power > 0).sum())
    whole, total = float(own.sum()), float(power.sum())
    if total <= 0:
        return LatentScale(
            None, None, Interval(None, None, None, 0, n, "none: the latent does not fire on these texts", n)
        )
    beta_own, beta_other = whole / total, float(other.sum()) / total
    if whole <= 0:
        return LatentScale(
            beta_own,
            beta_other,
            Interval(None, None, None, fired, n, "none: its own model does not hold it", n - fired),
        )
    rest = whole - own
    without = np.divide(other.sum() - other, rest, out=np.full(n, np.nan), where=rest > 1e-12 * whole)
    limits = jackknife_limits(beta_other / beta_own, without)
    low, high = limits or (None, None)
    method = f"jackknife t over {n} questions" if limits else "none: no spread over questions"
    return LatentScale(beta_own, beta_other, Interval(beta_other / beta_own, low, high, fired, n, method, n - fired))


def shared_words(error: Sequence[float | None], reconstruction: Sequence[float | None]) -> str:
    """How many of the latents look new to their model, in words: both nu at most `MOSTLY_OWN` against one at least `MOSTLY_SHARED`."""
    known = [(e, r) for e, r in zip(error, reconstruction, strict=True) if e is not None and r is not None]
    own = sum(max(pair) <= MOSTLY_OWN for pair in known)
    shared = sum(max(pair) >= MOSTLY_SHARED for pair in known)
    return (
        f"{own} of {len(known)} of one model only (both nu <= {MOSTLY_OWN}), {shared} shared (a nu >= {MOSTLY_SHARED})"
    )


MOSTLY_OWN, MOSTLY_SHARED = 0.2, 0.7
"""Bounds of the words alone; the numbers are printed beside them."""
