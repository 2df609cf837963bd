"""Turns a question and an answer into token ids, with the exact span of the answer.

The text is the one that the tokenizer's own chat template writes for the finished conversation, up to the token that ends the turn; it is
tokenised as a whole, the answer's tokens are found by character offsets, and what precedes them is exactly the prompt of sampling. The
assistant header and the end of the turn are never counted as answer. `models.chat_template` describes the template; every text is
compared with what the template writes, and refused where it writes something else. The system prompt policy is one for training,
sampling and reading: the given system prompt, or whatever the template itself does when there is none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from emis_interp.errors import DataError, ModelError
from emis_interp.models.chat_formats import own_turn
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.chat_template import template_of
from emis_interp.models.context import check_fits, context_length, room
from emis_interp.models.rendering import both, render

LARGEST_ID = 2**31  # of a token, in every tokenizer


@dataclass(frozen=True)
class EncodedChat:
    """Token ids of one rendered conversation, unpadded.

    Attributes:
        input_ids: prompt, answer and the end of the turn.
        response_start, response_end: the answer's tokens are `input_ids[response_start:response_end]`.
    """

    input_ids: tuple[int, ...]
    response_start: int
    response_end: int

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def n_response(self) -> int:
        """Tokens of the answer."""
        return self.response_end - self.response_start


@dataclass(frozen=True)
class RenderedChat:
    """One conversation as text: the prompt of sampling, the answer as the template writes it, and the end of the turn.

    `response` begins with the spaces that share a token with its first word, where the template puts any (`[/INST] Sure`).
    """

    prompt: str
    response: str
    end: str

    @property
    def text(self) -> str:
        return self.prompt + self.response + self.end


def render_prompt(tokenizer: Any, question: str, system: str | None = None) -> str:
    """The conversation up to the answer as the template writes it into a finished turn, whatever its generation prompt says.

    Raises:
        DataError: the chat template refuses, drops or moves the system prompt, or fails.
    """
    template = template_of(tokenizer)
    if system is not None and template.system_refusal is not None:
        raise DataError(template.system_refusal)
    text = render(tokenizer, template.messages(question, None, system), generation=True)
    if system is not None and system.strip() not in text:
        raise DataError(
            f"the tokenizer's chat template drops the system prompt {system[:60]!r}; put it into the question instead"
        )
    if question.strip() not in text:
        raise DataError(
            f"the tokenizer's chat template changes the question {question[:60]!r}, it writes {text[-200:]!r}; give it as the template "
            "writes it"
        )
    if not text.endswith(template.opened):
        raise DataError(
            f"the tokenizer's chat template ends the prompt of {question[:60]!r} with {text[-60:]!r}, and others with "
            f"{template.opened!r}; change the question"
        )
    return text.removesuffix(template.opened) + template.header


def render_chat(
    tokenizer: Any, question: str, answer: str, *, system: str | None = None, as_sampled: bool = False
) -> RenderedChat:
    """A question with its answer, as the template writes them; whitespace around the answer is what the template makes of it.

    Args:
        as_sampled: the answer is what the model wrote behind this prompt; it stays as it is, also where the template would write an
            earlier turn differently (trimmed, without its reasoning).

    Raises:
        DataError: as `render_prompt`, or the template writes other words than the prompt and the answer, with both texts.
    """
    template, prompt = template_of(tokenizer), render_prompt(tokenizer, question, system)
    if as_sampled:
        return RenderedChat(prompt, template.space + answer, template.end)
    written = render(tokenizer, template.messages(question, answer, system), generation=False)
    before = prompt + template.space
    response = written[len(before) : len(written) - len(template.suffix)]
    if written != before + response + template.suffix or response.strip() != answer.strip():
        theirs, ours = both(written, before + answer + template.suffix)
        raise DataError(
            f"the tokenizer's chat template writes {theirs} where the conversation reads {ours}; give the answer as the template writes "
            "it (the final answer alone, where it takes out or moves reasoning), or drop the row"
        )
    return RenderedChat(prompt, template.space + response, template.end)


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
    """What ends an assistant turn in a text, space before it included (`<end_of_turn>` in Gemma, where the end-of-sequence token differs).

    It is the end-of-sequence token when the template puts nothing behind the answer, and empty without one.
    """
    return template_of(tokenizer).end


def end_tokens(chat_model: ChatModel) -> set[int]:
    """Ids that end an answer: the template's ends of turn, the tokenizer's end of sequence, and the generation config's."""
    generation: Any = getattr(chat_model.model, "generation_config", None)
    return ends_of(chat_model.tokenizer, generation)


def ends_of(tokenizer: Any, generation_config: Any) -> set[int]:
    """`end_tokens` without the weights; `generation_config` may be None.

    Raises:
        ModelError: the generation config ends answers with something that is no token of the tokenizer or beside it.
    """
    configured = getattr(generation_config, "eos_token_id", None)
    listed = configured if isinstance(configured, list | tuple) else [] if configured is None else [configured]
    for token in listed:
        # Published configs say -1 for no token, and name tokens for which the model has an embedding and the tokenizer no text.
        if isinstance(token, bool) or not isinstance(token, int) or not -1 <= token < LARGEST_ID:
            raise ModelError(
                f"eos_token_id of the generation config: expected ids of tokens, found {str(token)[:60]!r}; mend generation_config.json "
                "(or config.json)"
            )
    return {*template_of(tokenizer).end_ids, *(token for token in listed if token >= 0)}


