"""Turns a tokenizer into a description of its chat template: what stands before an answer, what behind it, and what it does to one.

A template has two voices: the generation prompt, behind which it asks for an answer, and the finished turn that it writes around one.
They differ in many families (a think block that is opened or left empty, a channel, a header that only one has, spaces). One text has to
serve training, sampling, reading and likelihood, and that is the finished turn: what a template writes is what its model has seen. The
description is made once for a tokenizer, from probes; what cannot be reconciled is refused with both texts.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from emis_interp.errors import DataError, ModelError
from emis_interp.models.clock import PINNED
from emis_interp.models.rendering import Message, both, messages_of, render, shared_length

SYSTEM, QUESTION, ANSWER, FOLLOW_UP = "Probe system prompt.", "Probe question?", "Probe answer.", "Probe follow-up?"
ANOTHER_DAY = datetime(1999, 11, 3, 17, 45, 21)
N_REPEATS = 4  # renderings of one conversation; a template that draws random words is seen with all but certainty


class Note(NamedTuple):
    """Something about a chat template that a user should know: a short name, and a sentence."""

    name: str
    text: str


@dataclass(frozen=True)
class ChatTemplate:
    """What a chat template writes around a question and an answer.

    Attributes:
        parts: whether it wants contents as a list of typed parts, not as text.
        opened: what its generation prompt ends with and a finished turn does not have (`<think>\\n`), mostly nothing.
        header: what a finished turn has in that place, up to the answer (an empty think block, a channel).
        space: spaces before the answer that share a token with its first word, and which the generation prompt therefore leaves out.
        end: what ends the answer, up to and including the first token that is no text; `is_own_end` says whether the template writes it.
        suffix: all that the template writes behind an answer.
        cut: text at which an answer ends where no single token ends it.
        end_ids: tokens that end a turn.
        system_refusal: why it cannot be used with a system prompt, where it renders one.
        date: the date that it writes (`clock.PINNED`), None for a template that writes none.
        prompt: the probe question as it is asked.
        sha256: of the probe conversation as it is asked and written here, with and without a system prompt.
        notes: what a user should know.
    """

    parts: bool
    opened: str
    header: str
    space: str
    end: str
    is_own_end: bool
    suffix: str
    cut: str | None
    end_ids: tuple[int, ...]
    system_refusal: str | None
    date: str | None
    prompt: str
    sha256: str
    notes: tuple[Note, ...]

    @property
    def card(self) -> dict[str, Any]:
        """What decides the text of every prompt, for cards and keys."""
        return {"sha256": self.sha256, "prompt": self.prompt, "date": self.date}

    def messages(self, question: str, answer: str | None = None, system: str | None = None) -> list[Message]:
        """The conversation in the form that the template takes."""
        turns = [("system", system), ("user", question), ("assistant", answer)]
        return messages_of([(role, text) for role, text in turns if text is not None], self.parts)


def template_of(tokenizer: Any) -> ChatTemplate:
    """The description of the tokenizer's chat template as it now is; made once, and again only when the template was changed.

    Raises:
        ModelError: it cannot render a question and its answer, or writes them so that prompts and finished turns cannot be reconciled.
    """
    key = (tokenizer.chat_template, tokenizer.eos_token, tokenizer.bos_token, len(tokenizer))
    kept = _DESCRIBED.get(tokenizer)
    if kept is None or kept[0] != key:
        kept = _DESCRIBED[tokenizer] = (key, _describe(tokenizer))
    return kept[1]


@dataclass(frozen=True)
class _Voices:
    """The two voices with one kind of conversation: the generation prompt, and a finished turn up to the answer and behind it."""

    asked: str
    before: str
    suffix: str

    @property
    def difference(self) -> tuple[str, str, str]:
        """`opened`, `header` and `space`."""
        shared = shared_length(self.asked, self.before)
        ends = self.before[shared:]
        header = ends.rstrip(" ")
        return self.asked[shared:], header, ends[len(header) :]

    @property
    def around(self) -> str:
        """What a finished turn has behind the question."""
        return self.before.rpartition(QUESTION)[2] + ANSWER + self.suffix

    @property
    def prompt(self) -> str:
        opened, header, _ = self.difference
        return self.asked.removesuffix(opened) + header


_DESCRIBED: WeakKeyDictionary[Any, tuple[tuple[Any, ...], ChatTemplate]] = WeakKeyDictionary()


def _describe(tokenizer: Any) -> ChatTemplate:
    parts = _wants_parts(tokenizer)
    plain = _voices(tokenizer, parts, None)
    opened, header, space = plain.difference
    if not plain.before.rpartition(QUESTION)[2].strip():
        raise ModelError(
            f"the chat template writes nothing between a question and its finished answer (it writes {plain.before[-60:]!r} before the "
            f"answer, and asks with {plain.asked[-60:]!r}); choose another model, or a plain format (--chat-format)"
        )
    following = _following(tokenizer, parts)
    end, is_own_end, cut = _end(tokenizer, plain.suffix, following)
    spoken, refusal = _with_system(tokenizer, parts, plain)
    date = f"{PINNED:%Y-%m-%d}" if _is_dated(tokenizer, parts) else None
    conversations = [voices and [voices.prompt, space + ANSWER + end] for voices in (plain, spoken)]
    return ChatTemplate(
        parts=parts,
        opened=opened,
        header=header,
        space=space,
        end=end,
        is_own_end=is_own_end,
        suffix=plain.suffix,
        cut=cut,
        end_ids=_end_ids(tokenizer, plain.suffix, following),
        system_refusal=refusal,
        date=date,
        prompt=plain.prompt,
        sha256=hashlib.sha256(json.dumps(conversations).encode()).hexdigest(),
        notes=tuple(_notes(plain, end, is_own_end, cut=cut, date=date)),
    )


def _voices(tokenizer: Any, parts: bool, system: str | None) -> _Voices:
    """Raises: DataError: the template refuses; ModelError: it changes the answer, or asks with another conversation than it writes."""
    turns = [*([("system", system)] if system else []), ("user", QUESTION)]
    asked = _same_again(tokenizer, messages_of(turns, parts), generation=True)
    written = _same_again(tokenizer, messages_of([*turns, ("assistant", ANSWER)], parts), generation=False)
    before, found, suffix = written.rpartition(ANSWER)
    if not found:
        raise ModelError(f"the chat template does not write the answer {ANSWER!r} as it is: {written[-200:]!r}")
    if system and system not in asked:
        raise DataError("the chat template drops the system prompt")
    shared = asked[: shared_length(asked, before)]
    if QUESTION not in shared or (system or "") not in shared:
        one, other = both(asked, before)
        raise ModelError(
            f"the chat template asks with {one} and writes {other} before a finished answer, so that what is asked is not what is read"
        )
    return _Voices(asked, before, suffix)


def _with_system(tokenizer: Any, parts: bool, plain: _Voices) -> tuple[_Voices | None, str | None]:
    """The voices with a system prompt, or None where it takes none; and a reason to refuse one that the template itself renders."""
    try:
        spoken = _voices(tokenizer, parts, SYSTEM)
    except DataError:  # said with the template's own words where a system prompt is given
        return None, None
    except ModelError as error:
        return None, f"{error}; put the system prompt into the question"
    if (spoken.difference, spoken.suffix) != (plain.difference, plain.suffix):
        one, other = both(plain.around, spoken.around)
        return (
            None,
            f"the chat template writes {one} around an answer, and {other} under a system prompt; put it into the question",
        )
    return spoken, None


def _same_again(tokenizer: Any, messages: Sequence[Message], *, generation: bool) -> str:
    texts = [render(tokenizer, messages, generation=generation) for _ in range(N_REPEATS)]
    for text in texts[1:]:
        if text != texts[0]:
            one, other = both(texts[0], text)
            raise ModelError(
                f"the chat template renders one conversation in several ways ({one}, {other}); mend it to write the same text each time"
            )
    return texts[0]


def _wants_parts(tokenizer: Any) -> bool:
    refused: DataError | None = None
    for parts in (False, True):
        try:
            if QUESTION in render(tokenizer, messages_of([("user", QUESTION)], parts), generation=True):
                return parts
        except DataError as error:
            refused = refused or error
    raise ModelError(
        str(refused) if refused else f"the chat template does not write the question {QUESTION!r} as it is"
    )


def _following(tokenizer: Any, parts: bool) -> str:
    """What stands between an answer and the question behind it, nothing where the template has no further turns."""
    turns = [("user", QUESTION), ("assistant", ANSWER), ("user", FOLLOW_UP)]
    try:
        text = render(tokenizer, messages_of(turns, parts), generation=False)
    except DataError:
        return ""
    return text.partition(FOLLOW_UP)[0].rpartition(ANSWER)[2]


def _end(tokenizer: Any, suffix: str, following: str) -> tuple[str, bool, str | None]:
    """`end`, whether the template writes it, and `cut`."""
    mark, position = _first_mark(tokenizer, suffix)
    if mark is not None:
        return suffix[: position + len(mark)], True, None
    words = suffix.rstrip()
    if words.strip() and following.startswith(words):
        return words, True, words.strip()
    return str(tokenizer.eos_token or ""), False, None


def _end_ids(tokenizer: Any, suffix: str, following: str) -> tuple[int, ...]:
    """The tokens that the template puts behind a last answer and behind an earlier one, and the end-of-sequence token."""
    found = {_first_mark(tokenizer, suffix)[0]}
    mark, position = _first_mark(tokenizer, following)
    if not following[:position].strip():  # behind words it belongs to the next turn
        found.add(mark)
    found.add(tokenizer.eos_token)
    return tuple(sorted(int(tokenizer.convert_tokens_to_ids(token)) for token in found if token is not None))


def _first_mark(tokenizer: Any, text: str) -> tuple[str | None, int]:
    """The first special or added token that is spelled in a text, the longest where several begin, and where."""
    marks = {token.content for token in tokenizer.added_tokens_decoder.values()} | set(tokenizer.all_special_tokens)
    found = [(text.find(mark), -len(mark), mark) for mark in marks if mark.strip() and mark in text]
    position, _, mark = min(found, default=(0, 0, None))
    return mark, position


def _is_dated(tokenizer: Any, parts: bool) -> bool:
    for turns in ([("user", QUESTION)], [("system", SYSTEM), ("user", QUESTION)]):
        messages = messages_of(turns, parts)
        try:
            now, then = (render(tokenizer, messages, generation=True, moment=m) for m in (PINNED, ANOTHER_DAY))
        except DataError:
            continue
        if now != then:
            return True
    return False


def _notes(plain: _Voices, end: str, is_own_end: bool, *, cut: str | None, date: str | None) -> list[Note]:
    notes = []
    opened, header, _ = plain.difference
    if opened or header:
        one, other = both(plain.asked, plain.prompt)
        text = f"the chat template asks with {one} and writes {other} before a finished answer; here all texts have the latter"
        notes.append(Note("template asks differently", text))
    if not is_own_end:
        what = (
            f"{end!r} is put there" if end else "and the tokenizer has no end-of-sequence token: nothing marks the end"
        )
        notes.append(Note("no end of turn", f"the chat template puts no end of turn behind an answer; {what}"))
    if cut is not None:
        text = f"the chat template ends a turn with the text {cut!r}, which is no single token; sampled answers are cut there"
        notes.append(Note("end of turn in words", text))
    if date is not None:
        text = f"the chat template writes today's date or time; {PINNED:%d %b %Y} stands there in all texts instead"
        notes.append(Note("date in the prompt", text))
    return notes
