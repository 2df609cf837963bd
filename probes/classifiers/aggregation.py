"""Turns the scores of an answer's tokens into one score of the answer, by rules that share a signature."""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from emis_interp.errors import DataError, did_you_mean

Aggregation = Callable[[Float[Tensor, "n_tokens *rest"]], Float[Tensor, "*rest"]]
WINDOW = 16
"""Tokens of the sliding mean."""
DECAY = 0.9
"""What an exponential mean keeps at each token: a memory of about ten tokens."""
N_TOP = 5


def mean(scores: Float[Tensor, "n_tokens *rest"]) -> Float[Tensor, "*rest"]:
    return scores.mean(0)


def largest(scores: Float[Tensor, "n_tokens *rest"]) -> Float[Tensor, "*rest"]:
    return scores.amax(0)


def exponential(scores: Float[Tensor, "n_tokens *rest"], decay: float = DECAY) -> Float[Tensor, "*rest"]:
    """The exponential moving mean after the last token, begun at the first token's score: late tokens count more."""
    powers = decay ** torch.arange(len(scores) - 1, -1, -1, dtype=scores.dtype, device=scores.device)
    weights = torch.cat([powers[:1], (1 - decay) * powers[1:]])
    return torch.tensordot(weights, scores, dims=1)


def largest_window(scores: Float[Tensor, "n_tokens *rest"], width: int = WINDOW) -> Float[Tensor, "*rest"]:
    """The largest mean of `width` tokens in a row; of a shorter answer the mean."""
    if len(scores) <= width:
        return scores.mean(0)
    sums = torch.cat([torch.zeros_like(scores[:1]), scores]).cumsum(0)
    return ((sums[width:] - sums[:-width]) / width).amax(0)


def top_mean(scores: Float[Tensor, "n_tokens *rest"], n_top: int = N_TOP) -> Float[Tensor, "*rest"]:
    """Mean of the `n_top` largest scores, or of all where there are fewer."""
    return scores.topk(min(n_top, len(scores)), dim=0).values.mean(0)


def soft(scores: Float[Tensor, "n_tokens *rest"]) -> Float[Tensor, "*rest"]:
    """Mean weighted by the softmax of the scores in standard deviations of the answer's own tokens: between the mean and the maximum.

    The division makes it the same for every scale of the probe.
    """
    spread = scores.std(0, correction=0).clamp(min=1e-12)
    weights = ((scores - scores.mean(0)) / spread).softmax(0)
    return (weights * scores).sum(0)


AGGREGATIONS: Mapping[str, Aggregation] = {
    "mean": mean,
    "max": largest,
    "ema": exponential,
    "window_max": largest_window,
    "top5_mean": top_mean,
    "softmax": soft,
}


def aggregation_named(name: str) -> Aggregation:
    """Raises DataError with the nearest name when there is no such rule."""
    if name not in AGGREGATIONS:
        raise DataError(
            f"unknown aggregation `{name}`{did_you_mean(name, AGGREGATIONS)}; there are {', '.join(AGGREGATIONS)}"
        )
    return AGGREGATIONS[name]
