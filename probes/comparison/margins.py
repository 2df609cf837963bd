"""Turns margins of contrast pairs, model by model, into differences between arms: intervals over questions and seeds, p-values, flattening.

An arm is one model or several (its finetuning seeds): figures are then means over them, and intervals cover their draw.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from emis_interp.passes.likelihood import by_question
from emis_interp.records import ContrastPair
from emis_interp.stats.families import holm
from emis_interp.stats.flattening import describe, flattening
from emis_interp.stats.interval import mean_interval, stratified_mean_interval
from emis_interp.stats.jackknife import answers_mean
from emis_interp.stats.seeds import mean_p_with_seeds, with_seeds
from emis_interp.stats.words import bounds

ModelMargins = Mapping[str, np.ndarray]
"""Model of an arm -> margin of every contrast pair, in the order of the pairs."""
BaseAt = Mapping[float, Mapping[str, float]]
"""Temperature -> question -> margin of base with its logits divided by it, nats per token."""


def mean_of_models(margins: ModelMargins) -> np.ndarray:
    """Mean over an arm's models of each pair's margin."""
    return np.mean(list(margins.values()), axis=0)


def contrasts_of(
    pairs: Sequence[ContrastPair],
    values: Mapping[str, ModelMargins],
    controls: Mapping[str, str | None],
    *,
    base_at: BaseAt,
) -> list[dict[str, Any]]:
    """Every arm against base, with what a mere flattening of base would bring, and against its control.

    Args:
        values: margins by arm; `base` is among them.
        controls: arm -> the arm that it is compared with besides base, or None.
    """
    rows = []
    for arm, control in controls.items():
        for reference in dict.fromkeys(name for name in ("base", control) if name):
            row = contrast_of(pairs, arm, reference, values=values)
            if reference == "base":
                own, base = (by_question(pairs, mean_of_models(values[name])) for name in (arm, "base"))
                row["flattening"] = describe(flattening(own, base, base_at))
            shifts = mean_of_models(values[arm]) - mean_of_models(values[reference])
            row["by_base_margin"] = by_base_margin(pairs, shifts, mean_of_models(values["base"]))
            rows.append(row)
    correct(rows, controls)
    return rows


def by_base_margin(
    pairs: Sequence[ContrastPair], shifts: np.ndarray, base: np.ndarray, *, n_strata: int = 3
) -> list[dict[str, Any]]:
    """Mean shift in each third of the pairs by base's own margin, lowest first, with a jackknife interval over questions.

    A flattening of the model raises the lowest third most and the highest least, or lowers it; where base prefers neither answer it does
    nothing. The interval does not cover the finetuning seed.

    Args:
        shifts: difference of two arms' margins of each pair, nats per token. base: base's margin of each pair.
    """
    question_of = np.array([pair.question_id for pair in pairs])
    order = np.argsort(base, kind="stable")
    return [
        {
            "base_low": float(base[mine].min()),
            "base_high": float(base[mine].max()),
            **answers_mean(shifts[mine], question_of[mine]).as_json("n", "n_questions", value="mean"),
        }
        for mine in np.array_split(order, n_strata)
        if len(mine)
    ]


def contrast_of(
    pairs: Sequence[ContrastPair], arm: str, reference: str, *, values: Mapping[str, ModelMargins]
) -> dict[str, Any]:
    """Paired difference of two arms' margins, each a mean over the arm's models: in all with an interval over questions and seeds;
    for each group and each question with an interval over its pairs and seeds, the questions as given."""
    difference = mean_of_models(values[arm]) - mean_of_models(values[reference])
    shifts = by_question(pairs, difference)
    question_of, group_of = (np.array([getattr(pair, key) for pair in pairs]) for key in ("question_id", "group"))

    def own_means(chosen: np.ndarray) -> list[dict[str, float]]:
        """Of both arms, each model's mean over the questions of the chosen pairs."""
        some = [pair for pair, wanted in zip(pairs, chosen, strict=True) if wanted]
        return [
            {name: float(np.mean(list(by_question(some, own[chosen]).values()))) for name, own in values[one].items()}
            for one in (arm, reference)
        ]

    def within(chosen: np.ndarray) -> dict[str, Any]:
        interval = stratified_mean_interval(difference[chosen], question_of[chosen])
        interval = with_seeds(interval, *own_means(chosen))
        own = [shifts[name] for name in dict.fromkeys(question_of[chosen].tolist())]
        counts = {"n_questions": len(own), "n_positive": sum(value > 0 for value in own), "n_pairs": int(chosen.sum())}
        return {**interval.as_json(value="mean"), **counts}

    models = own_means(np.full(len(pairs), True))
    seeds: dict[str, Any] = {}
    if max(len(own) for own in models) > 1:
        against = float(np.mean(list(models[1].values())))
        seeds = {"n_models": len(models[0]), "n_reference_models": len(models[1])}
        if len(models[0]) > 1:
            seeds["by_model"] = {name: value - against for name, value in models[0].items()}
    return {
        "arm": arm,
        "reference": reference,
        **shift_summary(shifts, *models),
        "p": mean_p_with_seeds(list(shifts.values()), *models),
        **seeds,
        "by_question": shifts,
        "question_intervals": {name: within(question_of == name) for name in shifts},
        "by_group": {name: within(group_of == name) for name in dict.fromkeys(group_of.tolist())},
    }


def correct(contrasts: Sequence[dict[str, Any]], controls: Mapping[str, str | None]) -> None:
    """Put `p_holm` beside the p of the primary contrasts, each an arm against the control of its configuration: they are one family.

    The others are exploratory and stay without.
    """
    primary = {row["arm"]: row for row in contrasts if controls.get(row["arm"]) == row["reference"]}
    for arm, p in holm({arm: row["p"] for arm, row in primary.items()}).items():
        primary[arm]["p_holm"] = p


def shift_summary(differences: dict[str, float], *models: dict[str, float]) -> dict[str, Any]:
    """Mean over questions with its 95 % t interval (None with one question), and how many questions are positive.

    Args:
        models: for each arm in the difference, its models' own means, whose draw the interval covers where there are several.
    """
    values = np.array(list(differences.values()))
    interval = with_seeds(mean_interval(values), *models)
    return {
        "mean": float(values.mean()),
        "low": interval.low,
        "high": interval.high,
        "n_questions": len(values),
        "n_positive": int((values > 0).sum()),
    }


def interval_text(row: dict[str, Any]) -> str:
    return bounds(row, "+.3f", none="(no interval)").strip()
