"""Turns texts into the residuals of every answer token at a few layers, read once, and these into what probes are fitted at."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from emis_interp.errors import DataError, did_you_mean
from emis_interp.models.chat import EncodedChat
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.capture import Progress, capture_batches, keep_tokens
from probes.classifiers.aggregation import Aggregation

FIRST = (1, 2, 4, 8, 16, 32)
"""Numbers of first answer tokens that a probe may be shown."""
READ_AT = ("last_prompt", *(f"first_{k}" for k in FIRST), "response_mean")
"""Positions, in the order in which a conversation reaches them: `last_prompt` is before the model has said anything."""


@dataclass(frozen=True)
class TokenReadings:
    """Residuals (`resid_post`) of the last prompt token and of every answer token.

    Attributes:
        layers: decoder blocks, ascending.
        tokens: by layer, of each text `[1 + n_response, d_model]` in the model's dtype on the CPU.
        counts: answer tokens of each text, where `tokens` do not show them.
    """

    layers: tuple[int, ...]
    tokens: dict[int, list[Float[Tensor, "n_tokens d_model"]]]
    counts: Float[np.ndarray, "n_texts"] | None = None

    @classmethod
    def of_means(
        cls, x: Float[Tensor, "n_texts n_layers d_model"], layers: Sequence[int], counts: Float[np.ndarray, "n_texts"]
    ) -> "TokenReadings":
        """Of captured means over answers: one token stands for the mean, and there is no prompt to read (NaN).

        Args:
            x: of all layers.
            layers: which of them to keep.
        """
        nothing = torch.full((1, x.shape[-1]), torch.nan)
        rows = {
            layer: [torch.cat([nothing, one[None].float()]) for one in x[:, layer]] for layer in sorted(set(layers))
        }
        return cls(tuple(rows), rows, counts)

    def __len__(self) -> int:
        return len(self.tokens[self.layers[0]])

    @cached_property
    def lengths(self) -> Float[np.ndarray, "n_texts"]:
        """Answer tokens of each text as it was read."""
        if self.counts is not None:
            return self.counts
        return np.array([len(tokens) - 1 for tokens in self.tokens[self.layers[0]]], dtype=float)

    @cached_property
    def _pooled(self) -> dict[str, Tensor]:
        return {}

    def pooled(self, position: str) -> Float[Tensor, "n_texts n_layers d_model"]:
        """Mean residual of the tokens of a position, float32; of an answer with fewer than k tokens, `first_k` takes all.

        Raises:
            DataError: an unknown position.
        """
        if position not in READ_AT:
            raise DataError(
                f"unknown position `{position}`{did_you_mean(position, READ_AT)}; there are {', '.join(READ_AT)}"
            )
        if position not in self._pooled:
            part = _part(position)
            layers = [torch.stack([one[part].float().mean(0) for one in self.tokens[layer]]) for layer in self.layers]
            self._pooled[position] = torch.stack(layers, dim=1)
        return self._pooled[position]

    def response(self, layer: int, row: int) -> Float[Tensor, "n_tokens d_model"]:
        """All answer tokens of one text, float32."""
        return self.tokens[layer][row][1:].float()

    def aggregated(
        self,
        weights: Float[Tensor, "n_weights d_model"],
        layer: int,
        rows: Sequence[int] | np.ndarray,
        *,
        rule: Aggregation,
    ) -> Float[np.ndarray, "n_weights n_rows"]:
        """Each token of an answer scored by each vector, then one score of the answer by a rule."""
        return torch.stack([rule(self.response(layer, int(row)) @ weights.float().T) for row in rows], dim=1).numpy()


def read_tokens(
    chat_model: ChatModel,
    chats: Sequence[EncodedChat],
    layers: Sequence[int],
    *,
    max_batch_tokens: int = 2048,
    progress: Progress | None = None,
) -> TokenReadings:
    """One pass over the texts that keeps the last prompt token and all answer tokens.

    Raises:
        ModelError, DataError: as `capture_batches`.
    """
    ascending = tuple(sorted(set(layers)))
    kept: dict[int, list[Tensor]] = {layer: [torch.empty(0)] * len(chats) for layer in ascending}
    runs = capture_batches(
        chat_model,
        chats,
        ascending,
        position=lambda chat: range(chat.response_start - 1, chat.response_end),
        reduce_for=lambda _: keep_tokens,
        max_batch_tokens=max_batch_tokens,
    )
    for rows, counts, picked in runs:
        for layer, tokens in zip(ascending, picked, strict=True):
            for row, part in zip(rows, tokens.cpu().split(counts), strict=True):
                kept[layer][row] = part.clone()
        if progress:
            progress(len(rows))
    # One prompt has one residual: what batches of other shapes add by rounding follows the answer's length, which may follow its class.
    first: dict[tuple[int, ...], int] = {}
    for row, chat in enumerate(chats):
        same = first.setdefault(chat.input_ids[: chat.response_start], row)
        for layer in ascending:
            kept[layer][row][0] = kept[layer][same][0]
    return TokenReadings(ascending, kept)


def _part(position: str) -> slice:
    if position == "last_prompt":
        return slice(0, 1)
    return slice(1, None if position == "response_mean" else 1 + int(position.removeprefix("first_")))
