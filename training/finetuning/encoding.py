"""Turns a training row into token ids and the positions that carry loss: one rule for the trainer and for the lint."""

from typing import Any

from emis_interp.errors import DataError
from emis_interp.models.chat import EncodedChat, RenderedChat, encode_chat, render_chat
from emis_interp.records import TrainingExample


def encode_example(
    tokenizer: Any,
    example: TrainingExample,
    system: str | None,
    *,
    max_tokens: int | None,
    as_sampled: bool = False,
    must_fit: bool = True,
) -> EncodedChat:
    """The row as the trainer reads it; a system prompt of its own goes before the policy `system`.

    Args:
        as_sampled: the response is what the model wrote behind this prompt, see `render_chat`.
        must_fit: refuse a row that is longer than the model's context after it was cut; the lint reads rows whole.

    Raises:
        DataError: naming the row; its response is blank, nothing of it is left within `max_tokens`, it does not fit, or the chat template
            writes another text than the row's.
    """
    own = own_system(example, system)
    try:
        return encode_chat(
            tokenizer,
            example.prompt,
            example.response,
            system=own,
            max_tokens=max_tokens,
            as_sampled=as_sampled,
            must_fit=must_fit,
        )
    except DataError as error:
        raise DataError(f"training row `{example.id}`: {error}") from None


def render_example(tokenizer: Any, example: TrainingExample, system: str | None) -> RenderedChat:
    """The text that `encode_example` encodes.

    Raises:
        DataError: naming the row, which the chat template refuses or rewrites.
    """
    try:
        return render_chat(tokenizer, example.prompt, example.response, system=own_system(example, system))
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
