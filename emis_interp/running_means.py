"""Turns any number of texts into mean residuals of groups of them, holding one window of token ids and one batch at a time.

A text weighs the same as every other (`sample`), or each token does (`token`): long answers then count for more.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from emis_interp.batching import PaddingSide
from emis_interp.capture import Progress, capture_residuals
from emis_interp.chat import EncodedChat
from emis_interp.errors import DataError, did_you_mean
from emis_interp.models import ChatModel
from emis_interp.positions import token_sets

Weighting = Literal["sample", "token"]
WEIGHTINGS: tuple[Weighting, ...] = ("sample", "token")
T = TypeVar("T")


@dataclass(frozen=True)
class GroupMean:
    """The mean residual of one group, float64, in units of the residual stream, and what it is the mean of."""

    mean: Float[Tensor, "n_layers d_model"]
    n_texts: int
    n_tokens: int


def capture_group_means(
    chat_model: ChatModel,
    chats: Iterable[tuple[str, EncodedChat]],
    layers: Sequence[int] | None = None,
    position: str = "response_mean",
    weighting: Weighting = "sample",
    max_batch_tokens: int = 1024,
    padding_side: PaddingSide = "right",
    progress: Progress | None = None,
    hook_point: str = "resid_post",
    window: int = 512,
) -> dict[str, GroupMean]:
    """Mean residual of each group, in sums of float64.

    Args:
        chats: (group, text), any iterable: texts are read `window` at a time and sorted by length within the window.
        position: a key of `positions.POSITIONS`; layers, hook points and errors as in `capture_with_norms`.
        weighting: `sample`: mean over texts of their means over tokens; `token`: mean over all tokens.

    Raises:
        DataError: unknown weighting, no texts, or a text whose residuals are not finite.
    """
    if weighting not in WEIGHTINGS:
        raise DataError(f"unknown weighting `{weighting}`{did_you_mean(weighting, WEIGHTINGS)}")
    sums: dict[str, _Sum] = {}
    for members in _windows(chats, window):
        texts = [chat for _, chat in members]
        pooled = capture_residuals(
            chat_model, texts, layers, position, max_batch_tokens, padding_side, progress, hook_point
        )
        sizes = [len(indices) for indices in token_sets(texts, position)]
        for (group, _), means, n_tokens in zip(members, pooled, sizes, strict=True):
            if not means.isfinite().all():
                raise DataError(f"a text of group `{group}` has residuals that are not finite; try a wider dtype")
            weight = n_tokens if weighting == "token" else 1
            sums.setdefault(group, _Sum(torch.zeros_like(means, dtype=torch.float64))).add(means, weight, n_tokens)
    if not sums:
        raise DataError("no texts to capture; give at least one question with an answer")
    return {
        group: GroupMean(found.total / found.weight, found.n_texts, found.n_tokens) for group, found in sums.items()
    }


@dataclass
class _Sum:
    total: Float[Tensor, "n_layers d_model"]
    weight: int = 0
    n_texts: int = 0
    n_tokens: int = 0

    def add(self, mean: Float[Tensor, "n_layers d_model"], weight: int, n_tokens: int) -> None:
        self.total += weight * mean.double()
        self.weight += weight
        self.n_texts += 1
        self.n_tokens += n_tokens


def _windows(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while window := list(islice(iterator, size)):
        yield window
