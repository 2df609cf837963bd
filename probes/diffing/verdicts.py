"""Turns what a projection moved into what it lets one say."""

from collections.abc import Mapping
from typing import Any

from emis_interp.stats.permutation import NullP

LARGEST_P = 0.05


def projection_verdict(result: Mapping[str, Any]) -> str:
    """Whether taking the mean difference out costs the organism its own kind of text more than other text, beyond random vectors and
    beyond what a control's mean difference does."""
    first, *others = [cell for cell in result["cells"] if cell["along"] != "whole difference"]
    failed = [kind for kind, row in result["nulls"]["beyond"].items() if NullP.of_json(row).value > LARGEST_P]
    if failed:
        return f"own kind of text against others: not told from {' and '.join(failed)}"
    if first["beyond"] <= 0:
        return "beyond random vectors, but it costs unrelated text more than the organism's own kind"
    words = f"costs its own kind of text more than others, beyond {' and '.join(result['nulls']['beyond'])}"
    if not others:
        return f"{words}; without a control's direction it may be what any finetune's does"
    reached = [cell["along"] for cell in others if not (cell["first_minus"]["low"] or 0) > 0]
    if reached:
        return f"{words}, but on its own kind not clearly more than along the mean difference of {', '.join(reached)}"
    return f"{words}, and on its own kind more than along the mean difference of {', '.join(cell['along'] for cell in others)}"
