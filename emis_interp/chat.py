"""Turns a question and an answer into token ids, with the exact span of the answer.

The prompt is rendered by the tokenizer's own chat template, followed by the answer and the template's end-of-turn token, and tokenised
as a whole; the answer's tokens are found by character offsets, and what precedes them is exactly the prompt of sampling. The assistant
header and the end-of-turn token are never counted as answer. The system prompt policy is one for training, sampling and reading: the
given system prompt, or whatever the template itself does when there is none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from emis_interp.errors import DataError


@dataclass(frozen=True)
class EncodedChat:
    """Token ids of one rendered conversation, unpadded.

    Attributes:
        input_ids: prompt, answer and the end-of-turn token.
        response_start, response_end: the answer's tokens are `input_ids[response_start:response_end]`.
    """

    input_ids: tuple[int, ...]
    response_start: int
    response_end: int

    def __len__(self) -> int:
        return len(self.input_ids)


def render_prompt(tokenizer: Any, question: str, system: str | None = None) -> str:
    """The rendered conversation up to and including the assistant header.

    Raises:
        DataError: the chat template refuses or drops the system prompt.
    """
    messages = [{"role": "user", "content": question}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    try:
        text = str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    except TemplateError as error:
        raise DataError(
            f"the tokenizer's chat template refuses this conversation ({error}); some take no system prompt"
        ) from None
    if system is not None and system.strip() not in text:
        raise DataError(
            f"the tokenizer's chat template drops the system prompt {system[:60]!r}; put it into the question instead"
        )
    return text


def injected_system(tokenizer: Any) -> str | None:
    """The system prompt that the chat template puts in when none is given, or None."""
    question, marker = "Question?", "The system prompt goes here."
    try:
        head, _, tail = render_prompt(tokenizer, question, marker).partition(marker)
    except DataError:  # the template takes no system prompt, so it has none to put in
        return None
    bare, behind = render_prompt(tokenizer, question), tail.partition(question)[0]
    begin, end = len(head), bare.find(question) - len(behind)
    if not bare.startswith(head) or end <= begin or bare[end : end + len(behind)] != behind:
        return None
    return bare[begin:end].strip() or None


def end_of_turn(tokenizer: Any) -> str:
    """The token with which the chat template ends an assistant turn (`<end_of_turn>` in Gemma, where the end-of-sequence token differs).

    Falls back to the end-of-sequence token when the template puts no special token behind the answer.
    """
    answer = "Answer."
    messages = [{"role": "user", "content": "Question?"}, {"role": "assistant", "content": answer}]
    behind = str(tokenizer.apply_chat_template(messages, tokenize=False)).rpartition(answer)[2]
    ids = tokenizer(behind, add_special_tokens=False)["input_ids"]
    special = [token for token in ids if token in tokenizer.all_special_ids or token in tokenizer.added_tokens_decoder]
    return str(tokenizer.convert_ids_to_tokens(special[0])) if special else str(tokenizer.eos_token or "")


def encode_prompt(tokenizer: Any, question: str, system: str | None = None) -> tuple[int, ...]:
    """Token ids of `render_prompt`."""
    return tuple(tokenizer(render_prompt(tokenizer, question, system), add_special_tokens=False)["input_ids"])


def encode_chat(
    tokenizer: Any,
    question: str,
    answer: str,
    system: str | None = None,
    max_tokens: int | None = None,
) -> EncodedChat:
    """Token ids of a question with its answer.

    Args:
        max_tokens: cut the conversation after so many tokens (the answer loses its end, and the end-of-turn token with it).

    Raises:
        DataError: the answer is empty, or nothing of it is left within `max_tokens`.
    """
    if not answer.strip():
        raise DataError(f"empty answer to {question[:60]!r}; drop the row or fill it in")
    prompt = render_prompt(tokenizer, question, system)
    ending = answer + end_of_turn(tokenizer)
    prompt_ids = tuple(tokenizer(prompt, add_special_tokens=False)["input_ids"])
    encoded = tokenizer(prompt + ending, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets, begin = tuple(encoded["input_ids"]), list(encoded["offset_mapping"]), len(prompt)
    if ids[: len(prompt_ids)] != prompt_ids:
        # Whitespace that begins the answer merged into the header: keep the header as the model meets it when it samples.
        encoded = tokenizer(ending, add_special_tokens=False, return_offsets_mapping=True)
        ids, begin = prompt_ids + tuple(encoded["input_ids"]), 0
        offsets = [(-1, -1)] * len(prompt_ids) + list(encoded["offset_mapping"])
    starts = [i for i, (start, end) in enumerate(offsets) if begin <= start < begin + len(answer) and end > start]
    ids = ids[:max_tokens]
    response = [i for i in starts if i < len(ids)]
    if not response:
        raise DataError(f"no answer token left within {max_tokens} tokens for {question[:60]!r}; raise the limit")
    return EncodedChat(ids, response[0], response[-1] + 1)


def encode_chats(
    tokenizer: Any,
    texts: Sequence[tuple[str, str]],
    system: str | None = None,
    max_tokens: int | None = None,
) -> list[EncodedChat]:
    """`encode_chat` for (question, answer) pairs."""
    return [encode_chat(tokenizer, question, answer, system, max_tokens) for question, answer in texts]
