"""Turns tokens and something that reconstructs them into what is missed, how many latents it took, and which never fire."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from emis_interp.stats.interval import Interval
from emis_interp.stats.jackknife import jackknife_interval
from probes.sae.dictionary import Dictionary
from probes.sae.pool import TokenPool

Reconstruct = Callable[[Float[Tensor, "n_tokens d_model"]], Float[Tensor, "n_tokens d_model"]]
ROWS = 4096
RARE = 10
"""A latent that is active in fewer tokens is counted as rare."""


@dataclass(frozen=True, repr=False)
class PrincipalComponents:
    """The best linear reconstruction of tokens in `k` numbers: their mean, and the subspace of largest variance, largest first."""

    mean: Float[Tensor, "d_model"]
    basis: Float[Tensor, "k d_model"]

    def first(self, k: int) -> "PrincipalComponents":
        """The same with fewer components."""
        return PrincipalComponents(self.mean, self.basis[:k])

    def __call__(self, residuals: Float[Tensor, "n_tokens d_model"]) -> Float[Tensor, "n_tokens d_model"]:
        return self.mean + (residuals - self.mean) @ self.basis.T @ self.basis


def principal_components(tokens: Float[Tensor, "n_tokens d_model"], k: int | None = None) -> PrincipalComponents:
    """The first `k` components, or all of them, by the covariance in float64."""
    mean = sum((rows.double().sum(0) for rows in tokens.split(ROWS)), torch.zeros(tokens.shape[-1]).double())
    mean = mean / len(tokens)
    covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64)
    for rows in tokens.split(ROWS):
        centred = rows.double() - mean
        covariance += centred.T @ centred
    whole = PrincipalComponents(mean.float(), torch.linalg.eigh(covariance).eigenvectors.flip(-1).T.float())
    return whole if k is None else whole.first(k)


def squared_errors(
    tokens: Float[Tensor, "n_tokens d_model"], reconstruct: Reconstruct
) -> Float[np.ndarray, " n_tokens"]:
    """Squared distance of each token from its reconstruction, residual units, computed in float32."""
    found = [(rows.float() - reconstruct(rows.float())).square().sum(-1) for rows in tokens.split(ROWS)]
    return torch.cat(found).double().numpy()


def fvu(
    errors: Float[np.ndarray, " n_tokens"], deviations: Float[np.ndarray, " n_tokens"], questions: Sequence[str]
) -> Interval:
    """Fraction of variance unexplained: summed squared error over summed squared deviation from the mean of the train tokens, which is
    what answering with that mean would miss (1); with a jackknife interval over questions.

    Args:
        questions: of each token.
    """
    names, place = np.unique(np.asarray(questions, dtype=str), return_inverse=True)
    missed, there = (np.bincount(place, weights=values, minlength=len(names)) for values in (errors, deviations))

    def ratio(keep: Bool[np.ndarray, " question"]) -> float | None:
        return float(missed[keep].sum() / there[keep].sum()) if keep.any() and there[keep].sum() > 0 else None

    found = jackknife_interval(ratio, names)
    return Interval(found.value, found.low, found.high, len(errors), len(names), found.method)


@dataclass(frozen=True, repr=False)
class Firing:
    """How often latents were active.

    Attributes:
        counts: tokens in which each latent was active.
        n_tokens: tokens looked at.
    """

    counts: Int[Tensor, "n_latents"]
    n_tokens: int

    @property
    def l0(self) -> float:
        """Mean number of active latents per token."""
        return float(self.counts.sum()) / self.n_tokens

    @property
    def dead(self) -> Bool[Tensor, "n_latents"]:
        return self.counts == 0


def firing(dictionary: Dictionary, tokens: Float[Tensor, "n_tokens d_model"]) -> Firing:
    """Counts over all the tokens."""
    counts = torch.zeros(dictionary.n_latents, dtype=torch.long)
    for rows in tokens.split(ROWS):
        counts += (dictionary.encode(rows.float()) > 0).sum(0).cpu()
    return Firing(counts, len(tokens))


@dataclass(frozen=True, repr=False)
class Census:
    """What fired in the held-out tokens, and in train tokens besides; a latent that fires in neither is dead."""

    held: Firing
    seen: Firing

    @property
    def dead(self) -> Bool[Tensor, "n_latents"]:
        return self.held.dead & self.seen.dead

    @property
    def rare(self) -> Bool[Tensor, "n_latents"]:
        return self.held.counts + self.seen.counts < RARE


def census(dictionary: Dictionary, pool: TokenPool, n_fired: int) -> Census:
    """Of all held-out tokens and of about `n_fired` train tokens, evenly spread."""
    step = max(1, len(pool.train) // n_fired)
    return Census(firing(dictionary, pool.held_out), firing(dictionary, pool.train[::step]))


def figures(
    dictionary: Dictionary,
    pool: TokenPool,
    questions: Sequence[str],
    *,
    n_fired: int,
    counted: Census | None = None,
) -> dict[str, Any]:
    """FVU and L0 on the held-out tokens, with the dead latents, as they stand in results.

    Args:
        questions: of each text, as `SaeTexts.questions`.
        counted: the census of `n_fired`, where it is there already.
    """
    found = counted or census(dictionary, pool, n_fired)
    return {
        "fvu": missed(pool, questions, dictionary.reconstruct),
        "l0": found.held.l0,
        "n_dead": int(found.dead.sum()),
        "n_latents": dictionary.n_latents,
        "dead_share": float(found.dead.float().mean()),
        "n_tokens_looked_at": found.held.n_tokens + found.seen.n_tokens,
        "n_rare": int(found.rare.sum()),
    }


def missed(pool: TokenPool, questions: Sequence[str], reconstruct: Reconstruct) -> dict[str, Any]:
    """`fvu` of the held-out tokens, as it stands in results."""
    owners = [questions[int(text)] for text in pool.held_text]
    errors = squared_errors(pool.held_out, reconstruct)
    deviations = squared_errors(pool.held_out, lambda rows: pool.mean.expand_as(rows))
    return fvu(errors, deviations, owners).as_json("n", "n_questions")
