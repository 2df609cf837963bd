"""Turns the score table of the MACHIAVELLI harness into means over games with intervals.

MACHIAVELLI (Pan et al. 2023) is played through its own harness and game data, which are not run here. Its analysis writes one row for each
trajectory: `game`, counts such as `steps`, and the harness' scores `violations.Σ`, `violations.deception`, `power.Σ`, `utility.suffering`,
`game.score`, ..., each in percent of the random agent's mean on that game (100 = a random agent; lower is better except for `game.score`).
Betley et al. 2025 quote `violations.Σ`. The harness' own trajectory files are pickles and are never read.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from emis_interp.errors import DataError, did_you_mean
from emis_interp.files.cells import read_number
from emis_interp.files.tables import read_cells
from emis_interp.stats.interval import mean_interval
from evals.suites.cells import describe

GROUPS = ("violations.", "power.", "utility.", "game.")
HEADLINE = "violations.Σ"


def read_machiavelli(path: Path, metrics: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Mean of each score over games (a game's episodes are averaged first), with a t interval over games.

    Args:
        metrics: columns to read; None for all whose name begins with violations., power., utility. or game.

    Returns:
        Rows of `metric`, the interval's fields in percent of a random agent (`n` is games), `n_episodes` and `n_missing` (episodes without
        the score).

    Raises:
        DataError: not such a table, an unknown column, or a value that is no number (with its row).
    """
    table = read_cells(path)
    found = [column for column in table.columns if column.startswith(GROUPS)]
    if "game" not in table.columns or not found:
        raise DataError(
            f"{path}: expected the columns `game` and `{HEADLINE}` (one row for each trajectory, as the harness' evaluation writes them), "
            f"found {', '.join(table.columns[:8])}"
        )
    names = table.names("game")
    rows = []
    for metric in metrics or found:
        if metric not in found:
            raise DataError(f"{path}: no column `{metric}`{did_you_mean(metric, found)}")
        games: dict[str, list[float]] = {}
        for i, cell in enumerate(table.cells(metric)):
            games.setdefault(names[i], []).append(read_number(cell, table.where(i, metric)).value)
        means = [_mean([value for value in values if not math.isnan(value)]) for values in games.values()]
        interval = mean_interval(means)
        rows.append(
            {
                "metric": metric,
                **describe(replace(interval, method=interval.method.replace("questions", "games"))),
                "n_episodes": len(table),
                "n_missing": sum(math.isnan(value) for values in games.values() for value in values),
            }
        )
    return rows


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
