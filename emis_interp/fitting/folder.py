"""Turns what names a saved direction into what else `fit` wrote into its folder."""

from pathlib import Path
from typing import Any

from emis_interp.directions import direction_file
from emis_interp.errors import DataError
from emis_interp.files.tensors import load_tensors


def beside(path: Path, name: str) -> Path:
    """The place of a file in the folder of the direction that `path` names."""
    return direction_file(path).parent / name


def tensors_beside(path: Path, name: str) -> dict[str, Any]:
    """A file of tensors of the folder that `fit` wrote for the direction that `path` names.

    Raises:
        DataError: there is none, with what to do.
    """
    file = beside(path, name)
    if not file.exists():
        raise DataError(f"{file}: no such file; this needs the whole folder that find_direction.py fit writes")
    return load_tensors(file)[0]
