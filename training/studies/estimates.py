"""Turns differences into means with intervals, and those into words."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from emis_interp.stats.interval import mean_interval
from emis_interp.stats.seeds import with_seeds


def shift(after: dict[str, float], before: dict[str, float]) -> dict[str, Any]:
    """Mean paired difference over questions with its 95 % t interval."""
    return estimate([after[name] - before[name] for name in before])


def estimate(values: Sequence[float] | np.ndarray, by_seed: Sequence[float] = ()) -> dict[str, Any]:
    """Mean with its 95 % interval over the values (questions, rows); wider by the draw of seeds where `by_seed` holds several means."""
    found = with_seeds(mean_interval(np.asarray(values, dtype=float)), {str(i): mean for i, mean in enumerate(by_seed)})
    return {"value": found.value, "low": found.low, "high": found.high, "n": found.n}


def words(row: dict[str, Any], form: str = "+.3f") -> str:
    """`+0.101 [+0.052, +0.150]`"""
    if row["value"] is None:
        return "none"
    bounds = "" if row["low"] is None else f" [{format(row['low'], form)}, {format(row['high'], form)}]"
    return f"{format(row['value'], form)}{bounds}"
