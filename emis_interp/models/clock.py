"""Turns a chat template that writes today's date into one that writes the same date every day.

Templates read the clock through `strftime_now`, which transformers puts into their environment. A macro of that name before the template
takes its place, for whoever renders it and wherever it is saved, so that training, sampling and reading on different days send one text.
"""

import json
from datetime import datetime
from functools import lru_cache

PINNED = datetime(2024, 7, 26)
"""The date on which Llama 3.1's and 3.2's templates fall back where there is no clock."""

_DIRECTIVES = "aAwdbBmyYHIMSfjUWcxXpeFTDRGVuhCklrgzZ"
_CALL = "strftime_now"


@lru_cache(maxsize=64)
def with_clock(template: str, moment: datetime = PINNED) -> str:
    """The template with its clock stopped at `moment`; unchanged when it reads none."""
    pinned = _clock(PINNED)
    if pinned in template:
        return template if moment == PINNED else template.replace(pinned, _clock(moment))
    return _clock(moment) + template if _CALL in template else template


@lru_cache(maxsize=8)
def _clock(moment: datetime) -> str:
    """The macro. The line break behind it is the one that `trim_blocks` takes, so that the template still begins a line."""
    steps = [("%%", "\x00"), ("%n", "\n"), ("%t", "\t")]
    for letter in _DIRECTIVES:
        value = moment.strftime(f"%{letter}")
        steps += [(f"%{letter}", value), (f"%-{letter}", value.lstrip("0 ") or "0")]
    steps.append(("\x00", "%"))
    table = json.dumps(steps)  # lists of texts are jinja literals too
    return (
        f"{{% macro {_CALL}(format) %}}{{% set made = namespace(text=format) %}}{{% for directive, value in {table} %}}"
        "{% set made.text = made.text.replace(directive, value) %}{% endfor %}{{ made.text }}{% endmacro %}\n"
    )
