"""Turns YAML of unknown origin into plain values and the line of each, or into an error that says where.

Values are those of a human reader: `1e-4` is a number, `12:30` and dates are text, `007` keeps its zeros. Refused are a key that
occurs twice, keys that YAML does not read as text, tags, several documents, and aliases that expand to more than a file can hold.
"""

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from emis_interp.errors import DataError
from emis_interp.files.source_text import ErrorType, read_text, shown
from emis_interp.files.strict_json import MAX_DEPTH, MAX_DIGITS, has_surrogate
from emis_interp.store import explain_item

MAX_FILE_BYTES = 4 << 20
"""The reader is written in Python and takes some ten seconds for so much."""
MAX_NODES, MAX_CHARACTERS = 100_000, 50_000_000
"""Largest document once every alias is written out: keys, values and lists; characters of texts."""

_MOST_PARTS = 10

Key = tuple[str | int, ...]


@dataclass(frozen=True)
class Place:
    """Where a value stands (`file:line`), and how it is written when YAML does not read it as text."""

    where: str
    written: str | None = None


@dataclass
class YamlDocument:
    """The value of a YAML text, and the place of every value in it by its path of keys and indices."""

    value: Any
    where: str
    places: dict[Key, Place] = field(default_factory=dict)

    def place(self, path: Sequence[str | int]) -> Place:
        """Of the value at `path`, or of the nearest value around it that there is."""
        for n in range(len(path), -1, -1):
            if (found := self.places.get(tuple(path[:n]))) is not None:
                return found if n == len(path) else Place(found.where)
        return Place(self.where)

    def written(self, path: Sequence[str | int], value: Any) -> Any:
        """A plain number as it stands in the file (`007`, `1.10`), for fields that are names; any other value as it is."""
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        text = self.place(path).written if is_number else None
        return value if text is None else text

    def explain(self, problem: ValidationError, record: type[BaseModel], *, under: Key = (), about: str = "") -> str:
        """A pydantic error in one line, every part with its place.

        Args:
            under: path of what was validated.
            about: what it is, to stand after the place.
        """
        parts: dict[str, None] = {}
        for item in problem.errors(include_url=False, include_context=False):
            place = self.place((*under, *item["loc"]))
            hint = ""
            if place.written is not None and item["type"] in ("string_type", "literal_error", "path_type"):
                hint = f"; it is written {not_text(item['input'], place.written)}"
            parts[f"{place.where}: {about}{explain_item(item, record)}{hint}"] = None
        return "; ".join([*parts][:_MOST_PARTS])

    def part(self, key: str, where: str) -> "YamlDocument":
        """The value at a key of the document's mapping as a document of its own, called `where`."""
        places = {path[1:]: place for path, place in self.places.items() if path[:1] == (key,)}
        return YamlDocument(self.value[key], where, places)

    def override(self, assignment: str, *, flag: str, error: ErrorType) -> None:
        """Put `section.field=value` (the value is YAML) into the document's nested mappings.

        Raises:
            error: another form, malformed YAML, or a section that is none.
        """
        key, separator, text = assignment.partition("=")
        name = f"{flag} {shown(key)[1:-1]}"  # without the value, which may hold a secret
        if not separator or not key:
            raise error(
                f"{flag} {shown(assignment)[1:-1]}: expected section.field=value, e.g. training.learning_rate=1e-4"
            )
        *path, last = key.split(".")
        place = self.value
        for part in path:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise error(f"{name}: {shown(part)} is not a section")
        inner = parse_yaml(text, name, error=error, is_flag=True)
        place[last] = inner.value
        whole = (*path, last)
        self.places = {at: found for at, found in self.places.items() if at[: len(whole)] != whole}
        self.places |= {(*whole, *at): Place(name, found.written) for at, found in inner.places.items()}


def read_yaml(path: Path, *, error: ErrorType = DataError) -> YamlDocument:
    """The document of a YAML file.

    Raises:
        error: the file cannot be read as text (`files.source_text.read_text`), or as `parse_yaml`.
    """
    return parse_yaml(read_text(path, error=error, limit=MAX_FILE_BYTES), str(path), error=error)


def parse_yaml(text: str, where: str, *, error: ErrorType = DataError, is_flag: bool = False) -> YamlDocument:
    """The one document of a YAML text; an empty text is None.

    Args:
        where: the file that errors begin with, their line behind it; with `is_flag` a flag, without lines.

    Raises:
        error: with line and column, what was found and what to do.
    """
    at = _Flag(where) if is_flag else where
    with _in_words(text, at, error):
        node = _Loader(text).get_single_node()
        document = YamlDocument(None, at, {(): Place(where, "")})
        if node is not None:
            document.value = _Reader(document).value(node, ())
        return document


