"""Turns labelled activations of the selection half into one layer and its direction, and states on the report half how good it is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from emis_interp.directions import Direction, top_dimensions_share, unit
from emis_interp.errors import ConfigError, DataError
from emis_interp.fitting.extractors import Extractor, question_balanced
from emis_interp.fitting.labeled import LabeledActivations
from emis_interp.fitting.length_baseline import length_baseline
from emis_interp.fitting.reliability import (
    auroc_by_question,
    auroc_estimate,
    auroc_verdict,
    direction_auroc,
    leave_one_question_out_auroc,
    project,
    random_directions,
    shuffled_directions,
    split_half_cosine,
)
from emis_interp.stats.permutation import null_p

ChooseLayer = Callable[[Sequence[Direction], Float[np.ndarray, "n_layers"]], int]

TIE = 0.005
"""AUROC saturates near 1: differences below half a percent are ties."""


@dataclass(frozen=True)
class DirectionReport:
    """The chosen direction, the raw directions of all layers (both fitted on the selection half), and the numbers of
    `analysis/direction.json`."""

    direction: Direction
    raw: Float[Tensor, "n_layers d_model"]
    numbers: dict[str, Any]


def find_direction(
    selection: LabeledActivations,
    report: LabeledActivations,
    residual_norm: Float[Tensor, "n_layers"],
    *,
    layer_range: tuple[float, float] = (0.2, 0.8),
    n_permutations: int = 100,
    seed: int = 0,
    position: str = "response_mean",
    extractor: Extractor = question_balanced,
    choose_layer: ChooseLayer | None = None,
) -> DirectionReport:
    """Fit a direction per layer on `selection` (by default a question-balanced difference in means), choose the layer there, and test
    it on `report`.

    The layer is the one with the largest leave-one-question-out AUROC within `layer_range` (fractions of depth); among equals the
    one that separates the classes by most within-question standard deviations. The report half plays no part in either choice.

    Of all AUROCs in the numbers that of `report` is the primary one; the curves over layers are exploratory.

    Args:
        residual_norm: mean norm of single tokens' residuals per layer (`capture_with_norms`), the unit of steering coefficients.
        choose_layer: another rule; given the directions of the layers in the range (fitted on `selection`) and their
            leave-one-question-out AUROC, returns the index of one.

    Raises:
        DataError: a half has fewer than two questions with both classes, or a question is in both halves.
    """
    shared = set(selection.questions) & set(report.questions)
    if shared:
        raise DataError(
            f"questions in both halves: {sorted(shared)[:5]}; selection and report must not share a question"
        )
    n_layers = selection.x.shape[1]
    allowed = layers_in(layer_range, n_layers)
    raw = extractor(selection)
    loqo = leave_one_question_out_auroc(selection, extractor)
    separation = held_out_separation(selection, extractor)
    if choose_layer is None:
        layer = int(allowed[best_by_auroc(loqo[allowed], separation[allowed])])
    else:
        candidates = [
            Direction(unit(raw[i]), int(i), float(raw[i].norm()), float(residual_norm[i]), position) for i in allowed
        ]
        layer = int(allowed[choose_layer(candidates, loqo[allowed])])
    random_auroc = direction_auroc(random_directions(n_permutations, n_layers, selection.x.shape[2], seed=seed), report)
    shuffled = shuffled_directions(selection, n_permutations, seed, extractor=extractor)
    shuffled_auroc = direction_auroc(shuffled, report)
    halves = split_half_cosine(selection, seed=seed, extractor=extractor)
    numbers = {
        "position": position,
        "hook_point": "resid_post",
        "layers": list(range(n_layers)),
        "selection_auroc": loqo.tolist(),
        "selection_separation": separation.tolist(),
        "report_auroc": direction_auroc(raw, report).tolist(),
        "random_auroc": random_auroc.mean(0).tolist(),
        "random_auroc_95": np.percentile(random_auroc, 95, axis=0).tolist(),
        "shuffled_auroc_95": np.percentile(shuffled_auroc, 95, axis=0).tolist(),
        "split_half_cosine": halves.mean(0).tolist(),
        "raw_norm": raw.norm(dim=-1).tolist(),
        "residual_norm": residual_norm.tolist(),
        "top5_dims_share": [top_dimensions_share(vector) for vector in raw],
        "chosen_layer": layer,
        "layer_range": [int(allowed[0]), int(allowed[-1])],
        "report": reported(
            raw[layer],
            report.at([layer]),
            random_auroc[:, layer],
            shuffled_auroc=shuffled_auroc[:, layer],
            shuffled=shuffled[:, layer],
        ),
    }
    card = {
        "selection_auroc": float(loqo[layer]),
        "report": numbers["report"],
        "split_half_cosine": float(halves[:, layer].mean()),
        "top5_dims_share": numbers["top5_dims_share"][layer],
    }
    direction = Direction(
        unit(raw[layer]), layer, float(raw[layer].norm()), float(residual_norm[layer]), position, card
    )
    return DirectionReport(direction, raw, numbers)


def reported(
    raw: Float[Tensor, "d_model"],
    report: LabeledActivations,
    random_auroc: Float[np.ndarray, "n_permutations"],
    *,
    shuffled_auroc: Float[np.ndarray, "n_permutations"],
    shuffled: Float[Tensor, "n_permutations d_model"],
) -> dict[str, Any]:
    """AUROC on texts that had no part in `raw`, beside its controls, with a verdict that takes them into account.

    Args:
        report: at one layer. With `lengths` the row has `length_baseline`.
        shuffled: raw directions fitted like `raw` after permuting the labels within questions, `shuffled_auroc` theirs on the same texts.
    """
    scores = project(unit(raw)[None], report.x)[0]
    estimate = auroc_estimate(auroc_by_question(scores, report.misaligned, report.questions))
    p = null_p(shuffled_auroc, estimate["value"])
    longer = null_p(shuffled.norm(dim=-1).numpy(), float(raw.norm()))
    row = {
        "auroc": estimate["value"],
        "low": estimate["low"],
        "high": estimate["high"],
        "contrast": "primary",
        "n_misaligned": int(report.misaligned.sum()),
        "n_aligned": int((~report.misaligned).sum()),
        "n_questions": len(set(report.questions)),
        **_spread("random", random_auroc),
        **_spread("shuffled", shuffled_auroc),
        **{f"shuffled_{key}": value for key, value in p.as_json().items()},
        "verdict": auroc_verdict(estimate, p, longer),
    }
    if report.lengths is not None:
        row["length_baseline"] = length_baseline(scores, report.lengths, report.misaligned, questions=report.questions)
    return row


def layers_in(layer_range: tuple[float, float], n_layers: int) -> Int[np.ndarray, "n_allowed"]:
    """Layers between two fractions of depth, both included.

    Raises:
        ConfigError: they are no such fractions.
    """
    if not 0 <= layer_range[0] <= layer_range[1] <= 1:
        raise ConfigError(
            f"layer range {layer_range}: expected two fractions of depth, 0 <= first <= last <= 1, e.g. 0.2 and 0.8"
        )
    first, last = (round(fraction * (n_layers - 1)) for fraction in layer_range)
    return np.arange(first, max(first, last) + 1)


def best_by_auroc(auroc: Float[np.ndarray, "n_allowed"], separation: Float[np.ndarray, "n_allowed"]) -> int:
    """Index of the largest AUROC; among those within `TIE` of it, of the largest separation."""
    best = np.flatnonzero(auroc >= auroc.max() - TIE)
    return int(best[np.argmax(separation[best])])


def nested_leave_one_question_out(
    data: LabeledActivations, layers: Sequence[int], extractor: Extractor = question_balanced
) -> dict[str, float]:
    """For each question with both classes, the AUROC of a direction whose layer was chosen (`best_by_auroc`) and which was fitted on the
    other questions alone: what is quoted of a direction must not be what its layer was chosen by.

    Raises:
        DataError: fewer than three questions have both classes.
    """
    some, found = data.at(list(layers)), {}
    if len(some.cells) < 3:
        raise DataError("choosing a layer without each question in turn needs three questions with both classes")
    for name in some.cells:
        others = some.without(name)
        best = best_by_auroc(leave_one_question_out_auroc(others, extractor), held_out_separation(others, extractor))
        found[name] = float(direction_auroc(extractor(others.at([best])), some.only({name}).at([best]))[0])
    return found


def held_out_separation(
    data: LabeledActivations, extractor: Extractor = question_balanced
) -> Float[np.ndarray, "n_layers"]:
    """Leave-one-question-out difference of class means in units of the within-class standard deviation, averaged over questions."""
    names = np.asarray(data.questions)
    values = []
    for question in dict.fromkeys(data.questions):
        test = data.rows(np.flatnonzero(names == question))
        if min(test.misaligned.sum(), (~test.misaligned).sum()) < 2:
            continue
        scores = project(unit(extractor(data.without(question))), test.x)
        positive, negative = scores[:, test.misaligned], scores[:, ~test.misaligned]
        spread = np.sqrt((positive.var(1, ddof=1) + negative.var(1, ddof=1)) / 2)
        values.append((positive.mean(1) - negative.mean(1)) / spread)
    return np.mean(values, axis=0) if values else np.zeros(data.x.shape[1])


def _spread(name: str, values: Float[np.ndarray, "n"]) -> dict[str, float]:
    low, high = np.percentile(values, [2.5, 97.5])
    return {f"{name}_auroc": float(values.mean()), f"{name}_low": float(low), f"{name}_high": float(high)}
