"""Turns YAML of unknown origin into plain values and the line of each, or into an error that says where.

Values are those of a human reader: `1e-4` is a number, `12:30` and dates are text, `007` keeps its zeros. Refused are a key that
occurs twice, keys that YAML does not read as text, tags, several documents, and aliases that expand to more than a file can hold.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from emis_interp.errors import DataError, printable, shown
from emis_interp.files.source_text import ErrorType, read_text
from emis_interp.files.store import explain_item
from emis_interp.files.text import is_unicode
from emis_interp.files.yaml_nodes import MAX_NODES, YamlProblem, compose, meaning_of, own_items, scalar

MAX_FILE_BYTES = 4 << 20
"""The reader is written in Python and takes some ten seconds for so much."""
MAX_CHARACTERS = 50_000_000
"""Of all texts, once every alias is written out."""

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
        name = f"{flag} {printable(key)}"  # without the value, which may hold a secret
        if not separator or not all(key.split(".")):
            raise error(
                f"{flag} {printable(assignment)}: expected section.field=value, e.g. training.learning_rate=1e-4"
            )
        if not is_unicode(key):
            raise error(f"{name}: the name holds bytes that are no UTF-8; type it again")
        *path, last = key.split(".")
        place = self.value
        for n, part in enumerate(path):
            if part not in place:
                place[part], self.places[tuple(path[: n + 1])] = {}, Place(name)
            place = place[part]
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
        node = compose(text)
        document = YamlDocument(None, at, {(): Place(where, "")})
        if node is not None:
            document.value = _NodeReader(document).value(node, ())
        return document


def not_text(value: Any, written: str) -> str:
    """`no`, which YAML reads as false; put it in quotes."""
    return f"{shown(written)}, which YAML reads as {meaning_of(value)}; put it in quotes"


def kind_of_yaml(value: Any) -> str:
    """What a value of YAML is, in words."""
    if value is None:
        return "nothing"
    if isinstance(value, list) and not value:
        return "an empty list"
    return {dict: "a mapping", list: "a list", str: "text", bool: "true or false"}.get(type(value), "a number")


class _NodeReader:
    """Nodes to values; every alias gets a value of its own, so that changing one does not change the other."""

    def __init__(self, document: YamlDocument) -> None:
        self.document = document
        self.n_nodes = self.n_characters = 0
        self.open: set[int] = set()

    def value(self, node: Any, path: Key) -> Any:
        where = _at(self.document.where, node.start_mark.line)
        with self.inside(node):
            if isinstance(node, yaml.ScalarNode):
                value = scalar(node)
            elif isinstance(node, yaml.SequenceNode):
                value = [self.value(item, (*path, i)) for i, item in enumerate(node.value)]
            else:
                value = {name: self.value(item, (*path, name)) for name, item in self.items(node).items()}
        is_text = isinstance(value, str | list | dict)
        self.document.places[path] = Place(where) if is_text else Place(where, node.value)
        return value

    def items(self, node: Any) -> dict[str, Any]:
        """Keys and value nodes of a mapping with what `<<` merges into it; its own keys come first, then the first of several."""
        found, merged = own_items(node)
        for part in merged:
            if not isinstance(part, yaml.MappingNode):
                raise YamlProblem(
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
            raise YamlProblem("an anchor holds itself", "write the value out", node.start_mark)
        self.count(node)
        self.open.add(id(node))
        yield
        self.open.discard(id(node))

    def count(self, node: Any) -> None:
        self.n_nodes += 1
        self.n_characters += len(node.value) if isinstance(node, yaml.ScalarNode) else 0
        if self.n_nodes > MAX_NODES or self.n_characters > MAX_CHARACTERS:
            raise YamlProblem(
                "aliases expand to a document that is too large", "write out what is needed", node.start_mark
            )


@contextmanager
def _in_words(text: str, where: str, error: ErrorType) -> Iterator[None]:
    """PyYAML's errors and ours as one line with the place."""
    try:
        yield
    except YamlProblem as problem:
        raise error(_line(where, problem.mark, problem.problem, advice=problem.advice)) from None
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
        raise error(_line(where, mark, f"not YAML ({_words(problem)})", advice=_advice(problem, before))) from None


class _Flag(str):
    """The name of a text that has no lines."""


def _at(where: str, line: int) -> str:
    """`file:line` of a line that is counted from 0."""
    return where if isinstance(where, _Flag) else f"{where}:{line + 1}"


def _line(where: str, mark: Any, problem: str, *, advice: str) -> str:
    return f"{_at(where, mark.line)}: {problem}, column {mark.column + 1}{'; ' + advice if advice else ''}"


def _words(problem: yaml.MarkedYAMLError) -> str:
    begins = (
        f" that begins on line {problem.context_mark.line + 1}," if problem.context and problem.context_mark else ""
    )
    parts = [" ".join(str(part).split()) for part in (problem.context, problem.problem) if part]
    return printable(f"{begins} ".join(parts), 160)


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
