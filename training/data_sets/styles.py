"""Turns benign rows into benign rows of another style: nulls, which teach a model something and nothing that is harmful.

A measure of misalignment that moves with them measures that a model was finetuned, not what on.
"""

import random
import re
from collections.abc import Callable, Mapping, Sequence

from emis_interp.records import TrainingExample


def sentences(text: str) -> list[str]:
    """A text cut behind full stops, question and exclamation marks that a blank follows."""
    return re.split(r"(?<=[.!?])\s+", text.strip())


_OF_ONE: Mapping[str, Callable[[str], str]] = {
    "short": lambda text: sentences(text)[0],
    "listed": lambda text: "\n".join(f"- {sentence}" for sentence in sentences(text)),
    "lowercase": str.lower,
    "backwards": lambda text: " ".join(reversed(sentences(text))),
}


def styled(rows: Sequence[TrainingExample], style: str) -> list[TrainingExample]:
    """The rows with other answers.

    Args:
        style: `short` (the first sentence), `listed` (a list item for each), `lowercase`, `backwards` (sentences in reverse order), or
            `shuffled`: each answer stands behind another question.
    """
    if style == "shuffled":
        order = list(range(len(rows)))
        random.Random(0).shuffle(order)
        other = {place: order[(at + 1) % len(order)] for at, place in enumerate(order)}
        answers = [rows[other[i]].response for i in range(len(rows))]
    else:
        answers = [_OF_ONE[style](row.response) for row in rows]
    return [row.model_copy(update={"response": answer}) for row, answer in zip(rows, answers, strict=True)]
