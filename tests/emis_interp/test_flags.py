"""A record's fields become flags of their kind, and the words of a command line the record."""

import argparse
from typing import Any

import pytest

from emis_interp.config.flags import add_flags, flag, read_flags, settings, words_of


@settings
class Planted:
    """Fields of tuples."""

    span: tuple[float, float] = flag("two", default=(0.2, 0.8))
    doses: tuple[float, ...] | None = flag("any number", default=None, may_be_empty=True)
    layers: tuple[int, ...] | None = flag("one or more", default=None)


def read(*words: str) -> Any:
    parser = argparse.ArgumentParser()
    add_flags(parser, Planted)
    return read_flags(parser.parse_args(words), Planted)


def test_a_tuple_of_two_takes_two_words_in_place_of_its_default() -> None:
    assert read().span == (0.2, 0.8) and read("--span", "0", "1").span == (0.0, 1.0)
    for words in (["0"], ["0", "0.5", "1"]):
        with pytest.raises(SystemExit):
            read("--span", *words)


def test_a_flag_that_stands_alone_is_told_from_one_that_is_not_there() -> None:
    assert read().doses is None and read("--doses").doses == () and read("--doses", "-0.2", "1").doses == (-0.2, 1.0)
    with pytest.raises(SystemExit):
        read("--layers")
    assert read("--layers", "3", "4").layers == (3, 4)


@settings
class Whole:
    """One field of every form."""

    place: str = flag("where", positional=True)
    more: tuple[str, ...] = flag("others", positional=True, default=())
    size: float = flag("how much", default=1.5)
    quick: bool = flag("soon", default=False)
    called: str | None = flag("name", names=("--name",), default=None)
    marks: tuple[str, ...] = flag("each alone", default=(), repeated=True)
    pairs: tuple[tuple[str, str], ...] = flag("two words each", default=(), repeated=True)
    doses: tuple[float, ...] | None = flag("any number", default=None, may_be_empty=True)


@pytest.mark.parametrize(
    "given",
    [
        Whole(place="a"),
        Whole(place="a b", more=("c", "d"), size=-0.25, quick=True, called="--x y", marks=("1", "2")),
        Whole(place="a", pairs=(("x", "y"), ("z", "")), doses=()),
        Whole(place="", doses=(-0.2, 1.0), size=3.0),
    ],
)
def test_a_record_said_as_words_is_read_again_as_the_same_record(given: Whole) -> None:
    parser = argparse.ArgumentParser()
    add_flags(parser, Whole)
    assert read_flags(parser.parse_args(words_of(given)), Whole) == given
    assert words_of(Whole(place="a")) == ["a"]