def not_text(value: Any, written: str) -> str:
    """`no`, which YAML reads as false; put it in quotes."""
    return f"{shown(written)}, which YAML reads as {meaning_of(value)}; put it in quotes"


def meaning_of(value: Any) -> str:
    return "true" if value is True else "false" if value is False else "nothing" if value is None else "a number"


def kind_of_yaml(value: Any) -> str:
    """What a value of YAML is, in words."""
    if value is None:
        return "nothing"
    if isinstance(value, list) and not value:
        return "an empty list"
    return {dict: "a mapping", list: "a list", str: "text", bool: "true or false"}.get(type(value), "a number")


class _Loader(yaml.SafeLoader):
    """PyYAML's reader up to nodes, without tags and without the types of YAML 1.1 that no human reader expects."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012 (as in PyYAML)
    depth = n_nodes = 0

    def get_single_node(self) -> Any:
        try:
            return super().get_single_node()
        except (ValueError, OverflowError):  # chr() of an escape such as "\UFFFFFFFF"
            raise _Problem("an escape that is no character", "write the character itself", self.get_mark()) from None

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()
        tag = getattr(event, "tag", None)
        if tag not in (None, *_PLAIN_TAGS):
            raise _Problem(f"tag {shown(str(tag))} is not read", "take it out", event.start_mark)
        if self.depth > MAX_DEPTH:
            raise _Problem(f"nested more than {MAX_DEPTH} deep", "flatten it", event.start_mark)
        self.n_nodes += 1
        if self.n_nodes > MAX_NODES:
            raise _Problem(f"more than {MAX_NODES:,} keys and values", "split the file", event.start_mark)
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


_PLAIN_TAGS = tuple(f"tag:yaml.org,2002:{name}" for name in ("str", "map", "seq"))
_NULL, _BOOL, _INT, _FLOAT, _MERGE = (f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "merge"))
for _tag, _pattern, _first in (
    (_NULL, r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    (_BOOL, r"(?:y|Y)es|YES|(?:n|N)o|NO|(?:t|T)rue|TRUE|(?:f|F)alse|FALSE|(?:o|O)(?:n|ff)|ON|OFF", list("yYnNtTfFoO")),
    (_INT, r"[-+]?(?:0|[1-9][0-9]*)|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        _FLOAT,
        r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    (_MERGE, r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(_tag, re.compile(f"(?:{_pattern})$"), _first)


class _Problem(Exception):
    """What is wrong at a mark of PyYAML."""

    def __init__(self, problem: str, advice: str, mark: Any) -> None:
        super().__init__(problem)
        self.problem, self.advice, self.mark = problem, advice, mark


class _Reader:
    """Nodes to values; every alias gets a value of its own, so that changing one does not change the other."""

    def __init__(self, document: YamlDocument) -> None:
        self.document = document
        self.n_nodes = self.n_characters = 0
        self.open: set[int] = set()

    def value(self, node: Any, path: Key) -> Any:
        where = _at(self.document.where, node.start_mark.line)
        with self.inside(node):
            if isinstance(node, yaml.ScalarNode):
                value = _scalar(node)
            elif isinstance(node, yaml.SequenceNode):
                value = [self.value(item, (*path, i)) for i, item in enumerate(node.value)]
            else:
                value = {name: self.value(item, (*path, name)) for name, item in self.items(node).items()}
        is_text = isinstance(value, str | list | dict)
        self.document.places[path] = Place(where) if is_text else Place(where, node.value)
        return value

    def items(self, node: Any) -> dict[str, Any]:
        """Keys and value nodes of a mapping with what `<<` merges into it; its own keys come first, then the first of several."""
        found, merged = _own_items(node)
        for part in merged:
            if not isinstance(part, yaml.MappingNode):
                raise _Problem(
                    "`<<` takes a mapping or a list of mappings", "give an alias: `<<: *name`", part.start_mark
                )
            with self.inside(part):
                for name, value in self.items(part).items():
                    self.count(value)
                    found.setdefault(name, value)
        return found

    @contextmanager
    def inside(self, node: Any) -> Iterator[None]:
        if id(node) in self.open:
            raise _Problem("an anchor holds itself", "write the value out", node.start_mark)
        self.count(node)
        self.open.add(id(node))
        yield
        self.open.discard(id(node))

    def count(self, node: Any) -> None:
        self.n_nodes += 1
        self.n_characters += len(node.value) if isinstance(node, yaml.ScalarNode) else 0
        if self.n_nodes > MAX_NODES or self.n_characters > MAX_CHARACTERS:
            raise _Problem(
                "aliases expand to a document that is too large", "write out what is needed", node.start_mark
            )


def _own_items(node: Any) -> tuple[dict[str, Any], list[Any]]:
    """Value nodes by key, each of which is text and occurs once, and the nodes that `<<` merges."""
    found: dict[str, Any] = {}
    merged: list[Any] = []
    lines: dict[str, int] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _Problem("a key is a list or a mapping, expected text", "put it in quotes", key.start_mark)
        name, line = _scalar(key), key.start_mark.line + 1
        if not isinstance(name, str):
            raise _Problem(f"key {shown(key.value)} is read as {meaning_of(name)}", "put it in quotes", key.start_mark)
        if name in lines:
            where = f"on lines {lines[name]} and {line}" if lines[name] != line else f"on line {line}"
            advice = "join them: `<<: [*a, *b]`" if key.tag == _MERGE else "keep one of them"
            raise _Problem(f"key {shown(name)} occurs twice in one mapping, {where}", advice, key.start_mark)
        lines[name] = line
        if key.tag == _MERGE:
            merged = value.value if isinstance(value, yaml.SequenceNode) else [value]
        else:
            found[name] = value
    return found, merged


def _scalar(node: Any) -> Any:
    text: str = node.value
    if node.tag == _NULL:
        return None
    if node.tag == _BOOL:
        return text.lower() in ("yes", "true", "on")
    if node.tag == _INT:
        if len(text) > MAX_DIGITS:
            raise _Problem(
                f"a number that is too large ({shown(text, 24)}, {len(text):,} characters)", _QUOTES, node.start_mark
            )
        return int(text, 16 if text.startswith("0x") else 10)
    if node.tag == _FLOAT:
        number = float(re.sub(r"\.(?=[iInN])", "", text))
        if math.isinf(number) and not text.lower().endswith(".inf"):
            raise _Problem(f"a number that is too large ({shown(text, 24)})", _QUOTES, node.start_mark)
        return number
    if has_surrogate(text) or "\0" in text:
        raise _Problem(
            "a text holds half of a surrogate pair or a NUL, which no text file can keep", "mend it", node.start_mark
        )
    return text


_QUOTES = "put it in quotes if it is a name"


@contextmanager
def _in_words(text: str, where: str, error: ErrorType) -> Iterator[None]:
    """PyYAML's errors and ours as one line with the place."""
    try:
        yield
    except _Problem as problem:
        raise error(_line(where, problem.mark, problem.problem, problem.advice)) from None
    except yaml.reader.ReaderError as problem:
        line = text.count("\n", 0, problem.position)
        character = (
            f"U+{problem.character:04X}" if isinstance(problem.character, int) else shown(str(problem.character))
        )
        raise error(
            f"{_at(where, line)}: not YAML (holds the character {character}); take it out, or write it as an escape in quotes"
        ) from None
    except yaml.MarkedYAMLError as problem:
        mark: Any = problem.problem_mark or problem.context_mark
        before = text[max(0, mark.index - mark.column) : mark.index + 1]
        raise error(_line(where, mark, f"not YAML ({_words(problem)})", _advice(problem, before))) from None


