"""The words of a command line as the record of settings that they fill, and what a verb says of words that it refuses."""

import argparse
import importlib
from typing import Any, TypeVar

import pytest

from emis_interp.config.flags import add_flags, read_flags
from emis_interp.errors import EmisError
from emis_interp.process import no_bars

T = TypeVar("T")


def filled(record: type[T], *words: object) -> T:
    parser = argparse.ArgumentParser()
    add_flags(parser, record)
    return read_flags(parser.parse_args([str(word) for word in words]), record)


def sets(*values: str) -> list[str]:
    """`--set FIELD=VALUE` for each."""
    return [word for value in values for word in ("--set", value)]


def refusal(verb: Any, *words: object) -> str:
    """The message of the error with which a `cli.Verb` answers these words; a command prints it as its one line, with status 2."""
    run = verb.run or importlib.import_module(verb.module).run
    with pytest.raises(EmisError) as caught:
        run(filled(verb.settings, *words), no_bars)
    return str(caught.value)
