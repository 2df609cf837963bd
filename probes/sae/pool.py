"""Turns a store of token activations into the tokens that an SAE is trained and measured on, and into endless batches of them."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from emis_interp.errors import DataError
from emis_interp.models.chat import EncodedChat
from emis_interp.passes.token_store import TokenStore

HIGH_NORM = 10.0
"""Times the median norm of what is left: tokens above are attention sinks, a few dimensions that hold most of the variance
(Sun et al. 2024, "Massive activations in large language models"), and one of them outweighs a thousand others in a squared error."""


@dataclass(frozen=True, repr=False)
class TokenPool:
    """Raw residuals of one layer, in the dtype of the store.

    Attributes:
        train, held_out: one row a token.
        held_text: index of each held-out token's text, in the order of `SaeTexts`.
        mean: of the train tokens, float32.
        mean_norm: mean norm of the train tokens.
        norm_limit: tokens above it were left out.
        left_out: reason -> tokens.
    """

    train: Float[Tensor, "n_tokens d_model"]
    held_out: Float[Tensor, "n_held_out d_model"]
    held_text: Int[np.ndarray, " n_held_out"]
    mean: Float[Tensor, "d_model"]
    mean_norm: float
    norm_limit: float
    left_out: dict[str, int]

    @property
    def scale(self) -> float:
        """Factor that gives the tokens a mean norm of sqrt(d_model) (sae-lens' `expected_average_only_in`)."""
        return self.train.shape[-1] ** 0.5 / self.mean_norm


def fill_pool(
    store: TokenStore, layer: int, chats: Sequence[EncodedChat], *, n_train: int, special: Collection[int]
) -> TokenPool:
    """The tokens of a store of whole texts that an SAE may read.

    Args:
        chats: texts of the store, of which the first `n_train` are trained on.
        special: token ids that are left out.

    Raises:
        DataError: nothing is left of one of the parts.
    """
    masks, left_out = ordinary_tokens(chats, special)
    starts = np.cumsum([0, *(int(mask.sum()) for mask in masks)])
    d_model = store.card["d_model"]
    kept: Tensor | None = None
    for text, values in store.layer(layer):
        if kept is None:
            kept = torch.empty(int(starts[-1]), d_model, dtype=values.dtype)
        kept[starts[text] : starts[text + 1]] = values[torch.from_numpy(masks[text])]
    n_first = int(starts[n_train])
    if kept is None or not 0 < n_first < len(kept):
        raise DataError(
            f"{n_first} tokens to train on and {int(starts[-1]) - n_first} to measure on are left; give more texts"
        )
    norms = torch.cat([rows.float().norm(dim=-1) for rows in kept.split(65536)])
    limit = HIGH_NORM * float(norms[:n_first].median())
    low = norms <= limit
    left_out["high norm"] = int((~low).sum())
    owner = np.repeat(np.arange(len(chats)), np.diff(starts))
    if left_out["high norm"]:
        kept, owner, norms = kept[low], owner[low.numpy()], norms[low]
        n_first = int(low[:n_first].sum())
    train = kept[:n_first]
    mean = sum((rows.double().sum(0) for rows in train.split(65536)), torch.zeros(d_model).double()) / n_first
    return TokenPool(
        train, kept[n_first:], owner[n_first:], mean.float(), float(norms[:n_first].mean()), limit, left_out
    )


def ordinary_tokens(
    chats: Sequence[EncodedChat], special: Collection[int]
) -> tuple[list[Bool[np.ndarray, " n_tokens"]], dict[str, int]]:
    """Which tokens of each text are counted, and how many are not for which reason.

    The first position is left out (the attention sink, BOS or not), special tokens are, and so is a token whose whole prefix occurred in
    an earlier text: its residual is the same, so that a shared prompt or system message counts once, on the side that it came first.
    """
    seen: set[int] = set()
    masks, left_out = [], {"first position": 0, "special": 0, "same prefix": 0}
    for chat in chats:
        mask, prefix = np.zeros(len(chat), dtype=bool), 0
        for i, token in enumerate(chat.input_ids):
            prefix = hash((prefix, token))
            if i == 0:
                left_out["first position"] += 1
            elif token in special:
                left_out["special"] += 1
            elif prefix in seen:
                left_out["same prefix"] += 1
            else:
                mask[i] = True
            seen.add(prefix)
        masks.append(mask)
    return masks, left_out


class EndlessBatches:
    """Batches of exactly `size` tokens for ever, which is what `SAETrainer` asks for: it neither handles the end of an iterator nor a
    shorter batch.

    Epoch after epoch, each a permutation of its own, one flowing into the next; batch i is the same whenever it is drawn.
    """

    def __init__(self, tokens: Float[Tensor, "n_tokens d_model"], size: int, seed: int) -> None:
        if not len(tokens):
            raise DataError("no tokens to draw batches from")
        self._tokens, self._size, self._seed = tokens, size, seed
        self._order: Int[Tensor, " n_left"] = torch.empty(0, dtype=torch.long)
        self.n_epochs = 0

    def __iter__(self) -> Iterator[Float[Tensor, "batch d_model"]]:
        return self

    def __next__(self) -> Float[Tensor, "batch d_model"]:
        while len(self._order) < self._size:
            generator = torch.Generator().manual_seed(1_000_003 * self._seed + self.n_epochs)
            self._order = torch.cat([self._order, torch.randperm(len(self._tokens), generator=generator)])
            self.n_epochs += 1
        chosen, self._order = self._order[: self._size], self._order[self._size :]
        return self._tokens[chosen].float()
