"""The words of a command line as the record of settings that they fill."""

import argparse
from typing import TypeVar

from emis_interp.config.flags import add_flags, read_flags

T = TypeVar("T")


def filled(record: type[T], *words: object) -> T:
    parser = argparse.ArgumentParser()
    add_flags(parser, record)
    return read_flags(parser.parse_args([str(word) for word in words]), record)
