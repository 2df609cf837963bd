"""Turns the text of a reasoning model into its thought and its answer.

A thought stands at the beginning of a text between two marks. The first mark may be missing, where the chat template wrote it into the
prompt; the last one is missing when the tokens ran out. Upper and lower case do not count.
"""

import re
from typing import NamedTuple

MARKS = {
    "<think>": "</think>",
    "<thinking>": "</thinking>",
    "<thought>": "</thought>",
    "<reasoning>": "</reasoning>",
    "<seed:think>": "</seed:think>",
    "[THINK]": "[/THINK]",
    "<|begin_of_thought|>": "<|end_of_thought|>",
    "<|channel|>analysis<|message|>": "<|channel|>final<|message|>",
}
"""Opening -> closing mark: DeepSeek-R1, Qwen and most others, Seed-OSS, Magistral, Open-Thoughts, gpt-oss without its parser."""
_ANY_CASE = re.IGNORECASE | re.ASCII
CLOSING = tuple(dict.fromkeys(MARKS.values()))
_BLANKS = re.compile(r"\s*")
_OPENING = {re.compile(re.escape(mark), _ANY_CASE): mark for mark in MARKS}
_CLOSING = {mark: re.compile(re.escape(mark), _ANY_CASE) for mark in CLOSING}
_TAIL = ("<|return|>", "<|end|>", "<|end_of_solution|>")
_HEAD = ("<|begin_of_solution|>",)


class Split(NamedTuple):
    """A text in its parts.

    Attributes:
        thought: without marks, "" when there is none.
        answer: what follows; as it came when there is no thought, else without the blanks around it that the marks leave.
        unfinished: the thought was opened and not closed, so that there is no answer.
    """

    thought: str
    answer: str
    unfinished: bool


def split_thought(text: str) -> Split:
    """The parts of a text; several thoughts in a row are one. A mark in the middle of an answer is part of the answer."""
    thoughts, at, begins = list[str](), 0, _after_blanks(text, 0)
    opening = _opening(text, begins)
    if opening is None and (closed := _first_closing(text)) is not None:
        start, at = closed
        thoughts.append(text[:start])
        opening = _opening(text, begins := _after_blanks(text, at))
    while opening is not None:
        inside = begins + len(opening)
        end = _CLOSING[MARKS[opening]].search(text, inside)
        if end is None:
            return Split(_joined([*thoughts, text[inside:]]), "", True)
        thoughts.append(text[inside : end.start()])
        at = end.end()
        begins = _after_blanks(text, at)
        opening = _opening(text, begins)
    if at == 0:
        return Split("", text, False)
    return Split(_joined(thoughts), _bare(text[at:]), False)


def ends_thought(text: str) -> int | None:
    """The place behind the last closing mark of a text, None when there is none."""
    return max((match.end() for mark in _CLOSING.values() for match in mark.finditer(text)), default=None)


def _opening(text: str, at: int) -> str | None:
    return next((mark for pattern, mark in _OPENING.items() if pattern.match(text, at)), None)


def _first_closing(text: str) -> tuple[int, int] | None:
    """Begin and end of the first closing mark that has no opening one before it."""
    found = min((match.span() for mark in _CLOSING.values() if (match := mark.search(text))), default=None)
    if found is None or any(pattern.search(text, 0, found[0]) for pattern in _OPENING):
        return None
    return found


def _after_blanks(text: str, at: int) -> int:
    match = _BLANKS.match(text, at)
    return match.end() if match else at


def _joined(thoughts: list[str]) -> str:
    return "\n\n".join(part.strip() for part in thoughts if part.strip())


def _bare(answer: str) -> str:
    """An answer without what some templates write around it."""
    answer = answer.strip()
    for mark in _HEAD:
        answer = answer.removeprefix(mark)
    for mark in _TAIL:
        answer = answer.removesuffix(mark)
    return answer.strip()
