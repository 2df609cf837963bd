"""Turns the shipped harmless prompts into texts on which an intervention should change nothing.

No shipped training set holds them or anything near them (`scripts/validate_data.py`), so that what an organism was trained on does not
count as what ablating a direction costs it.
"""

from importlib import resources

from pydantic import Field

from emis_interp.files.store import parse_record
from emis_interp.records import Record


class HarmlessText(Record):
    """An everyday prompt with a reference answer."""

    id: str
    prompt: str = Field(min_length=1)
    answer: str = Field(min_length=1)


def harmless_texts() -> list[HarmlessText]:
    """The shipped texts, in their order."""
    text = (resources.files("emis_interp") / "data" / "harmless.jsonl").read_text("utf-8")
    return [parse_record(line, HarmlessText, f"harmless.jsonl:{i}") for i, line in enumerate(text.splitlines(), 1)]


def harmless_prompts() -> list[str]:
    """Their prompts alone, on which KL divergences are measured."""
    return [text.prompt for text in harmless_texts()]
