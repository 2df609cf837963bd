"""Turns labelled activations into one raw direction per layer, by methods that share a signature; larger is more misaligned.

Every extractor works within questions, so that topics cannot stand in for misalignment. Directions from two models reading the same
texts, and from the weights of an adapter, need no labels and have their own functions.
"""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from emis_interp.directions import mean_difference
from emis_interp.errors import DataError, did_you_mean
from emis_interp.fitting.labeled import LabeledActivations

Extractor = Callable[[LabeledActivations], Float[Tensor, "n_layers d_model"]]
SHRINKAGE = 10.0
INVERSE_PENALTY = 1e-3


def question_balanced(data: LabeledActivations) -> Float[Tensor, "n_layers d_model"]:
    """Mean over questions of (mean of the misaligned minus mean of the aligned texts), residual-stream units; the default."""
    return torch.stack([data.x[a].mean(0) - data.x[b].mean(0) for a, b in data.cells.values()]).mean(0)


def pooled_mean_difference(data: LabeledActivations) -> Float[Tensor, "n_layers d_model"]:
    """Plain difference of class means over all texts (Marks & Tegmark 2023; Arditi et al. 2024, section 2.3); carries topic."""
    return mean_difference(data.x, data.misaligned)


def paired_pca(data: LabeledActivations) -> Float[Tensor, "n_layers d_model"]:
    """First principal direction of paired differences (representation engineering, Zou et al. 2023, section 3.1).

    The i-th misaligned text of a question is paired with its i-th aligned one, surplus texts are left out. The differences are not
    centred: their mean is what is looked for. Length: the root mean square of the differences along the direction; sign: that of
    their mean.
    """
    differences = torch.cat([data.x[a[: len(b)]] - data.x[b[: len(a)]] for a, b in data.cells.values()])
    result = []
    for layer in range(differences.shape[1]):
        at_layer = differences[:, layer]
        _, values, right = torch.linalg.svd(at_layer, full_matrices=False)
        sign = torch.sign(at_layer.mean(0) @ right[0])
        result.append(right[0] * sign * values[0] / len(at_layer) ** 0.5)
    return torch.stack(result)


def standardised(data: LabeledActivations) -> Float[Tensor, "n_layers d_model"]:
    """`question_balanced` in standard deviations: each coordinate of the difference is divided by that coordinate's standard deviation
    within question and class, so that a few massive dimensions (Sun et al. 2024) cannot drown the others.

    It is one difference of means and one vector of the residual stream; unlike `mass_mean` it inverts no covariance. Units: standard
    deviations, so steer along `question_balanced` instead.
    """
    within, share = _within_cells(data)
    scale = torch.einsum("n,nld->ld", share, within.square()).clamp(min=1e-12).sqrt()
    return question_balanced(data) / scale


def mass_mean(data: LabeledActivations, shrinkage: float = SHRINKAGE) -> Float[Tensor, "n_layers d_model"]:
    """Question-balanced difference of means, divided by the covariance within question and class: the mass-mean probe of Marks & Tegmark
    (2023, section 5), which is Fisher's linear discriminant.

    The covariance is taken of standardised coordinates and `shrinkage` times the identity is added, since there are fewer texts than
    dimensions: 0 is the plain discriminant, a large value the difference of means divided by each coordinate's variance. It
    separates better than the difference of means and is a probe, not an axis to steer along. Units: arbitrary.
    """
    difference = question_balanced(data)
    within, share = _within_cells(data)
    result = []
    for layer in range(within.shape[1]):
        residue = within[:, layer]
        covariance = residue.T @ (share[:, None] * residue)
        scale = covariance.diag().clamp(min=1e-12).sqrt()
        correlation = covariance / scale[:, None] / scale[None]
        correlation += shrinkage * torch.eye(len(scale))
        result.append(torch.linalg.solve(correlation, difference[layer] / scale) / scale)
    return torch.stack(result)


def logistic(data: LabeledActivations, inverse_penalty: float = INVERSE_PENALTY) -> Float[Tensor, "n_layers d_model"]:
    """Weights of an L2 logistic regression on question-centred, standardised activations, mapped back to raw coordinates.

    `inverse_penalty` is scikit-learn's C, with weights that sum to the number of texts. Units: log-odds per residual-stream unit.
    """
    centred, labels, weights = data.centred()
    result = []
    for layer in range(centred.shape[1]):
        x = centred[:, layer].double()
        scale = x.std(0).clamp(min=1e-6)
        model = LogisticRegression(C=inverse_penalty, fit_intercept=False, max_iter=500)
        model.fit((x / scale).numpy(), labels, sample_weight=weights * len(labels))
        result.append(torch.from_numpy(model.coef_[0]) / scale)
    return torch.stack(result).float()


def _within_cells(
    data: LabeledActivations,
) -> tuple[Float[Tensor, "n_texts n_layers d_model"], Float[Tensor, "n_texts"]]:
    """Texts minus the mean of their question and class, and weights with which every question and class counts the same (sum 1)."""
    cells = [rows for pair in data.cells.values() for rows in pair]
    if max(map(len, cells)) < 2:
        raise DataError(
            "no question has two texts of one class, so nothing says how far texts scatter; give more, or use question_balanced"
        )
    within = torch.cat([data.x[rows] - data.x[rows].mean(0) for rows in cells])
    return within, torch.cat([torch.full((len(rows),), 1 / (len(cells) * len(rows))) for rows in cells])


EXTRACTORS: Mapping[str, Extractor] = {
    "question_balanced": question_balanced,
    "mean_difference": pooled_mean_difference,
    "paired_pca": paired_pca,
    "standardised": standardised,
    "mass_mean": mass_mean,
    "logistic": logistic,
}


def extractor_named(name: str) -> Extractor:
    """Raises DataError with the nearest name when there is no such extractor."""
    if name not in EXTRACTORS:
        raise DataError(f"unknown extractor `{name}`{did_you_mean(name, EXTRACTORS)}")
    return EXTRACTORS[name]


def model_difference(
    organism: Float[Tensor, "n_texts n_layers d_model"], base: Float[Tensor, "n_texts n_layers d_model"]
) -> Float[Tensor, "n_layers d_model"]:
    """Mean activation of the organism minus that of the base model on the same texts (`model diffing`), residual-stream units.

    It holds everything that finetuning changed, style and format included; compare it with the text effect before naming it.
    """
    if organism.shape != base.shape:
        raise DataError(
            f"activations of shapes {tuple(organism.shape)} and {tuple(base.shape)}; both models must read the same texts, same layers"
        )
    return (organism - base).mean(0)
