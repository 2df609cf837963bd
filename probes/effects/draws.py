"""Turns an intervention into its margin shift beside the same along control directions, on the same few pairs."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from emis_interp.directions import Direction
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.effects import Ablation, Steering
from emis_interp.passes.likelihood import by_question, pair_margins, paired_difference
from emis_interp.passes.sweeps import AblateCell, Cell, SteerCell, margins
from emis_interp.records import ContrastPair
from emis_interp.stats.interval import mean_row

Controls = Mapping[str, Float[Tensor, "n d_model"]]
"""Kind of control -> unit vectors (`fitting.reliability.control_directions`)."""
OWN = "own"


def drawn_effects(
    chat_model: ChatModel,
    intervention: Steering | Ablation,
    controls: Controls,
    *,
    pairs: Sequence[ContrastPair],
    system: str | None = None,
    max_batch_tokens: int = 2048,
) -> dict[str, Any]:
    """The margin shift of an intervention and of the same along every control direction.

    Returns:
        `n_pairs`; `own`: mean over questions of the shift along the intervention's direction, nats per token; `shifts`: kind -> the same of
        every control of the kind; `by_question`: question -> its shift under `own`, and the mean over the controls of each kind.
    """
    cells = [cell_of(intervention)]
    cells += [cell_of(intervention, vector) for vectors in controls.values() for vector in vectors]
    before = pair_margins(chat_model, pairs, system, max_batch_tokens=max_batch_tokens)
    found = margins(chat_model, cells, pairs, system=system, max_batch_tokens=max_batch_tokens) - before
    own, *drawn = (by_question(pairs, row) for row in found)
    shifts, by_name, start = {}, {name: {OWN: value} for name, value in own.items()}, 0
    for kind, vectors in controls.items():
        mine = drawn[start : start + len(vectors)]
        start += len(vectors)
        shifts[kind] = [float(np.mean(list(one.values()))) for one in mine]
        for name, row in by_name.items():
            row[kind] = float(np.mean([one[name] for one in mine]))
    return {
        "n_pairs": len(pairs),
        "own": float(np.mean(list(own.values()))),
        "shifts": shifts,
        "by_question": by_name,
    }


def cell_of(intervention: Steering | Ablation, vector: Float[Tensor, "d_model"] | None = None) -> Cell:
    """The intervention as a cell of a sweep, along its own direction or another."""
    direction = intervention.direction
    along: Direction = direction if vector is None else replace(direction, vector=vector)
    return (
        SteerCell(along, intervention.coefficient) if isinstance(intervention, Steering) else AblateCell(along.vector)
    )


def interaction(
    arm: Mapping[str, Mapping[str, float]], control: Mapping[str, Mapping[str, float]], kind: str
) -> dict[str, Any]:
    """Whether a direction matters more in an arm than in its control: its shift beyond that of control directions, arm minus control.

    Args:
        arm, control: `by_question` of `drawn_effects` in both.

    Returns:
        Mean over questions with its t interval, nats per token; negative where ablating the direction lowers the arm's margin more.
    """

    def beyond(rows: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        return {name: row[OWN] - row[kind] for name, row in rows.items()}

    return mean_row(paired_difference(beyond(arm), beyond(control)))
