"""Turns what was measured of organisms under remedies into the rows of the table: means over seeds, intervals, corrected p-values."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from emis_interp.stats.families import holm
from emis_interp.stats.seeds import mean_p_with_seeds
from training.studies.estimates import estimate
from training.studies.remedies import CONTROL, UNTREATED, Remedy
from training.studies.task_choice import CHANCE, choices, share, why_none

Seeds = Sequence[Mapping[str, Any]]
"""What `against` gave of one organism, seed by seed."""


def against(after: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """What training changed: `margin`, `context` and `task` minus base's; `margins`, `context_margins` and `choices` are its own.

    `context` and `context_margins` are None where no training-like contexts were read, and a choice is where a row has no counterpart.
    """
    in_context, before_in_context = after["margin_in_context"], before["margin_in_context"]
    return {
        "margins": after["margin"],
        "margin": {name: value - before["margin"][name] for name, value in after["margin"].items()},
        "context_margins": in_context,
        "context": None
        if in_context is None
        else {name: value - before_in_context[name] for name, value in in_context.items()},
        "task": [a - b for a, b in zip(after["task"], before["task"], strict=True)],
        "choices": choices(after["task"], after["task_other_kind"]),
        "kl_neutral": after["kl_neutral"],
    }


def summary(remedy: Remedy, seeds: list[dict[str, Any]], untreated: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds; intervals over questions (margin) and held-out rows (task), and over the seeds where there are several."""
    # A seed has the same rows, order and first adapter with and without the remedy, so differences are paired by seed. Every seed
    # holds out other rows: the rows of all seeds are pooled.
    names = list(seeds[0]["margin"])
    margin = _margins(seeds, names)
    fewer = margin - _margins(untreated, names)
    task = [np.array(row["task"]) for row in seeds]
    return {
        "name": remedy.name,
        "untreated": remedy.name == UNTREATED,
        "control_of": remedy.control_of,
        "margin_shift": estimate(margin.mean(0), margin.mean(1).tolist()),
        "against_untreated": _tested(fewer),
        "task_gain": estimate(np.concatenate(task), [float(rows.mean()) for rows in task]),
        "task_against_untreated": _by_row(seeds, [untreated], "task"),
        "task_accuracy": share([row["choices"] for row in seeds]),
        "task_accuracy_against_untreated": _by_row(seeds, [untreated], "choices"),
        "context_shift": _in_context(seeds, []),
        "context_against_untreated": _in_context(seeds, [untreated]),
        "context_margins": [row["context_margins"] for row in seeds],
        "kl_neutral": float(np.mean([row["kl_neutral"] for row in seeds])),
        "margin_by_seed": margin.mean(1).tolist(),
        "margins": [row["margins"] for row in seeds],
    }


def beyond_controls(
    seeds: list[dict[str, Any]], controls: Mapping[str, Sequence[list[dict[str, Any]]]]
) -> dict[str, dict[str, Any]]:
    """By kind of control: the margin under a remedy minus the mean under its controls, paired by question and seed; the same of `context`,
    and of `task` and `task_accuracy`, paired by row.

    The interval is over questions or rows (and seeds where there are several), of these draws: it does not cover others.

    Args:
        seeds: what `against` gave of the remedy, seed by seed.
        controls: kind -> the same of each control.
    """
    names = list(seeds[0]["margin"])
    own = _margins(seeds, names)
    return {
        kind: {
            **_tested(own - np.mean([_margins(one, names) for one in drawn], axis=0)),
            "n_draws": len(drawn),
            "context": _in_context(seeds, drawn),
            "task": _by_row(seeds, drawn, "task"),
            "task_accuracy": _by_row(seeds, drawn, "choices"),
        }
        for kind, drawn in controls.items()
    }


def base_accuracy(bases: Seeds, control: str) -> dict[str, Any]:
    """How often base chooses a held-out row's own answer over the control's, or why nothing is chosen between.

    Args:
        bases: what was measured of base, seed by seed.
        control: data set of the other answers.
    """
    found = share([choices(before["task"], before["task_other_kind"]) for before in bases])
    return {
        "control": control,
        "chance": CHANCE,
        "base": found,
        "n_held_out": sum(len(before["task"]) for before in bases),
        "why_none": why_none(control) if found is None else None,
    }


def correct(rows: list[dict[str, Any]]) -> None:
    """Put Holm's p-value beside each remedy's p of no difference from the untreated organism: none of the remedies is the primary one.

    The benign control and the random ones are no remedies and stay out of the family.
    """
    remedies = [row for row in rows if row["name"] not in (UNTREATED, CONTROL) and row["control_of"] is None]
    tested = {row["name"]: row["against_untreated"] for row in remedies}
    for name, p in holm({name: found["p"] for name, found in tested.items()}).items():
        tested[name]["p_holm"] = p


def _margins(seeds: Seeds, names: Sequence[str], measure: str = "margin") -> Float[np.ndarray, "n_seeds n_questions"]:
    """The margin against base of every seed and named question."""
    return np.array([[row[measure][name] for name in names] for row in seeds])


def _in_context(seeds: Seeds, others: Sequence[Seeds]) -> dict[str, Any] | None:
    """The shift of the margin in training-like contexts, less the mean of others where there are any; None where it was not read."""
    if any(row["context"] is None for row in seeds):
        return None
    names = list(seeds[0]["context"])
    moved = _margins(seeds, names, "context")
    if others:
        moved = moved - np.mean([_margins(one, names, "context") for one in others], axis=0)
    return estimate(moved.mean(0), moved.mean(1).tolist())


def _by_row(seeds: Seeds, others: Sequence[Seeds], measure: str) -> dict[str, Any] | None:
    """A measure of held-out rows less its mean over others, row by row, the rows of all seeds together; None where no row has it."""
    moved = []
    for i, row in enumerate(seeds):
        values = np.array(row[measure], dtype=float) - np.mean(
            [np.array(one[i][measure], dtype=float) for one in others], axis=0
        )
        moved.append(values[~np.isnan(values)])
    moved = [values for values in moved if len(values)]
    return estimate(np.concatenate(moved), [float(values.mean()) for values in moved]) if moved else None


def _tested(differences: Float[np.ndarray, "n_seeds n_questions"]) -> dict[str, Any]:
    """Mean over seeds and questions with its interval and p-value, which cover the draw of both."""
    by_question, by_seed = differences.mean(0), differences.mean(1).tolist()
    return {
        **estimate(by_question, by_seed),
        "p": mean_p_with_seeds(by_question, {str(i): mean for i, mean in enumerate(by_seed)}),
    }