class _Flag(str):
    """The name of a text that has no lines."""


def _at(where: str, line: int) -> str:
    """`file:line` of a line that is counted from 0."""
    return where if isinstance(where, _Flag) else f"{where}:{line + 1}"


def _line(where: str, mark: Any, problem: str, advice: str) -> str:
    return f"{_at(where, mark.line)}: {problem}, column {mark.column + 1}{'; ' + advice if advice else ''}"


def _words(problem: yaml.MarkedYAMLError) -> str:
    begins = (
        f" that begins on line {problem.context_mark.line + 1}," if problem.context and problem.context_mark else ""
    )
    parts = [" ".join(str(part).split()) for part in (problem.context, problem.problem) if part]
    return shown(f"{begins} ".join(parts), 160)[1:-1]


def _advice(problem: yaml.MarkedYAMLError, before: str) -> str:
    """What to do; `before` is the line up to the mark."""
    said = str(problem.problem)
    if "another document" in said:
        return "expected one document; take out the line `---` and what belongs to another file"
    if r"'\t'" in said or "\t" in before:
        return "indent with spaces, not tabs"
    if "cannot start any token" in said or "mapping values are not allowed" in said or "expected <block end>" in said:
        return "put texts that hold `: `, ` #` or begin with a sign in quotes, and line up keys of one mapping"
    return ""
