"""Turns texts into the work that a model has with them: tokens that are read, scored, written and trained on, padding included."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from emis_interp.config.run_config import ModelConfig
from emis_interp.http.costs import Usage
from emis_interp.models.chat import EncodedChat
from emis_interp.passes.batching import length_batches
from emis_interp.passes.likelihood import worth_sharing

T = TypeVar("T")
Tokenizers = Callable[[ModelConfig], Any]
"""The tokenizer with which a model is asked: base's, or one that puts examples before every question."""


@dataclass(frozen=True)
class Work:
    """What a stage asks of a machine.

    Attributes:
        read: tokens through the decoder body, padding included.
        scored: positions of which logits and one softmax over the vocabulary are made.
        softmaxes: softmaxes over the vocabulary beyond that.
        written: rows x steps of the token loop, at most: every answer as long as it may be.
        steps: steps of the token loop, of all batches.
        trained: tokens through forward and backward passes.
        judged: tokens that the offline judge reads, times the layers that it runs.
        loads: times that a model's weights are loaded as they are; `merges` with an adapter that is folded in.
        disk: bytes that stay in the run folder; `transient` the most that is there for a while besides.
        usage: requests to an API.
    """

    read: float = 0
    scored: float = 0
    softmaxes: float = 0
    written: float = 0
    steps: float = 0
    trained: float = 0
    judged: float = 0
    loads: int = 0
    merges: int = 0
    disk: float = 0
    transient: float = 0
    usage: Usage = field(default_factory=Usage)

    def __add__(self, other: "Work") -> "Work":
        return Work(**{one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(self)})


@dataclass(frozen=True)
class StageWork:
    """The work of one stage.

    Attributes:
        held: models of the run's size that are in memory at once.
        left_out: what the stage does besides that is not in `work`; empty for nothing that takes long.
    """

    stage: str
    work: Work
    held: int = 0
    left_out: str = ""


def loading(model: ModelConfig) -> Work:
    """Of a model of a run in one of its stages; base is there since the check stage."""
    is_base = model.arm.untouched or model.arm.in_context is not None
    return Work(merges=int(not is_base))


def once_each(tokenizers: Tokenizers, count: Callable[[Any], T]) -> Callable[[ModelConfig], T]:
    """What `count` says of a model's tokenizer; most models share one, and rendering texts takes nearly all of the time of counting."""
    known: dict[int, tuple[Any, T]] = {}

    def of(model: ModelConfig) -> T:
        tokenizer = tokenizers(model)
        if id(tokenizer) not in known:
            known[id(tokenizer)] = tokenizer, count(tokenizer)  # held, so that no other one gets its id
        return known[id(tokenizer)][1]

    return of


def padded(lengths: Sequence[int], max_batch_tokens: int) -> int:
    """Tokens that a model computes for texts of these lengths, in batches of at most so many padded tokens (`length_batches`)."""
    return sum(len(rows) * max(lengths[i] for i in rows) for rows in length_batches(lengths, max_batch_tokens))


def reading(chats: Sequence[EncodedChat], max_batch_tokens: int) -> Work:
    """Whole texts, without logits: capture."""
    return Work(read=padded([len(chat) for chat in chats], max_batch_tokens))


def scoring(chats: Sequence[EncodedChat], max_batch_tokens: int, n_cells: int = 1) -> Work:
    """`likelihood.cell_logprobs` of the texts under so many cells: answers behind one pass of their prompt where that is worth it."""
    by_prompt: dict[tuple[int, ...], list[int]] = {}
    for i, chat in enumerate(chats):
        by_prompt.setdefault(chat.input_ids[: chat.response_start], []).append(i)
    shared = [texts for prompt, texts in by_prompt.items() if worth_sharing(len(prompt), chats, texts)]
    alone = sorted(set(range(len(chats))).difference(*shared))
    n_read = 0
    for texts, together in [*((texts, True) for texts in shared), (alone, False)]:
        for members in length_batches([n_cells * len(chats[i]) for i in texts], max_batch_tokens):
            rows = [chats[texts[member]] for member in members]
            # In whole texts the end of the turn is left out; behind a shared prompt only answers are padded.
            longest = max(row.n_response if together else row.response_end for row in rows)
            n_read += n_cells * (len(rows) * longest + (rows[0].response_start if together else 0))
    return Work(read=n_read, scored=n_cells * sum(chat.n_response for chat in chats))


def next_tokens(prompts: Sequence[Sequence[int]], max_batch_tokens: int | None = None) -> Work:
    """`next_token_logprobs`: one position of each prompt; in one batch where there is no limit."""
    lengths = [len(prompt) for prompt in prompts]
    n_read = padded(lengths, max_batch_tokens) if max_batch_tokens else len(lengths) * max(lengths, default=0)
    return Work(read=n_read, scored=len(prompts))


def writing(prompts: Sequence[Sequence[int]], batches: Sequence[Sequence[int]], max_new_tokens: int) -> Work:
    """Answers as long as they may be, in these batches of prompts; equal prompts of a batch are read once."""
    n_read = 0
    for rows in batches:
        unique = {tuple(prompts[i]) for i in rows}
        n_read += len(unique) * max(map(len, unique))
    return Work(read=n_read, written=len(prompts) * max_new_tokens, steps=len(batches) * max_new_tokens)
