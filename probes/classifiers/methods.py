"""Turns labelled residuals of one layer into the weights of a linear probe, by methods that share a signature; larger is more misaligned.

All work within questions, as the extractors that they are built on: every question, and within it every class, weighs the same, and
what all answers to a question share is taken away, so that a topic cannot stand in for misalignment.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from emis_interp.directions import unit
from emis_interp.errors import DataError, did_you_mean
from emis_interp.fitting import extractors
from emis_interp.fitting.labeled import LabeledActivations
from emis_interp.fitting.reliability import mean_auroc
from probes.classifiers.splits import question_folds

Method = Callable[[LabeledActivations], Float[Tensor, "d_model"]]
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
"""Inverse L2 penalties (scikit-learn's C, of standardised residuals with weights that sum to the number of texts) that are tried."""
INNER_FOLDS = 3
SAME = 1e-5
"""Class means of one question that are closer than this share of a residual's norm differ by rounding."""


def difference(data: LabeledActivations) -> Float[Tensor, "d_model"]:
    """Difference of class means, averaged over questions (`extractors.question_balanced`), as a unit vector."""
    return unit(extractors.question_balanced(data)[0])


def mass_mean(data: LabeledActivations) -> Float[Tensor, "d_model"]:
    """Marks and Tegmark (2023, section 5), with a fixed ridge: `extractors.mass_mean`."""
    return extractors.mass_mean(data)[0]


def lda(data: LabeledActivations) -> Float[Tensor, "d_model"]:
    """Linear discriminant of question-centred residuals with the covariance shrunk as Ledoit and Wolf (2004) say.

    It differs from `mass_mean` in that the data choose the shrinkage. Residuals are standardised first.
    """
    centred, labels, weights = data.centred()
    # scikit-learn's discriminant takes no weights: only the scale and the centring are balanced here, texts count as often as they are.
    x, scale = _standardised(centred[:, 0], weights)
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=[0.5, 0.5]).fit(x.numpy(), labels)
    return (torch.from_numpy(model.coef_[0]) / scale).float()


def logistic(data: LabeledActivations) -> Float[Tensor, "d_model"]:
    """L2 logistic regression whose penalty is chosen by folds of the given questions: nothing outside `data` is looked at."""
    return logistic_at(data, best_penalty(data))


def logistic_at(data: LabeledActivations, inverse_penalty: float) -> Float[Tensor, "d_model"]:
    """L2 logistic regression of question-centred, standardised residuals, mapped back to raw coordinates.

    Units: log-odds per residual-stream unit, of the difference from the middle of a question's classes.
    """
    return _logistic_path(data, [inverse_penalty])[0]


def best_penalty(data: LabeledActivations, penalties: Sequence[float] = PENALTIES) -> float:
    """The penalty with the largest AUROC within questions that had no part in the fit; the strongest among equals.

    With one question there is nothing to leave out: the strongest.
    """
    names = list(data.cells)
    if len(names) < 2 or len(penalties) == 1:
        return penalties[0]
    found = []
    for held in question_folds(names, INNER_FOLDS):
        weights = _logistic_path(data.only(set(names) - held), penalties)
        test = data.only(held)
        found.append(mean_auroc((weights @ test.x[:, 0].float().T).numpy(), test.misaligned, test.questions))
    return penalties[int(np.argmax(np.mean(found, axis=0)))]


def _logistic_path(data: LabeledActivations, penalties: Sequence[float]) -> Float[Tensor, "n_penalties d_model"]:
    """`logistic_at` of several penalties."""
    centred, labels, weights = data.centred()
    x, scale = _standardised(centred[:, 0], weights)
    # With fewer texts than dimensions the solution lies in the span of the texts, where the same problem is smaller and as exact.
    left, values, right = torch.linalg.svd(x, full_matrices=False)
    coordinates, found = (left * values).numpy(), []
    for penalty in penalties:
        model = LogisticRegression(C=penalty, fit_intercept=False, max_iter=500)
        model.fit(coordinates, labels, sample_weight=weights * len(labels))
        found.append(torch.from_numpy(model.coef_[0]) @ right / scale)
    return torch.stack(found).float()


METHODS: Mapping[str, Method] = {"difference": difference, "mass_mean": mass_mean, "lda": lda, "logistic": logistic}


def method_named(name: str) -> Method:
    """Raises DataError with the nearest name when there is no such method."""
    if name not in METHODS:
        raise DataError(f"unknown method `{name}`{did_you_mean(name, METHODS)}; there are {', '.join(METHODS)}")
    return METHODS[name]


def fit_weight(method: Method, data: LabeledActivations) -> Float[Tensor, "d_model"]:
    """A method's weights; zeros, which give every text the same score (AUROC 0.5), where both classes have the same residuals.

    That is so before an answer has begun, wherever both classes answer the same prompt: there is nothing to read, and what rounding
    leaves must not be blown up by standardising it.
    """
    size = float(data.x[:, 0].norm(dim=-1).mean())
    apart = max(float((data.x[a, 0].mean(0) - data.x[b, 0].mean(0)).norm()) for a, b in data.cells.values())
    return torch.zeros(data.x.shape[-1]) if apart <= SAME * size else method(data)


def middle(data: LabeledActivations) -> Float[Tensor, "d_model"]:
    """Mean over questions of the midpoint of their class means: where even odds lie."""
    return torch.stack([(data.x[a, 0].mean(0) + data.x[b, 0].mean(0)) / 2 for a, b in data.cells.values()]).mean(0)


def log_odds(
    projections: Float[np.ndarray, "n_texts"], misaligned: Bool[np.ndarray, "n_texts"], questions: Sequence[str]
) -> tuple[float, float]:
    """(scale, offset) that turn projections into log-odds of equally frequent classes (Platt 1999); questions and classes weigh the same.

    Args:
        projections: of texts that the weights were not fitted on; of those they were, the odds would be far too sure.
    """
    cells = LabeledActivations(torch.zeros(len(projections), 1, 1), misaligned, tuple(questions)).cells
    weights = np.zeros(len(projections))
    for pair in cells.values():
        for rows in pair:
            weights[rows] = 0.5 / (len(cells) * len(rows))
    spread = float(np.std(projections)) or 1.0
    kept = weights > 0
    model: Any = LogisticRegression(C=1.0)
    model.fit(projections[kept, None] / spread, misaligned[kept], sample_weight=weights[kept] * kept.sum())
    return float(model.coef_[0, 0]) / spread, float(model.intercept_[0])


def _standardised(
    x: Float[Tensor, "n d_model"], weights: Float[np.ndarray, "n"]
) -> tuple[Float[Tensor, "n d_model"], Float[Tensor, "d_model"]]:
    """Residuals in standard deviations (float64), and these."""
    wide = x.double()
    scale = (torch.from_numpy(weights)[:, None] * wide.square()).sum(0).sqrt().clamp(min=1e-6)
    return wide / scale, scale
