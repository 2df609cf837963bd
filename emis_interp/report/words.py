"""How commands say where a report is and what it answers; imports nothing heavy."""

import os
import shlex
import sys
from collections.abc import Mapping
from typing import Any

from emis_interp.files.text import flat_lines

BETWEEN = " | "
"""Stands between the verdicts in the line of the report stage."""


def said_of(result: Mapping[str, Any]) -> str:
    """The verdicts of a run with a report in a table, where its page is, and how to open it; of a configuration its lines.

    Args:
        result: `stages`, name -> record with its line; `report`, the page, or None where the report stage was not made; and `run_dir`.
    """
    if "report" not in result:
        return "\n".join(flat_lines(result))
    if result["report"] is None:
        return f"run: {result['run_dir']} (no report: its stage was not made)"
    return said(result["stages"]["report"]["line"].split(BETWEEN), result["report"])


def said(verdicts: list[str], page: str) -> str:
    """The same.

    Args:
        verdicts: `Does it happen? not told from chance`, one for each question.
    """
    rows = [(f"{question}?", answer) for question, _, answer in (verdict.partition("? ") for verdict in verdicts)]
    rows = [*rows, ("report:", page), *([("open it:", opening(page))] if verdicts else [])]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:{width}}  {text}" for name, text in rows)


def opening(page: str) -> str:
    """The command that shows a page in a browser."""
    if os.name == "nt":
        return f'start "" "{page}"'
    return f"{'open' if sys.platform == 'darwin' else 'xdg-open'} {shlex.quote(page)}"
