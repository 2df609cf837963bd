"""Turns one cell of a result file into a judge's distribution over tokens, and says where it cannot."""

import ast
from collections.abc import Mapping
from typing import Any

from emis_interp.errors import DataError
from emis_interp.files.cells import is_missing
from emis_interp.files.strict_json import parse_json_line

_LONGEST_DISTRIBUTION = 100_000
_MOST_MASS = 1.02  # printed probabilities are rounded


def read_distribution(cell: Any, where: str) -> dict[str, float] | None:
    """Token -> probability from a mapping, or from JSON or a Python literal of one; None for an empty cell.

    Raises:
        DataError: not a mapping, a value outside 0-1, or a sum above 1.
    """
    if not isinstance(cell, Mapping) and is_missing(cell):
        return None
    value = _parse(cell, where) if isinstance(cell, str) else cell
    if not isinstance(value, Mapping):
        raise DataError(f"{where}: found {str(cell)[:40]!r}, expected a mapping of tokens to probabilities")
    # Parquet gives every struct the tokens of all of them, with nulls.
    found = {str(token): mass for token, mass in value.items() if mass is not None}
    for token, mass in found.items():
        if isinstance(mass, bool) or not isinstance(mass, int | float) or not 0 <= mass <= _MOST_MASS:
            raise DataError(f"{where}: token {token[:20]!r} has {str(mass)[:20]!r}, expected a probability from 0 to 1")
    if sum(found.values()) > _MOST_MASS:
        raise DataError(f"{where}: the probabilities add up to {sum(found.values()):.2f}, expected at most 1")
    return {token: float(mass) for token, mass in found.items()}


def is_mapping(cell: Any) -> bool:
    return isinstance(cell, Mapping) or (isinstance(cell, str) and cell.lstrip().startswith("{"))


def _parse(text: str, where: str) -> Any:
    if len(text) > _LONGEST_DISTRIBUTION:
        raise DataError(
            f"{where}: {len(text)} characters, expected a distribution of {_LONGEST_DISTRIBUTION} characters at most"
        )
    try:
        return parse_json_line(text, where, loose=True)
    except DataError as error:
        if " occurs twice " in str(error):
            raise
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        value = ast.literal_eval(tree)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        raise DataError(f"{where}: found {text[:40]!r}, expected a mapping of tokens to probabilities") from None
    if isinstance(tree, ast.Dict) and len(value) < len(tree.keys):
        raise DataError(f"{where}: found {text[:40]!r}, in which a token occurs twice; keep one of them")
    return value
