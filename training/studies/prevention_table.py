"""Turns what was measured of organisms under remedies into the rows of the table: means over seeds, intervals, corrected p-values."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from emis_interp.stats.families import holm
from emis_interp.stats.seeds import mean_p_with_seeds
from training.studies.estimates import estimate
from training.studies.remedies import CONTROL, UNTREATED, Remedy


def against(after: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """What training changed: `margin` and `task` minus base's; `margins` are the organism's own."""
    return {
        "margins": after["margin"],
        "margin": {name: value - before["margin"][name] for name, value in after["margin"].items()},
        "task": [a - b for a, b in zip(after["task"], before["task"], strict=True)],
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
    less = [own - np.array(row["task"]) for own, row in zip(task, untreated, strict=True)]
    return {
        "name": remedy.name,
        "untreated": remedy.name == UNTREATED,
        "control_of": remedy.control_of,
        "margin_shift": estimate(margin.mean(0), margin.mean(1).tolist()),
        "against_untreated": _tested(fewer),
        "task_gain": estimate(np.concatenate(task), [float(rows.mean()) for rows in task]),
        "task_against_untreated": estimate(np.concatenate(less), [float(rows.mean()) for rows in less]),
        "kl_neutral": float(np.mean([row["kl_neutral"] for row in seeds])),
        "margin_by_seed": margin.mean(1).tolist(),
        "margins": [row["margins"] for row in seeds],
    }


def beyond_controls(
    seeds: list[dict[str, Any]], controls: Mapping[str, Sequence[list[dict[str, Any]]]]
) -> dict[str, dict[str, Any]]:
    """By kind of control: the margin under a remedy minus the mean under its controls, paired by question and seed.

    The interval is over questions (and seeds where there are several), of these draws: it does not cover others.

    Args:
        seeds: what `against` gave of the remedy, seed by seed.
        controls: kind -> the same of each control.
    """
    names = list(seeds[0]["margin"])
    own = _margins(seeds, names)
    return {
        kind: {**_tested(own - np.mean([_margins(one, names) for one in drawn], axis=0)), "n_draws": len(drawn)}
        for kind, drawn in controls.items()
    }


def correct(rows: list[dict[str, Any]]) -> None:
    """Put Holm's p-value beside each remedy's p of no difference from the untreated organism: none of the remedies is the primary one.

    The benign control and the random ones are no remedies and stay out of the family.
    """
    remedies = [row for row in rows if row["name"] not in (UNTREATED, CONTROL) and row["control_of"] is None]
    tested = {row["name"]: row["against_untreated"] for row in remedies}
    for name, p in holm({name: found["p"] for name, found in tested.items()}).items():
        tested[name]["p_holm"] = p


def _margins(seeds: list[dict[str, Any]], names: Sequence[str]) -> Float[np.ndarray, "n_seeds n_questions"]:
    """The margin against base of every seed and named question."""
    return np.array([[row["margin"][name] for name in names] for row in seeds])


def _tested(differences: Float[np.ndarray, "n_seeds n_questions"]) -> dict[str, Any]:
    """Mean over seeds and questions with its interval and p-value, which cover the draw of both."""
    by_question, by_seed = differences.mean(0), differences.mean(1).tolist()
    return {
        **estimate(by_question, by_seed),
        "p": mean_p_with_seeds(by_question, {str(i): mean for i, mean in enumerate(by_seed)}),
    }