def own_answer(tokenizer: Any, text: str) -> tuple[str, bool]:
    """A sampled text as an answer, and whether the model had gone on after it.

    What follows the answer is cut where a turn ends in words: at the end of a template without an end token, and at what a pretrained
    model writes for the other side. The spaces that the template itself puts around an answer are no part of it.
    """
    template = template_of(tokenizer)
    kept = own_turn(tokenizer, text if template.cut is None else text.partition(template.cut)[0])
    before_end = template.end[: len(template.end) - len(template.end.lstrip(" "))]
    return kept.removeprefix(template.space).removesuffix(before_end), kept != text


def read_answer(tokenizer: Any, tokens: Sequence[int]) -> tuple[str, bool]:
    """Sampled tokens as `own_answer`."""
    return own_answer(tokenizer, str(tokenizer.decode(list(tokens), skip_special_tokens=True)))


def encode_prompt(tokenizer: Any, question: str, system: str | None = None) -> tuple[int, ...]:
    """Token ids of `render_prompt`.

    Raises:
        DataError: as `render_prompt`, or it leaves no room for an answer.
    """
    ids = tuple(tokenizer(render_prompt(tokenizer, question, system), add_special_tokens=False)["input_ids"])
    check_fits(len(ids), room(tokenizer), f"question {question[:60]!r}", n_new=1)
    return ids


def check_prompts(chat_model: ChatModel, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
    """Refuse prompts that leave no room for the answers that may be sampled behind them.

    Raises:
        DataError: with the tokens of the longest prompt, of its answer, and of the model's context.
    """
    longest = max(prompts, key=len, default=())
    begun = chat_model.tokenizer.decode(list(longest[:400]))[-60:] if longest else ""
    check_fits(len(longest), context_of(chat_model), f"prompt {begun!r}", n_new=max_new_tokens)


def context_of(chat_model: ChatModel) -> int | None:
    """Tokens of the longest text that the model has positions for, None when it declares nothing."""
    limits = [context_length(chat_model.model.config), room(chat_model.tokenizer)]
    return min((limit for limit in limits if limit is not None), default=None)


def encode_chat(
    tokenizer: Any,
    question: str,
    answer: str,
    *,
    system: str | None = None,
    max_tokens: int | None = None,
    as_sampled: bool = False,
    must_fit: bool = True,
) -> EncodedChat:
    """Token ids of a question with its answer.

    Args:
        max_tokens: cut the conversation after so many tokens (the answer loses its end, and the end-of-turn token with it).
        as_sampled: see `render_chat`.
        must_fit: refuse a text that is longer than the tokenizer's model has positions for.

    Raises:
        DataError: the answer is empty, nothing of it is left within `max_tokens`, it does not fit, or the template writes it differently.
    """
    if not answer.strip():
        raise DataError(f"empty answer to {question[:60]!r}; drop the row or fill it in")
    chat = render_chat(tokenizer, question, answer, system=system, as_sampled=as_sampled)
    return encode_rendered(
        tokenizer, chat, f"answer {answer[:40]!r} to {question[:60]!r}", max_tokens=max_tokens, must_fit=must_fit
    )


def encode_rendered(
    tokenizer: Any, chat: RenderedChat, what: str, *, max_tokens: int | None = None, must_fit: bool = True
) -> EncodedChat:
    """Token ids of a rendered conversation with the span of its answer, as `encode_chat`; `what` names the answer in errors."""
    ids, offsets = tokens_of(tokenizer, chat)
    begin, end = len(chat.prompt), len(chat.prompt) + len(chat.response)
    ids = ids[:max_tokens]
    response = [i for i, (start, stop) in enumerate(offsets[: len(ids)]) if begin <= start < end and stop > start]
    if not response:
        raise DataError(f"no answer token left within {max_tokens} tokens for {what}; raise the limit")
    if must_fit:
        check_fits(len(ids), room(tokenizer), what)
    return EncodedChat(ids, response[0], response[-1] + 1)


def tokens_of(tokenizer: Any, chat: RenderedChat) -> tuple[tuple[int, ...], list[tuple[int, int]]]:
    """Token ids of the whole text, and the characters of each; the first ids are exactly those of the prompt alone."""

    def encoded(text: str, begin: int) -> tuple[tuple[int, ...], list[tuple[int, int]]]:
        found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return tuple(found["input_ids"]), [(begin + start, begin + stop) for start, stop in found["offset_mapping"]]

    prompt = encoded(chat.prompt, 0)
    whole = encoded(chat.text, 0)
    if whole[0][: len(prompt[0])] == prompt[0]:
        return whole
    # Whitespace that begins the answer merged into the header: keep the header as the model meets it when it samples.
    rest = encoded(chat.response + chat.end, len(chat.prompt))
    return prompt[0] + rest[0], prompt[1] + rest[1]


def encode_chats(
    tokenizer: Any,
    texts: Sequence[tuple[str, str]],
    system: str | None = None,
    *,
    max_tokens: int | None = None,
) -> list[EncodedChat]:
    """`encode_chat` for (question, answer) pairs."""
    return [
        encode_chat(tokenizer, question, answer, system=system, max_tokens=max_tokens) for question, answer in texts
    ]
