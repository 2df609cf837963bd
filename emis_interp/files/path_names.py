"""Turns a name that somebody gave into one that can be a file's on every machine, or into why it cannot.

Runs are copied between machines, so what one of them could not write is refused on all: `nul.jsonl` is a device on Windows, `a/b` a file
in another folder.
"""

import re
from typing import Annotated

from pydantic import AfterValidator

from emis_interp.errors import shown

LONGEST_NAME = 100
"""Bytes; names of seeds, cells, parts and endings come behind it, and file systems take 255."""
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(?:\..*)?", re.IGNORECASE | re.DOTALL)
_FOREIGN = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')


def path_name_problem(name: str) -> str | None:
    """Why a file of a run cannot be called so, or None."""
    if not name:
        return "is empty; give a name"
    if (size := len(name.encode("utf-8", "surrogatepass"))) > LONGEST_NAME:
        return f"{shown(name, 30)} has {size} bytes, and names of files are made from it; give {LONGEST_NAME} at most"
    if found := _FOREIGN.search(name):
        return f"{shown(name)} holds {shown(found[0])}, which no file name may hold or which leads to another folder; leave it out"
    if name.startswith(".") or name.endswith((".", " ")):
        return f"{shown(name)} begins with a dot or ends in a dot or a space; leave it out"
    if _DEVICE.fullmatch(name):
        return f"{shown(name)} is the name of a device on Windows; choose another"
    return None


def check_path_name(name: str) -> str:
    """The name itself.

    Raises:
        ValueError: `path_name_problem`, for pydantic.
    """
    if problem := path_name_problem(name):
        raise ValueError(problem)
    return name


PathName = Annotated[str, AfterValidator(check_path_name)]
"""A field of a record that becomes part of file names."""
