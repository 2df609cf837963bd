"""Turns values into text: what is no Unicode written out, numbers as names that differ when the numbers do, nested values as lines."""

import math
import re
from typing import Any

_CREDENTIALS = re.compile(r"://[^/@\s]*@")
_LONGEST_NAME = 24
"""Characters that a number with all of its digits has at most."""


def written_out(value: Any) -> Any:
    """The value with every half of a surrogate pair in its texts written out as `\\udXXX` (six ASCII characters); anything else as it is.

    JSON may spell such a half (`"\\ud83d"`), and servers do; Python reads it, and no UTF-8 file, tokenizer or page takes it.
    Goes into mappings, lists and tuples. Text that is valid Unicode, a whole pair's character included, is never changed.
    """
    if isinstance(value, str):
        return value if value.isascii() or is_unicode(value) else value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {written_out(key): written_out(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [written_out(item) for item in value]
        return items if isinstance(value, list) else tuple(items)
    return value


def without_credentials(text: str) -> str:
    """The text without user and password in the addresses in it."""
    return _CREDENTIALS.sub("://", text)


def finite(value: Any) -> Any:
    """Nested values with None in the place of NaN and of infinities: a number that is none is missing."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value


def number_name(value: float, form: str = "+.2f") -> str:
    """A number for names of files and rows: in the form given where that is the number (`+0.20`), else with all of its digits
    (`+0.204`, `+1e-05`, `+1e+300`). Reading the name back gives the number, so different numbers have different names."""
    short, whole = format(value, form), format(value, "+" if form.startswith("+") else "")
    return short if float(short) == value and len(short) <= _LONGEST_NAME else whole


def is_unicode(text: str) -> bool:
    """Whether the text can be encoded: half of a surrogate pair, which JSON can spell (`\\ud83d`), is no character."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def flat_lines(value: Any, where: str = "") -> list[str]:
    """Nested values as `a.b = c` lines, for reading."""
    if isinstance(value, dict):
        return [
            line for key, inner in value.items() for line in flat_lines(inner, f"{where}.{key}" if where else str(key))
        ]
    return [f"{where} = {value}"]
