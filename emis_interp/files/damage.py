"""Turns what goes wrong while the content of a file of ours is walked through into an error that names the file."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from emis_interp.errors import DataError, printable

_OF_CONTENT = (KeyError, IndexError, TypeError, AttributeError, ValueError, StopIteration, ZeroDivisionError)
"""What Python raises where a key is missing or a value is of another kind; pydantic's error is a ValueError."""


@contextlib.contextmanager
def naming_damage(path: Path, advice: str) -> Iterator[None]:
    """Around the reading of a file whose content has no record of its own. Keep to reading it what is inside: other mistakes there would
    be blamed on the file.

    Args:
        advice: what to do with a file that is not as it was written.

    Raises:
        DataError: a key is missing, or a value is not of the kind that was written.
    """
    try:
        yield
    except _OF_CONTENT as error:
        said = printable(str(error), 120)
        raise DataError(f"{path}: not as it was written ({type(error).__name__}: {said}); {advice}") from error
