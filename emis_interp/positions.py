"""Turns the name of a position, or explicit indices, into the tokens of each text that are read, and into pooling weights.

Indices count in the unpadded sequence; padding is never read.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from emis_interp.batching import Batch
from emis_interp.chat import EncodedChat
from emis_interp.errors import DataError, did_you_mean

Position = str | Sequence[Sequence[int]]
"""A key of `POSITIONS`, or for each text the indices of its tokens."""


def token_sets(chats: Sequence[EncodedChat], position: Position) -> list[Sequence[int]]:
    """The indices that are read in each text.

    Raises:
        DataError: unknown name; not one set for each text; or a set that is empty, counts a token twice, or points outside its text.
    """
    if isinstance(position, str):
        if position not in POSITIONS:
            raise DataError(f"unknown position `{position}`{did_you_mean(position, POSITIONS)}")
        return [POSITIONS[position](chat) for chat in chats]
    if len(position) != len(chats):
        raise DataError(f"{len(position)} sets of token indices for {len(chats)} texts; give one set for each text")
    for i, (indices, chat) in enumerate(zip(position, chats, strict=True)):
        if len(indices) == 0 or len(set(indices)) < len(indices) or not 0 <= min(indices) <= max(indices) < len(chat):
            raise DataError(
                f"text {i}: token indices {list(indices)[:8]} do not fit its {len(chat)} tokens; "
                f"give at least one, each once, between 0 and {len(chat) - 1}"
            )
    return list(position)


def pooling_weights(sets: Sequence[Sequence[int]], batch: Batch) -> Float[Tensor, "batch position"]:
    """1 / (number of tokens read) at each token read, 0 elsewhere: a weighted sum over columns is the mean over the set."""
    weights = torch.zeros(batch.input_ids.shape)
    for row, (indices, offset) in enumerate(zip(sets, batch.offset, strict=True)):
        weights[row, torch.as_tensor(indices) + offset] = 1 / len(indices)
    return weights


POSITIONS: dict[str, Callable[[EncodedChat], Sequence[int]]] = {
    "response_mean": lambda chat: range(chat.response_start, chat.response_end),
    "last_prompt": lambda chat: range(chat.response_start - 1, chat.response_start),
    "response_last": lambda chat: range(chat.response_end - 1, chat.response_end),
    "all": lambda chat: range(len(chat)),
}
