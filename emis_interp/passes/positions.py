"""Turns the name of a position (or a rule, or explicit sets) into token indices of every text, in its unpadded sequence.

Padding is added later and never counted; index 0 is the first token of the rendered conversation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from emis_interp.errors import DataError, did_you_mean
from emis_interp.models.chat import EncodedChat

PositionRule = Callable[[EncodedChat], Sequence[int]]

POSITIONS: dict[str, PositionRule] = {
    "response_mean": lambda chat: range(chat.response_start, chat.response_end),
    "last_prompt": lambda chat: (chat.response_start - 1,),
    "response_last": lambda chat: (chat.response_end - 1,),
    "all_tokens": lambda chat: range(len(chat)),
}


@dataclass(frozen=True)
class TokenSets:
    """Explicit tokens: text i is read at `indices[i]`, in the order given; an index given twice counts twice."""

    indices: tuple[tuple[int, ...], ...]


Position = str | TokenSets | PositionRule
"""A key of `POSITIONS`, one set of indices for each text, or a function from a text to its indices."""


def token_indices(position: Position, chats: Sequence[EncodedChat]) -> list[Sequence[int]]:
    """The tokens to read in each text, at least one and all within the text.

    Raises:
        DataError: an unknown name, another number of sets than of texts, an empty set, or an index outside its text.
    """
    if isinstance(position, str):
        if position not in POSITIONS:
            raise DataError(f"unknown position `{position}`{did_you_mean(position, POSITIONS)}")
        position = POSITIONS[position]
    if isinstance(position, TokenSets):
        if len(position.indices) != len(chats):
            raise DataError(f"{len(position.indices)} token sets for {len(chats)} texts; give one set for each text")
        chosen: list[Sequence[int]] = list(position.indices)
    else:
        chosen = [position(chat) for chat in chats]
    for i, (chat, indices) in enumerate(zip(chats, chosen, strict=True)):
        if len(indices) == 0:
            raise DataError(f"text {i}: no token to read; every text needs at least one index")
        if min(indices) < 0 or max(indices) >= len(chat):
            outside = min(indices) if min(indices) < 0 else max(indices)
            raise DataError(
                f"text {i}: token {outside} asked for, the text has {len(chat)} (0-{len(chat) - 1}); count from its beginning"
            )
    return chosen
