"""Turns JSON of unknown origin into values, or into an error that says where: what Python's reader lets pass silently is refused.

Refused are a key that occurs twice in one object (Python keeps the last), NaN and infinities, numbers that no float can hold, texts
with half of a surrogate pair (no UTF-8 file can keep them), and nesting deeper than `MAX_DEPTH` (it breaks whatever walks the value).
"""

import json
import math
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from emis_interp.errors import DataError, shown
from emis_interp.files.source_text import MAX_BYTES, ErrorType, numbered_lines, read_text
from emis_interp.files.text import is_unicode

MAX_DEPTH = 100
MAX_DIGITS = 300
"""A float ends at 1.8e308."""

_TOKEN = re.compile(
    r'(?P<space>\s+)|(?P<text>"[^"\\]*(?:\\.[^"\\]*)*")|(?P<mark>[{}\[\],:])|(?P<name>-?Infinity|NaN|true|false|null)'
    r"|(?P<number>-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?)|(?P<stray>.)",
    re.DOTALL,
)
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_KINDS = {dict: "an object", list: "an array", str: "text", bool: "true or false", type(None): "null"}


def read_json(
    path: Path, *, loose: bool = False, halves: bool = False, error: ErrorType = DataError, limit: int = MAX_BYTES
) -> Any:
    """The value of a JSON file, gzipped or not.

    Raises:
        error: the file cannot be read as text (`files.source_text.read_text`), or as `parse_json`.
    """
    return parse_json(read_text(path, error=error, limit=limit), str(path), loose=loose, halves=halves, error=error)


def read_json_object(path: Path, *needed: str, loose: bool = False, error: ErrorType = DataError) -> dict[str, Any]:
    """A JSON file that holds one object with the `needed` keys.

    Raises:
        error: as `read_json`, or another kind of value, or a key that is missing.
    """
    return as_object(read_json(path, loose=loose, error=error), str(path), *needed, error=error)


def read_json_lines(path: Path, *, loose: bool = False, error: ErrorType = DataError) -> Iterator[tuple[int, Any]]:
    """The values of a JSON lines file with their 1-based line numbers; blank lines are skipped.

    Raises:
        error: as `read_json`, with the line.
    """
    for number, line in numbered_lines(path, error=error):
        yield number, parse_json_line(line, f"{path}:{number}", loose=loose, error=error)


def parse_json(
    text: str, where: str, *, loose: bool = False, halves: bool = False, error: ErrorType = DataError
) -> Any:
    """The value of a whole JSON text; errors begin with `where:LINE`.

    Args:
        where: the file.
        loose: for files whose other rows should be read all the same: NaN, Infinity and numbers that no float can hold are taken for the
            floats that Python reads, and halves of surrogate pairs stay.
        halves: halves of surrogate pairs stay, and nothing else is taken: for files of our own, which hold what servers said.

    Raises:
        error: with the place and what was found.
    """
    return _Source(text, where, error, has_lines=True).value(loose, halves or loose)


def parse_json_line(
    line: str, where: str, *, loose: bool = False, halves: bool = False, error: ErrorType = DataError
) -> Any:
    """The value of one line of JSON lines, or of a text that has no lines of its own; errors begin with `where`.

    Args:
        where: file and line.
        loose, halves: as for `parse_json`.

    Raises:
        error: with the column and what was found.
    """
    return _Source(line, where, error, has_lines=False).value(loose, halves or loose)


def as_object(value: Any, where: str, *needed: str, error: ErrorType = DataError) -> dict[str, Any]:
    """`value` when it is an object with the `needed` keys.

    Raises:
        error: another kind of value, or a key that is missing.
    """
    if not isinstance(value, dict):
        raise error(f"{where}: expected an object, found {kind_of(value)}")
    for key in needed:
        if key not in value:
            raise error(f"{where}: key `{key}` is missing; found {listed(value)}")
    return value


def kind_of(value: Any) -> str:
    """What a value of JSON is, in words."""
    return _KINDS.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)


def listed(keys: Collection[Any], most: int = 12) -> str:
    """The keys of an object for an error: `a`, `b` and 3 more, or `nothing`."""
    names = [shown(str(key), 40) for key in list(keys)[:most]]
    return ", ".join(names) + (f" and {len(keys) - most} more" if len(keys) > most else "") if names else "nothing"


class _Refused(Exception):
    """The fast reader met something that is refused; the slow one finds its place."""


