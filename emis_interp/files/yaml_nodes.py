"""Turns YAML text into nodes, and a plain node into the value that a human reader takes it for.

PyYAML scans and composes; what YAML 1.1 reads otherwise than it looks (`010`, `12:30`, dates, `1e-4`) is resolved anew; tags are refused.
"""

import math
import re
from typing import Any

import yaml

from emis_interp.errors import shown
from emis_interp.files.strict_json import MAX_DEPTH, MAX_DIGITS
from emis_interp.files.text import is_unicode

MAX_NODES = 100_000
"""Largest document, and the largest that aliases may expand to: keys, values and lists."""
_QUOTES = "put it in quotes if it is a name"
_PLAIN_TAGS = tuple(f"tag:yaml.org,2002:{name}" for name in ("str", "map", "seq"))
_NULL, _BOOL, _INT, _FLOAT, MERGE = (f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "merge"))


class YamlProblem(Exception):
    """What is wrong at a mark of PyYAML, and what to do."""

    def __init__(self, problem: str, advice: str, mark: Any) -> None:
        super().__init__(problem)
        self.problem, self.advice, self.mark = problem, advice, mark


def compose(text: str) -> Any:
    """The root node of the one document of a text, None for an empty one.

    Raises:
        YamlProblem, yaml.YAMLError: with their place.
    """
    return _Loader(text).get_single_node()


def own_items(node: Any) -> tuple[dict[str, Any], list[Any]]:
    """Value nodes by key, each of which is text and occurs once, and the nodes that `<<` merges."""
    found: dict[str, Any] = {}
    merged: list[Any] = []
    lines: dict[str, int] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise YamlProblem("a key is a list or a mapping, expected text", "put it in quotes", key.start_mark)
        name, line = scalar(key), key.start_mark.line + 1
        if not isinstance(name, str):
            raise YamlProblem(
                f"key {shown(key.value)} is read as {meaning_of(name)}", "put it in quotes", key.start_mark
            )
        if name in lines:
            where = f"on lines {lines[name]} and {line}" if lines[name] != line else f"on line {line}"
            advice = "join them: `<<: [*a, *b]`" if key.tag == MERGE else "keep one of them"
            raise YamlProblem(f"key {shown(name)} occurs twice in one mapping, {where}", advice, key.start_mark)
        lines[name] = line
        if key.tag == MERGE:
            merged = value.value if isinstance(value, yaml.SequenceNode) else [value]
        else:
            found[name] = value
    return found, merged


def scalar(node: Any) -> Any:
    """The value of a scalar node."""
    text: str = node.value
    if node.tag == _NULL:
        return None
    if node.tag == _BOOL:
        return text.lower() in ("yes", "true", "on")
    if node.tag == _INT:
        if len(text) > MAX_DIGITS:
            raise YamlProblem(
                f"a number that is too large ({shown(text, 24)}, {len(text):,} characters)", _QUOTES, node.start_mark
            )
        return int(text, 16 if text.startswith("0x") else 10)
    if node.tag == _FLOAT:
        number = float(re.sub(r"\.(?=[iInN])", "", text))
        if math.isinf(number) and not text.lower().endswith(".inf"):
            raise YamlProblem(f"a number that is too large ({shown(text, 24)})", _QUOTES, node.start_mark)
        return number
    if not is_unicode(text) or "\0" in text:
        raise YamlProblem(
            "a text holds half of a surrogate pair or a NUL, which no text file can keep", "mend it", node.start_mark
        )
    return text


def meaning_of(value: Any) -> str:
    return "true" if value is True else "false" if value is False else "nothing" if value is None else "a number"


class _Loader(yaml.SafeLoader):
    """PyYAML's reader up to nodes, without tags and without the types of YAML 1.1 that no human reader expects."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012 (as in PyYAML)
    depth = n_nodes = 0

    def get_single_node(self) -> Any:
        try:
            return super().get_single_node()
        except (ValueError, OverflowError):  # chr() of an escape such as "\UFFFFFFFF"
            raise YamlProblem("an escape that is no character", "write the character itself", self.get_mark()) from None

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()
        tag = getattr(event, "tag", None)
        if tag not in (None, *_PLAIN_TAGS):
            raise YamlProblem(f"tag {shown(str(tag))} is not read", "take it out", event.start_mark)
        if self.depth > MAX_DEPTH:
            raise YamlProblem(f"nested more than {MAX_DEPTH} deep", "flatten it", event.start_mark)
        self.n_nodes += 1
        if self.n_nodes > MAX_NODES:
            raise YamlProblem(f"more than {MAX_NODES:,} keys and values", "split the file", event.start_mark)
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


for _tag, _pattern, _first in (
    (_NULL, r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    (_BOOL, r"(?:y|Y)es|YES|(?:n|N)o|NO|(?:t|T)rue|TRUE|(?:f|F)alse|FALSE|(?:o|O)(?:n|ff)|ON|OFF", list("yYnNtTfFoO")),
    (_INT, r"[-+]?(?:0|[1-9][0-9]*)|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        _FLOAT,
        r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    (MERGE, r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(_tag, re.compile(f"(?:{_pattern})$"), _first)
