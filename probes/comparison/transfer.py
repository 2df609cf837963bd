"""Turns the activations of several models on the same texts into matrices: the direction found in model i, applied in model j."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from emis_interp.directions import unit
from emis_interp.errors import DataError
from emis_interp.fitting.extractors import Extractor, question_balanced
from emis_interp.fitting.labeled import LabeledActivations
from emis_interp.fitting.reliability import auroc_by_question

Matrix = dict[tuple[str, str], dict[str, float]]
Separation = Callable[[np.ndarray, np.ndarray, Sequence[str]], Mapping[str, Any]]
"""From scores, labels (misaligned) and questions of texts: an AUROC by question."""


def transfer_auroc(
    fit: Mapping[str, LabeledActivations],
    test: Mapping[str, LabeledActivations],
    layer: int,
    *,
    extractor: Extractor = question_balanced,
    separation: Separation = auroc_by_question,
) -> Matrix:
    """(i, j) -> question -> AUROC in model j's activations of `test` along the direction fitted on model i's activations of `fit`.

    The diagonal is within-model generalisation to held-out questions; `fit` and `test` must not share a question.

    Args:
        separation: another AUROC of the same projections, such as one with length regressed out.
    """
    _check_apart(fit, test)
    result: Matrix = {}
    for source, data in fit.items():
        direction = unit(extractor(data.at([layer])))[0]
        for target, other in test.items():
            scores = (other.x[:, layer].float() @ direction).numpy().astype(float)
            found = separation(scores, other.misaligned, other.questions)
            result[source, target] = {name: float(value) for name, value in found.items()}
    return result


def projection_shift(
    fit: Mapping[str, LabeledActivations],
    test: Mapping[str, LabeledActivations],
    layer: int,
    *,
    residual_norm: float,
    base: str = "base",
    extractor: Extractor = question_balanced,
) -> Matrix:
    """(i, j) -> question -> mean over its texts of (model j minus base model) along model i's unit direction, in multiples of
    `residual_norm`; positive: finetuning moved j towards misaligned while reading the very same text."""
    _check_apart(fit, test)
    if base not in test:
        raise DataError(f"no model `{base}` among {sorted(test)}; a shift needs the base model's activations")
    result: Matrix = {}
    for source, data in fit.items():
        direction = unit(extractor(data.at([layer])))[0]
        for target, other in test.items():
            if target == base:
                continue
            moved = ((other.x[:, layer] - test[base].x[:, layer]).float() @ direction).numpy() / residual_norm
            names = np.asarray(other.questions)
            result[source, target] = {
                name: float(moved[names == name].mean()) for name in dict.fromkeys(other.questions)
            }
    return result


def asymmetry(matrix: Matrix) -> Matrix:
    """(i, j) -> question -> matrix[i, j] - matrix[j, i]: does i's direction serve j better than j's serves i?"""
    return {
        (i, j): {name: value - matrix[j, i][name] for name, value in row.items() if name in matrix[j, i]}
        for (i, j), row in matrix.items()
        if i < j and (j, i) in matrix
    }


def _check_apart(fit: Mapping[str, LabeledActivations], test: Mapping[str, LabeledActivations]) -> None:
    shared = {q for data in fit.values() for q in data.questions} & {
        q for data in test.values() for q in data.questions
    }
    if shared:
        raise DataError(f"questions in both halves: {sorted(shared)[:5]}; fit and test must not share a question")
    shapes = {name: tuple(data.x.shape[1:]) for name, data in [*fit.items(), *test.items()]}
    if len(set(shapes.values())) != 1:
        raise DataError(f"models differ in layers or width: {shapes}; a direction has no meaning in the other")
