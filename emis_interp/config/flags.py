"""Turns a frozen record of settings into command-line flags, and the words of a command line into the record.

What a command needs is a dataclass that a notebook fills in as well (`@settings`). A field made by `flag` stands on the command line as
`--its-name`; settings that several commands share are a class that they inherit from.
"""

import argparse
import dataclasses
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Flag:
    """How a field stands on the command line; what is None follows from the field's type.

    Attributes:
        names: instead of `--its-name`.
        positional: stands without a name, by its place.
        parse: one word -> the value.
        choices: the words that are allowed.
        repeated: may be given several times, one value each, in `tuple[tuple[str, str], ...]` two words each. A tuple without it takes
            several words after one flag; `tuple[int, int]` takes two.
        may_be_empty: a tuple's flag may stand alone, which is not the same as no flag.
        group: heading under which the help lists it.
        one_of: exactly one flag of this name must be given.
        at_most_one_of: flags of this name exclude each other.
    """

    help: str
    names: tuple[str, ...] = ()
    positional: bool = False
    parse: Callable[[str], Any] | None = None
    choices: Sequence[str] | None = None
    metavar: str | tuple[str, ...] | None = None
    repeated: bool = False
    may_be_empty: bool = False
    group: str | None = None
    one_of: str | None = None
    at_most_one_of: str | None = None


def flag(help: str, *, default: Any = dataclasses.MISSING, **how: Any) -> Any:
    """A field with a flag; one without a default must be given. `how`: further attributes of `Flag`.

    Write `default=`: type checkers see a default by its name alone, and ask for the field otherwise.
    """
    kept: dict[str, Any] = {} if default is dataclasses.MISSING else {"default": default}
    return dataclasses.field(**kept, metadata={"flag": Flag(help, **how)})


# `flag` is no field specifier to type checkers: those see a default only where it is given by name.
@typing.dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(dataclasses.field,))
def settings(record: type[T]) -> type[T]:
    """Makes a class a record of settings: frozen, its fields given by name."""
    return dataclass(frozen=True, kw_only=True)(record)


def add_flags(parser: argparse.ArgumentParser, record: type) -> None:
    """Add the flags of a record, in the order of its fields."""
    kinds, groups = typing.get_type_hints(record), {}
    for field in dataclasses.fields(record):
        one: Flag | None = field.metadata.get("flag")
        if one is None:
            continue
        target: Any = parser
        if one.group is not None:
            target = groups.get(one.group) or parser.add_argument_group(one.group)
            groups[one.group] = target
        if (exclusive := one.one_of or one.at_most_one_of) is not None:
            needed = one.one_of is not None
            target = groups.get(exclusive) or target.add_mutually_exclusive_group(required=needed)
            groups[exclusive] = target
        names = (field.name,) if one.positional else one.names or ("--" + field.name.replace("_", "-"),)
        words = _words(one, kinds[field.name], field)
        target.add_argument(*names, **words, **({} if one.positional else {"dest": field.name}))


def read_flags(words: argparse.Namespace, record: type) -> Any:
    """The record that parsed words fill."""
    given = {field.name: getattr(words, field.name) for field in dataclasses.fields(record) if "flag" in field.metadata}
    return record(**{name: _frozen(value) for name, value in given.items()})


def words_of(record: Any) -> list[str]:
    """The words of a command line that fill this record, the other way round from `read_flags`; what has its default is left out."""
    places, named = list[str](), list[str]()
    for field in dataclasses.fields(record):
        one: Flag | None = field.metadata.get("flag")
        value = getattr(record, field.name)
        if one is None or value is None or value == field.default:
            continue
        many = isinstance(value, tuple)
        if one.positional:
            places += [str(item) for item in (value if many else (value,))]
            continue
        name = one.names[0] if one.names else "--" + field.name.replace("_", "-")
        if isinstance(value, bool):
            named.append(name)
        elif many and one.repeated:
            for item in value:
                named += [name, *(str(part) for part in (item if isinstance(item, tuple) else (item,)))]
        elif not many and str(value).startswith("-"):
            named.append(f"{name}={value}")
        else:
            named += [name, *(str(item) for item in (value if many else (value,)))]
    return [*places, *named]


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _words(one: Flag, kind: Any, field: Any) -> dict[str, Any]:
    """What argparse wants to know."""
    given: dict[str, Any] = {"help": one.help}
    if field.default is not dataclasses.MISSING:
        given["default"] = list(field.default) if isinstance(field.default, tuple) else field.default
    kind = _without_none(kind)
    if kind is bool:
        return {**given, "action": "store_true"}
    many = typing.get_origin(kind) is tuple
    if many:
        kind, *others = typing.get_args(kind)
        # A list that holds a default would keep it in front of what is given.
        given |= (
            {"action": "append"}
            if one.repeated
            else {"nargs": "*" if one.may_be_empty else "+", "action": "extend" if not field.default else "store"}
        )
        if Ellipsis not in others:
            given |= {"nargs": 1 + len(others), "action": "store"}
        if one.positional and field.default is not dataclasses.MISSING:
            given["nargs"] = "*"
    if one.repeated and typing.get_origin(kind) is tuple:
        given["nargs"] = len(typing.get_args(kind))
        kind = typing.get_args(kind)[0]
    if typing.get_origin(kind) is typing.Literal:
        given["choices"] = typing.get_args(kind)
        kind = str
    if one.choices is not None:
        given["choices"] = one.choices
    if one.metavar is not None:
        given["metavar"] = one.metavar
    if one.positional and not many and field.default is not dataclasses.MISSING:
        given["nargs"] = "?"
    parse = one.parse or (kind if kind in (int, float, Path) else None)
    return {
        **given,
        **({} if parse is None else {"type": parse}),
        **({"required": True} if _is_required(one, field) else {}),
    }


def _is_required(one: Flag, field: Any) -> bool:
    return field.default is dataclasses.MISSING and not one.positional and one.one_of is None


def _without_none(kind: Any) -> Any:
    """`X | None` -> X."""
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        inner = [part for part in typing.get_args(kind) if part is not type(None)]
        return inner[0] if len(inner) == 1 else kind
    return kind
