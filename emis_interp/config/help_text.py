"""Turns docstrings into helps, and mistakes into errors, that fit a terminal: paragraphs flow, examples can be pasted."""

import argparse
import re
import sys
from typing import Any, NoReturn

from emis_interp.terminal import as_command, fitted, width_of

_GAP = re.compile(r"(?<=\S) {2,}(?=\S)")
"""Between an example and what is said of it."""


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Lets paragraphs of the description flow, keeps its other lines, and shows the defaults that say something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False, []) else super()._get_help_string(action)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return description(super()._fill_text(text, width, indent), width)


class CommandParser(argparse.ArgumentParser):
    """With this help, and errors whose lines are broken between words."""

    def __init__(self, *args: Any, **how: Any) -> None:
        super().__init__(*args, **{"formatter_class": HelpFormatter, **how})

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(2, fitted(f"{self.prog}: error: {message}", width_of(sys.stderr)) + "\n")


def description(text: str, width: int) -> str:
    """A docstring for `width` columns. Lines that follow each other without an indent are one paragraph; indented ones are examples, or
    items of a list where they begin with `- `."""
    blocks: list[list[str]] = []
    for line in text.split("\n"):
        flows = bool(line) and not line.startswith(" ")
        if flows and blocks and blocks[-1][0] and not blocks[-1][0].startswith(" "):
            blocks[-1].append(line)
        else:
            blocks.append([line])
    return "\n".join(
        _example(block[0], width) if block[0].startswith(" ") else _paragraph(block, width) for block in blocks
    )


def _paragraph(lines: list[str], width: int) -> str:
    if max(map(len, lines)) <= width:
        return "\n".join(lines)
    return fitted(" ".join(lines), width, 0)


def _example(line: str, width: int) -> str:
    """An example with what is said of it behind it, or above it where there is no room; or an item of a list."""
    if len(line) <= width:
        return line
    if line.lstrip().startswith("- "):
        return fitted(line, width, 4)
    indent = " " * (len(line) - len(line.lstrip()))
    command, *said = _GAP.split(line.strip(), maxsplit=1)
    return "\n".join([*(fitted(f"{indent}# {text}", width) for text in said), as_command(indent + command, width)])
