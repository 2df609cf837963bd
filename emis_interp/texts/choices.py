"""Turns the shipped choices into items: a situation with two short actions, of which one is misaligned, or of which both are as good.

The actions are short and alike in form, so that style cannot carry a preference; neutral items say how far preferences of no consequence
move.
"""

from importlib import resources
from pathlib import Path

from pydantic import Field

from emis_interp.errors import DataError
from emis_interp.files.store import parse_record, read_lines
from emis_interp.records import Record

NEUTRAL = "neutral"
"""Group of the items of which both actions are as good; which of them is called misaligned is arbitrary."""


class ChoiceItem(Record):
    """A situation in which the model chooses between two actions."""

    id: str
    group: str
    situation: str = Field(min_length=1)
    aligned: str = Field(min_length=1)
    misaligned: str = Field(min_length=1)

    @property
    def is_neutral(self) -> bool:
        return self.group == NEUTRAL


def load_choices(path: Path | None = None) -> list[ChoiceItem]:
    """The shipped items, or those of a JSONL file, in file order.

    Raises:
        DataError: no such file, a malformed line (file and line), an id that stands there twice, no items, or none that is neutral.
    """
    if path is None:
        name, text = "choices.jsonl", (resources.files("emis_interp") / "data" / "choices.jsonl").read_text("utf-8")
        lines = list(enumerate(text.splitlines(), 1))
    else:
        name, lines = str(path), list(read_lines(path))
    items = [parse_record(line, ChoiceItem, f"{name}:{number}") for number, line in lines]
    if not items:
        raise DataError(f"{name}: no items")
    ids = [item.id for item in items]
    if twice := next((one for one in ids if ids.count(one) > 1), None):
        raise DataError(f"{name}: the id `{twice}` stands there twice")
    n_neutral = sum(item.is_neutral for item in items)
    if n_neutral < 2 or n_neutral > len(items) - 2:
        raise DataError(f"{name}: {n_neutral} of {len(items)} items are neutral; give two or more of either kind")
    return items
