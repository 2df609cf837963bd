"""Turns a training row into token ids and the positions that carry loss: one rule for the trainer and for the lint."""

from typing import Any

from emis_interp.chat import EncodedChat, encode_chat
from emis_interp.errors import DataError
from emis_interp.records import TrainingExample


def encode_example(tokenizer: Any, example: TrainingExample, system: str | None, max_tokens: int | None) -> EncodedChat:
    """The row as the trainer reads it; a system prompt of its own goes before the policy `system`.

    Raises:
        DataError: naming the row; its response is blank, or nothing of it is left within `max_tokens`.
    """
    try:
        return encode_chat(tokenizer, example.prompt, example.response, own_system(example, system), max_tokens)
    except DataError as error:
        raise DataError(f"training row `{example.id}`: {error}") from None


def own_system(example: TrainingExample, system: str | None) -> str | None:
    return example.system if example.system is not None else system


def loss_positions(chat: EncodedChat) -> range:
    """The positions whose tokens are learned: the response and its end-of-turn token."""
    return range(chat.response_start, len(chat))


def is_cut(chat: EncodedChat) -> bool:
    """Whether the row lost its end-of-turn token (and perhaps more of its end) to the limit on tokens."""
    return chat.response_end == len(chat)