@dataclass(frozen=True)
class _Source:
    """A JSON text and what to call it. `has_lines`: places are lines of the text; otherwise columns."""

    text: str
    where: str
    error: ErrorType
    has_lines: bool

    def value(self, loose: bool, halves: bool) -> Any:
        """Read with the fast reader; only what it refuses is looked at again, token by token, for its place."""

        def constant(name: str) -> float:
            if not loose:
                raise _Refused
            return float(name.replace("Infinity", "inf"))

        try:
            value = json.loads(
                self.text,
                object_pairs_hook=_without_twins,
                parse_constant=constant,
                parse_int=_integer,
                parse_float=float if loose else _float,
            )
        except json.JSONDecodeError as problem:
            words = problem.msg if self.text.strip() else "nothing there"
            self.refuse(problem.pos, f"not JSON ({words})", self.advice(problem.pos))
        except RecursionError:
            self.refuse_depth()
        except _Refused:
            self.refuse_first(loose)
        if _is_deep(value):
            self.refuse_depth()
        if not halves and _ESCAPED_SURROGATE.search(self.text):
            for match in self.tokens():
                if match.lastgroup == "text" and not is_unicode(json.loads(match.group())):
                    problem = "a text holds half of a surrogate pair (\\ud800 to \\udfff), which no UTF-8 file can keep"
                    self.refuse(match.start(), problem, "mend the text or drop it")
        return value

    def refuse(self, at: int, problem: str, advice: str = "") -> NoReturn:
        line, column = self.place(at)
        where = f"{self.where}:{line}" if self.has_lines else self.where
        raise self.error(f"{where}: {problem}, column {column}{'; ' + advice if advice else ''}")

    def advice(self, at: int) -> str:
        """What to do about text that is no JSON from `at` on."""
        rest, before = self.text[at:].lstrip(), self.text[:at].rstrip()
        # Since Python 3.13 the place is that of the comma.
        if (before.endswith(",") and rest[:1] in ("}", "]")) or re.match(r",\s*[}\]]", rest):
            return "take out the comma before the bracket"
        if re.fullmatch(r",\s*", rest):
            return "take the comma off the end"
        if rest[:1] == "'":
            return "write texts in double quotes"
        if rest[:4] == "True" or rest[:5] == "False" or rest[:4] == "None":
            return "write true, false and null"
        if not rest and not self.has_lines and before[-1:] in ("{", "[", ","):
            return "write one value a line, without line ends in it"
        if rest[:1] in ("{", "[") and before[-1:] in ("}", "]"):
            return (
                "write every value on a line of its own"
                if not self.has_lines
                else "write one list with commas, or JSON lines"
            )
        return ""

    def refuse_depth(self) -> NoReturn:
        depth, at = 0, 0
        for match in self.tokens():
            depth += (match.group() in ("{", "[")) - (match.group() in ("}", "]"))
            if depth > MAX_DEPTH:
                at = match.start()
                break
        self.refuse(at, f"nested more than {MAX_DEPTH} deep", "flatten it")

    def refuse_first(self, loose: bool) -> NoReturn:
        """Name the first key that occurs twice, constant that is no number, or number that is too large; up to it the text is JSON."""
        seen: list[dict[str, int]] = []  # keys of the open objects; arrays have none
        in_object: list[bool] = []
        is_key = False
        for match in self.tokens():
            token, at = match.group(), match.start()
            if match.lastgroup == "stray":
                self.refuse(at, f"not JSON (unexpected {shown(token)})")
            if token in ("{", "["):
                in_object.append(token == "{")
                seen.append({})
            elif token in ("}", "]"):
                in_object.pop()
                seen.pop()
            elif match.lastgroup == "text" and is_key:
                key = json.loads(token)
                if key in seen[-1]:
                    self.refuse_twin(key, seen[-1][key], at)
                seen[-1][key] = at
            elif token.lstrip("-") in ("NaN", "Infinity"):
                if not loose:
                    self.refuse(at, f"{token} is no number of JSON", "write null for a missing one")
            elif match.lastgroup == "number" and _is_too_large(token, loose):
                problem = f"a number that is too large ({shown(token, 24)}, {len(token):,} characters)"
                self.refuse(at, problem, "write it as text, in quotes, if it is a name")
            is_key = token == "{" or (token == "," and bool(in_object) and in_object[-1])
        self.refuse(0, "not JSON")

    def refuse_twin(self, key: str, first: int, again: int) -> NoReturn:
        (line, column), (line_again, column_again) = self.place(first), self.place(again)
        where = f"{self.where}:{line_again}" if self.has_lines else self.where
        places = (
            f"on lines {line} and {line_again}" if line != line_again else f"in columns {column} and {column_again}"
        )
        raise self.error(f"{where}: key {shown(key)} occurs twice in one object, {places}; keep one of them")

    def tokens(self) -> Iterator[re.Match[str]]:
        return (match for match in _TOKEN.finditer(self.text) if match.lastgroup != "space")

    def place(self, at: int) -> tuple[int, int]:
        """1-based line and column."""
        return self.text.count("\n", 0, at) + 1, at - self.text.rfind("\n", 0, at)


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Refused
    return found


def _integer(token: str) -> int:
    if len(token) > MAX_DIGITS:
        raise _Refused
    return int(token)


def _float(token: str) -> float:
    value = float(token)
    if math.isinf(value):
        raise _Refused
    return value


def _is_too_large(token: str, loose: bool) -> bool:
    is_long = len(token) > MAX_DIGITS and token.lstrip("-").isdigit()
    return is_long or (not loose and math.isinf(float(token)))


def _is_deep(value: Any) -> bool:
    """Whether containers lie in each other more than `MAX_DEPTH` deep."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_DEPTH):
        inner = (item for outer in level for item in (outer.values() if isinstance(outer, dict) else outer))
        level = [item for item in inner if isinstance(item, dict | list)]
        if not level:
            return False
    return True
