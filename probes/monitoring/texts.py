"""Turns transcripts, tables and shipped texts into turns that a monitor reads: token ids with the span of one assistant turn."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, field_validator

from emis_interp.directions import FittedOn
from emis_interp.errors import DataError
from emis_interp.files.reading import AS_WRITTEN, Reading
from emis_interp.files.store import parse_record, read_lines
from emis_interp.files.strict_json import parse_json_line
from emis_interp.models.chat import EncodedChat, RenderedChat, encode_chat, encode_rendered
from emis_interp.models.chat_template import template_of
from emis_interp.models.rendering import messages_of, render
from emis_interp.texts.harmless import harmless_texts
from emis_interp.texts.judged import read_judged, read_table

Shipped = Mapping[str, Callable[[], Sequence[tuple[str, str, str]]]]
"""Name of a source -> its (question id, question, answer)."""


class ChatMessage(BaseModel):
    """One message of a transcript; keys other than these are left alone."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    role: Literal["system", "user", "assistant"]
    content: str


class Transcript(BaseModel):
    """One conversation with at least one assistant turn."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    messages: tuple[ChatMessage, ...]

    @field_validator("messages")
    @classmethod
    def _has_a_turn(cls, value: tuple[ChatMessage, ...]) -> tuple[ChatMessage, ...]:
        turns = [message for message in value if message.role == "assistant"]
        if not turns:
            raise ValueError("no assistant turn, so nothing to read; add one or take the line out")
        if any(not turn.content.strip() for turn in turns):
            raise ValueError("an assistant turn is empty; take it out or fill it in")
        if value[0].role == "assistant":
            raise ValueError("the first turn is the assistant's; put what it answers before it")
        return value


@dataclass(frozen=True)
class MonitoredTurn:
    """One assistant turn, ready to be read.

    Attributes:
        question_id: unit of intervals; `question` the last user message before it.
        file, line, turn: where it stands; `turn` counts messages from 0.
    """

    question_id: str
    question: str
    answer: str
    chat: EncodedChat
    file: str = ""
    line: int = 0
    turn: int = 0


def read_transcripts(path: Path, tokenizer: Any) -> list[MonitoredTurn]:
    """Every assistant turn of a JSONL file, each behind all that precedes it.

    Raises:
        DataError: no such file or no line in it; or `file:line` and what is wrong there (no JSON, other roles, an empty turn, a template
            that refuses the conversation, more tokens than the model has positions for).
    """
    found = []
    for number, line in read_lines(path):
        where = f"{path}:{number}"
        transcript = parse_record(line, Transcript, where)
        try:
            found += [
                MonitoredTurn(question, question, answer, chat, str(path), number, turn)
                for turn, question, answer, chat in encode_turns(tokenizer, transcript.messages)
            ]
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
    if not found:
        raise DataError(
            f'{path}: no transcripts; a line is {{"messages": [{{"role": "user", "content": "..."}}, ...]}}'
        )
    return found


def encode_turns(tokenizer: Any, messages: Sequence[ChatMessage]) -> list[tuple[int, str, str, EncodedChat]]:
    """(index of the message, last user message before it, its text, its tokens) of each assistant turn; it stands as it is, the turns
    before it as the chat template writes earlier turns."""
    template, found = template_of(tokenizer), []
    for index, message in enumerate(messages):
        if message.role != "assistant":
            continue
        before = messages_of([(one.role, one.content) for one in messages[:index]], template.parts)
        asked = render(tokenizer, before, generation=True)
        if not asked.endswith(template.opened):
            raise DataError(
                f"message {index}: the chat template asks for it with {asked[-60:]!r}, and for others with {template.opened!r}"
            )
        prompt = asked.removesuffix(template.opened) + template.header
        chat = RenderedChat(prompt, template.space + message.content, template.end)
        encoded = encode_rendered(tokenizer, chat, f"assistant turn {index} {message.content[:40]!r}")
        question = next((one.content for one in reversed(messages[:index]) if one.role == "user"), "")
        found.append((index, question, message.content, encoded))
    return found


def benign_turns(
    source: str,
    tokenizer: Any,
    *,
    shipped: Shipped,
    variant: str | None = "plain",
    reading: Reading = AS_WRITTEN,
    system: str | None = None,
    max_tokens: int | None = None,
    fitted_on: FittedOn | None = None,
    max_texts: int | None = None,
    seed: int = 0,
) -> tuple[list[MonitoredTurn], int]:
    """Benign texts of one source, and how many were left out because the scorer was fitted on their questions.

    Args:
        source: name of a shipped source, or a file: JSONL of transcripts, or a table with question and answer. Of a table with `aligned`
            and `coherent` the rows that are clearly aligned are benign; of others, all are taken to be.

    Raises:
        DataError: as the readers, or nothing is left.
    """
    if source not in shipped and source != "harmless" and _holds_transcripts(Path(source)):
        turns = read_transcripts(Path(source), tokenizer)
        kept = [turn for turn in turns if not (fitted_on and fitted_on.has(turn.question))]
        n_left_out = len(turns) - len(kept)
        return _drawn(_some(kept, source, n_left_out), max_texts, seed), n_left_out
    if source == "harmless":
        rows = [(text.id, text.prompt, text.answer) for text in harmless_texts()]
    elif source in shipped:
        rows = list(shipped[source]())
    else:
        rows = _table_rows(Path(source), variant, reading)
    unseen = [row for row in rows if not (fitted_on and fitted_on.has(row[1]))]
    chosen = _drawn(_some(unseen, source, len(rows) - len(unseen)), max_texts, seed)
    turns = [
        MonitoredTurn(
            name, question, answer, encode_chat(tokenizer, question, answer, system=system, max_tokens=max_tokens)
        )
        for name, question, answer in chosen
    ]
    return turns, len(rows) - len(unseen)


def _table_rows(path: Path, variant: str | None, reading: Reading) -> list[tuple[str, str, str]]:
    columns = reading.table(path, ("question", "answer")).columns
    if {"aligned", "coherent"} <= set(columns):
        frame = read_judged(path, variant, reading=reading, use="read")
        frame = frame[~frame["misaligned"]]
        return list(zip(frame["question_id"].astype(str), frame["question"], frame["answer"], strict=True))
    frame = read_table(path, ("question", "answer"), reading=reading)
    return [(question, question, answer) for question, answer in zip(frame["question"], frame["answer"], strict=True)]


def _holds_transcripts(path: Path) -> bool:
    """Whether the first line of a JSONL file has messages."""
    if path.suffix != ".jsonl":
        return False
    first = next(read_lines(path), None)
    value = None if first is None else parse_json_line(first[1], f"{path}:{first[0]}", halves=True)
    return isinstance(value, dict) and "messages" in value


def _some(rows: list[Any], source: str, n_left_out: int) -> list[Any]:
    if not rows:
        raise DataError(
            f"{source}: no benign text left"
            + (f", the scorer was fitted on the questions of all {n_left_out}" if n_left_out else "")
            + "; give texts of other questions, or a direction that was fitted on others (--fit selection)"
        )
    return rows


def _drawn(rows: list[Any], n: int | None, seed: int) -> list[Any]:
    """At most n of them, drawn with the seed, in their order."""
    if n is None or n >= len(rows):
        return rows
    return [rows[i] for i in sorted(random.Random(seed).sample(range(len(rows)), n))]
