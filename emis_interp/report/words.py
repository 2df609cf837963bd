"""How commands say where a report is and what it answers; imports nothing heavy."""

from collections.abc import Mapping
from typing import Any

BETWEEN = " | "
"""Stands between the verdicts in the line of the report stage."""


def said_of(result: Mapping[str, Any]) -> str:
    """The verdicts of a run with a report, one a line, and where its page is.

    Args:
        result: `stages`, name -> record with its line; and `report`, the page.
    """
    made = result["stages"].get("report")
    return said(made["line"].split(BETWEEN) if made else [], result["report"])


def said(verdicts: list[str], page: str) -> str:
    return "\n".join([*verdicts, f"report: {page}"])
