"""Turns a direction and pairs of answers into a dose-response: what steering by each coefficient does, beside a random direction."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from emis_interp.directions import Direction
from emis_interp.fitting.reliability import random_directions
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.likelihood import by_question, paired_difference
from emis_interp.passes.sweeps import SteerCell, margins
from emis_interp.process import Bars, no_bars
from emis_interp.records import ContrastPair
from emis_interp.stats.interval import mean_row
from probes.settings import COEFFICIENTS


def dose_response(
    chat_model: ChatModel,
    direction: Direction,
    pairs: Sequence[ContrastPair],
    *,
    coefficients: Sequence[float] = COEFFICIENTS,
    seed: int = 0,
    system: str | None = None,
    max_batch_tokens: int = 2048,
    bars: Bars = no_bars,
) -> dict[str, list[dict[str, Any]]]:
    """Margin shift at every coefficient, along the direction and a random one of the same norm; many cells share a batch.

    Args:
        pairs: of questions that had no part in the direction.
        coefficients: multiples of the layer's mean residual norm.
        seed: of the random direction.
    """
    vector = random_directions(1, 1, len(direction.vector), seed=seed)[0, 0]
    along = {"direction": direction, "random": replace(direction, vector=vector)}
    cells = [SteerCell(direction, 0.0)]
    cells += [SteerCell(one, coefficient) for one in along.values() for coefficient in coefficients]
    with bars("dose", len(cells)) as advance:
        found = margins(chat_model, cells, pairs, system=system, max_batch_tokens=max_batch_tokens, progress=advance)
    before, *after = [by_question(pairs, row) for row in found]
    shifts = iter([mean_row(paired_difference(row, before)) for row in after])
    return {name: [{"coefficient": c, **next(shifts)} for c in coefficients] for name in along}
