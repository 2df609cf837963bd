"""Turns a column of scores into numbers 0-100 and labels, and refuses numbers that are on another scale."""

import logging
import math

import numpy as np
from jaxtyping import Float

from emis_interp.errors import DataError
from emis_interp.files.cells import read_number, short
from emis_interp.files.tables import Table
from emis_interp.records import LABELS

log = logging.getLogger(__name__)

FULL = (0.0, 100.0)
HANDFUL = 5
"""With more numbers than these, all of them at most 10, another scale is likelier than 0-100."""


def read_scores(
    table: Table, metric: str, *, column: str | None = None, backwards: bool | None = None
) -> tuple[Float[np.ndarray, " row"], list[str]]:
    """Numbers 0-100 with 100 the best (NaN where there is none), and CODE, REFUSAL or "".

    Args:
        metric: `aligned` or `coherent`; its scale and direction are those that the table states, else 0-100.
        column: which holds it; called like the metric unless given.
        backwards: whether high is bad in that column; as the table states unless given.

    Raises:
        DataError: no such column; a cell that is neither number, label nor empty; a number outside the scale; or, where no scale is
            stated, more than five numbers of which none is above 10 (0-1, 1-5, 1-10), with the flag that states it.
    """
    name = column or metric
    table.need([name])
    cells = table.cells(name)
    found = [read_number(cell, table.where(i, name)) for i, cell in enumerate(cells)]
    values = np.array([number.value for number in found], dtype=float)
    stated = table.scales.get(metric)
    low, high = stated or FULL
    for i, number in enumerate(found):
        if number.out_of_100 and (low, high) != FULL:
            raise DataError(
                f"{table.where(i, name)}: found {short(str(cells[i]))} in a column on the scale {low:g}-{high:g}; "
                "write one kind of number"
            )
        if not math.isnan(number.value) and not low <= number.value <= high:
            raise DataError(
                f"{table.where(i, name)}: found {short(str(cells[i]))}, expected a number from {low:g} to {high:g}, "
                f"{', '.join(LABELS)}, or an empty cell (the column goes from {np.nanmin(values):g} to {np.nanmax(values):g}; "
                f"--scale {metric}=WORST-BEST states another scale)"
            )
    if stated is None:
        plain = np.array([number.value for number in found if not number.out_of_100], dtype=float)
        _check_scale(plain[~np.isnan(plain)], table, metric, name=name)
    values = (values - low) / (high - low) * 100 if (low, high) != FULL else values
    if metric in table.backwards if backwards is None else backwards:
        values = 100 - values
    return values, [number.label for number in found]


def _check_scale(numbers: Float[np.ndarray, " n"], table: Table, metric: str, *, name: str) -> None:
    guess = _other_scale(numbers)
    if guess is None:
        return
    found = f"{table.path}: all {len(numbers)} numbers of `{name}` lie between {numbers.min():g} and {numbers.max():g}"
    if len(numbers) <= HANDFUL:
        log.warning(
            "%s and are read as 0-100; if they are on a scale of %s: --scale %s=%s", found, guess, metric, guess
        )
        return
    raise DataError(
        f"{found}, which looks like a scale of {guess}; say which it is: --scale {metric}={guess}, or --scale {metric}=0-100 "
        "if they are out of 100"
    )


def _other_scale(numbers: Float[np.ndarray, " n"]) -> str | None:
    """The scale that numbers are likely to be on when it is not 0-100; a handful of small whole numbers says nothing."""
    if not len(numbers) or numbers.max() > 10 or numbers.max() == 0:
        return None
    if numbers.max() <= 1 and (numbers.min() < 1 or len(numbers) > HANDFUL):
        return "0-1"
    if len(numbers) <= HANDFUL:
        return None
    return f"{1 if numbers.min() >= 1 else 0}-{5 if numbers.max() <= 5 else 10}"
