"""Errors that a user can act on: each says what was found, what was expected and what to do.

Scripts print an `EmisError` as one line and exit with status 2; anything else is a bug and keeps its traceback.
"""

import difflib
from collections.abc import Iterable
from typing import Any

_MOST_OPTIONS = 60


class EmisError(Exception):
    """Base of every error that the user can mend."""


class ConfigError(EmisError):
    """A preset, a flag or a configuration value is wrong."""


class DataError(EmisError):
    """A data file is missing, malformed or breaks a promise; the text names the file and the line."""


class ModelError(EmisError):
    """A model, adapter, tokenizer or layer is unknown or does not fit."""


class StageError(EmisError):
    """A run folder is in a state from which the stage cannot go on."""


class JudgeError(EmisError):
    """The judge cannot be used at all (one failed judgement is an unscored record, not an error)."""


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """`"; did you mean `layers`?"` when an option is close to `word`, else the list of options."""
    options = sorted(options)
    close = difflib.get_close_matches(word[:200], options, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {shown(close[0])}?"
    names = ", ".join(printable(option) for option in options[:_MOST_OPTIONS])
    more = f" and {len(options) - _MOST_OPTIONS} more" if len(options) > _MOST_OPTIONS else ""
    return f"; known: {names}{more}" if options else ""


def shown(value: Any, most: int = 60) -> str:
    """A value of unknown origin for an error, as `printable`, in backquotes."""
    return f"`{printable(value, most)}`"


def printable(value: Any, most: int = 60) -> str:
    """A value of unknown origin for a message: on one line, printable and not longer than `most` characters."""
    text = value if isinstance(value, str) else repr(value)
    text = text if len(text) <= most else text[: most - 3] + "..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
