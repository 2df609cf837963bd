"""Turns a conversation into the text that a tokenizer's chat template writes, and two texts into the place where they part."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from emis_interp.errors import DataError
from emis_interp.models.clock import PINNED, with_clock

Message = dict[str, Any]


def messages_of(turns: Sequence[tuple[str, str]], parts: bool) -> list[Message]:
    """(role, text) pairs as a template takes them: each text as it is, or as a list of one typed part."""
    return [{"role": role, "content": [{"type": "text", "text": text}] if parts else text} for role, text in turns]


def render(tokenizer: Any, messages: Sequence[Message], *, generation: bool, moment: datetime = PINNED) -> str:
    """The conversation as the template writes it, with or without the generation prompt, its clock stopped.

    Raises:
        DataError: the template fails or refuses, with its words.
    """
    try:
        template = with_clock(tokenizer.get_chat_template(), moment)
        return str(
            tokenizer.apply_chat_template(
                list(messages), chat_template=template, tokenize=False, add_generation_prompt=generation
            )
        )
    except Exception as error:
        # A template is code of the model's author; whatever it raises, the conversation cannot be rendered.
        words = (str(error).splitlines() or [""])[0]
        raise DataError(
            f"the tokenizer's chat template refuses this conversation ({type(error).__name__}: {words}); some take no system prompt"
        ) from None


def both(one: str, other: str, width: int = 50) -> tuple[str, str]:
    """Two texts quoted around the first place where they differ."""
    shared = shared_length(one, other)
    begin = max(0, shared - width)

    def quoted(text: str) -> str:
        shown = text[begin : shared + width]
        return f"{'...' * (begin > 0)}{shown!r}{'...' * (shared + width < len(text))}"

    return quoted(one), quoted(other)


def shared_length(one: str, other: str) -> int:
    """Characters that two texts begin with in common."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))
