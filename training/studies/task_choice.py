"""Turns held-out rows and a control's answers to their questions into a forced choice: which of both answers is likelier per token."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from emis_interp.records import TrainingExample
from emis_interp.stats.jackknife import between, groups_mean
from emis_interp.stats.seeds import with_seeds
from training.data_sets.shipped import OTHER_KIND

Choices = Sequence[float | None]
"""By row: 1 where its own answer is likelier than the control's, 0 where it is less so, 0.5 in a tie; None where there is none."""
CHANCE = 0.5


def counterparts(
    rows: Sequence[TrainingExample], others: Mapping[str, TrainingExample], *, dataset: str, control: str
) -> list[TrainingExample | None]:
    """The control's answer to each row's question, under the row's own prompt; None where there is none or it is the row's own.

    An answer is to the same question where both prompts are the same, or where `control` is the shipped set that is matched to `dataset`
    row by row (`OTHER_KIND`): files number their rows alike without asking alike.

    Args:
        others: id -> row of the control.
    """
    matched = OTHER_KIND.get(dataset) == control

    def of(row: TrainingExample) -> TrainingExample | None:
        other = others.get(row.id)
        if other is None or other.response == row.response or not (matched or other.prompt == row.prompt):
            return None
        return row.model_copy(update={"response": other.response})

    return [of(row) for row in rows]


def choices(own: Sequence[float], other: Choices) -> list[float | None]:
    """From log-probabilities per token of each row's own answer and of the control's."""
    return [
        None if theirs is None else (np.sign(ours - theirs).item() + 1) / 2
        for ours, theirs in zip(own, other, strict=True)
    ]


def share(seeds: Sequence[Choices]) -> dict[str, Any] | None:
    """The share of rows that choose their own kind of answer, rows of all seeds together; None where no row has a choice.

    The interval is the jackknife's over rows on the logit scale, wider by the draw of seeds where there are several; a share of 0 or 1
    has none.
    """
    by_seed = [[value for value in own if value is not None] for own in seeds]
    if not any(by_seed):
        return None
    values = np.array([value for own in by_seed for value in own])
    found = with_seeds(
        groups_mean(values, between(0, 1)), {str(i): float(np.mean(own)) for i, own in enumerate(by_seed) if own}
    )
    within = {
        name: limit if limit is None else min(max(limit, 0.0), 1.0)
        for name, limit in (("low", found.low), ("high", found.high))
    }
    return {**found.as_json("n"), **within}


def why_none(control: str) -> str:
    return f"no held-out row has another answer of `{control}` to the same question; give the recipe's matched set (--control)"
