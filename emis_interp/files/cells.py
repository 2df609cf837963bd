"""Turns one cell of a table into a score, a label, a name, a text or a plain value, and says where it cannot: the one reader of cells.

number        85, " 85 ", 85.0, +85, 8.5e1, 85/100, 85%     a decimal point, ASCII digits
label         CODE, REFUSAL, in any case
nothing       an empty cell, nan, none, null, na, n/a, <na>, #n/a, in any case
refused       true, inf, 8_5, 85,5, 0x55, ANSWER: 85, eighty, fullwidth digits, and everything else
"""

import json
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from emis_interp.errors import DataError
from emis_interp.files.text import is_unicode
from emis_interp.records import LABELS

Scalar = str | int | float | bool | None

_MISSING = ("", "nan", "-nan", "none", "null", "na", "n/a", "<na>", "#n/a")
_NUMBER = re.compile(r"([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)(\s*/\s*100|\s*%)?")
_HINTS = (
    (re.compile(r"(true|false)", re.IGNORECASE), "true and false are no scores: give a column of numbers"),
    (re.compile(r"[+-]?[0-9]+,[0-9]+"), "write a decimal point"),
    (re.compile(r"[+-]?[0-9.]+\s*/\s*[0-9.]+"), "write the number alone, and give its scale with --scale"),
)


class Number(NamedTuple):
    """What a cell of scores says. `value` is NaN where there is no number; `out_of_100`: written as `85/100` or `85%`."""

    value: float
    label: str = ""
    out_of_100: bool = False


def read_number(cell: Any, where: str) -> Number:
    """A finite number of any scale, a label, or nothing; `where` names file, row and column for the error.

    Raises:
        DataError: neither.
    """
    if is_missing(cell):
        return Number(math.nan)
    text = read_text(cell).strip()
    if text.upper() in LABELS:
        return Number(math.nan, text.upper())
    match = None if isinstance(cell, bool) else _NUMBER.fullmatch(text)
    value = float(match[1]) if match else math.inf
    if match is None or not math.isfinite(value):
        hint = next((f"; {advice}" for pattern, advice in _HINTS if pattern.fullmatch(text)), "")
        raise DataError(f"{where}: found {short(text)}, expected a number, {', '.join(LABELS)}, or an empty cell{hint}")
    return Number(value + 0.0, out_of_100=bool(match[2]))  # -0.0 becomes 0.0


def read_label(cell: Any, where: str) -> str:
    """CODE, REFUSAL or "".

    Raises:
        DataError: another text.
    """
    if is_missing(cell):
        return ""
    if not is_label(cell):
        raise DataError(f"{where}: found {short(read_text(cell))}, expected {' or '.join(LABELS)}, or an empty cell")
    return read_text(cell).strip().upper()


def read_name(cell: Any, where: str) -> str:
    """A name of a run or question.

    Raises:
        DataError: it is empty, is a list or a mapping, or holds what no name can (a zero character, half of a surrogate pair).
    """
    text = read_text(cell)
    if not text.strip():
        raise DataError(f"{where}: is empty, expected a name")
    if isinstance(cell, (list, tuple, Mapping, bytes)):
        raise DataError(f"{where}: is a {type(cell).__name__}, expected a name")
    if "\0" in text or not is_unicode(text):
        raise DataError(f"{where}: found {short(text)}, expected a name without zero characters and lone surrogates")
    return text


def read_text(cell: Any) -> str:
    """The cell as text; "" when it is missing."""
    return "" if cell is None or (isinstance(cell, float) and math.isnan(cell)) else str(cell)


def read_scalar(cell: Any) -> Scalar:
    """One form for a cell whether it comes from a typed file or from text: a number only where it prints as the same text."""
    if cell is None or isinstance(cell, bool):
        return cell
    if isinstance(cell, list | tuple | Mapping):
        return json.dumps(cell, ensure_ascii=False, default=str)
    text = read_text(cell)
    if text in ("", "True", "False"):
        return {"": None, "True": True, "False": False}[text]
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        if str(number) == text and math.isfinite(number):
            return number
    return text


def is_missing(cell: Any) -> bool:
    """Empty, or one of the words with which tables write "no value"."""
    return cell is None or read_text(cell).strip().lower() in _MISSING


def is_label(cell: Any) -> bool:
    return read_text(cell).strip().upper() in LABELS


def short(text: str) -> str:
    """A text for an error message: at most 40 characters, quoted; what cannot be printed is escaped."""
    return repr(text if len(text) <= 40 else text[:39] + "…")
