"""Turns an object of JSON into one that says when a byte of it changed: beside its keys stands a checksum of them."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from emis_interp.errors import DataError

SEAL = "content_sha256"
ADVICE = f"put back a copy or make it again; if you changed it yourself, delete its key `{SEAL}`"


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """`content` with the checksum before it."""
    return {SEAL: _checksum(content), **content}


def unsealed(content: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`content` without its checksum; as it is where it has none, as in files of older versions.

    Raises:
        DataError: it is not what was sealed.
    """
    rest = {key: value for key, value in content.items() if key != SEAL}
    if SEAL in content and content[SEAL] != _checksum(rest):
        raise DataError(f"{where}: damaged or edited (its content does not have the checksum `{SEAL}`); {ADVICE}")
    return rest


def is_as_sealed(content: Any) -> bool:
    """Whether it has a checksum, and the one of its content: for what is made again rather than trusted."""
    return (
        isinstance(content, Mapping)
        and SEAL in content
        and content[SEAL] == _checksum({key: value for key, value in content.items() if key != SEAL})
    )


def _checksum(content: Mapping[str, Any]) -> str:
    """Of the values as JSON keeps them, whatever the order of the keys and the blanks between them."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode("ascii")).hexdigest()
