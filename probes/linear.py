"""Turns activations and targets into a linear probe, and into predictions for groups that the probe never saw."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class Ridge:
    """A standardising linear map: `(x - center) / scale @ weight + bias`."""

    center: Float[np.ndarray, "n_features"]
    scale: Float[np.ndarray, "n_features"]
    weight: Float[np.ndarray, "n_features n_targets"]
    bias: Float[np.ndarray, "n_targets"]

    def predict(self, x: Float[np.ndarray, "n n_features"]) -> Float[np.ndarray, "n n_targets"]:
        return ((x - self.center) / self.scale) @ self.weight + self.bias


def fit_ridge(
    x: Float[np.ndarray, "n n_features"],
    y: Float[np.ndarray, "n n_targets"],
    penalty: float,
    *,
    weights: Float[np.ndarray, "n"] | None = None,
) -> Ridge:
    """Weighted ridge regression with standardised features and an unpenalised intercept."""
    return _Gram.of(x, y, np.ones(len(x)) if weights is None else weights).solve(penalty)


def grouped_predictions(
    x: Float[np.ndarray, "n n_features"],
    y: Float[np.ndarray, "n n_targets"],
    groups: np.ndarray,
    *,
    penalties: Sequence[float],
    weights: Float[np.ndarray, "n"] | None = None,
) -> dict[float, Float[np.ndarray, "n n_targets"]]:
    """For each penalty, predictions of every row by a probe fitted on the other groups only.

    The decomposition of a fold serves all penalties.
    """
    importance = np.ones(len(x)) if weights is None else weights
    result = {penalty: np.empty(y.shape) for penalty in penalties}
    for group in np.unique(groups):
        test = groups == group
        gram = _Gram.of(x[~test], y[~test], importance[~test])
        for penalty, fitted in zip(penalties, gram.solve_many(penalties), strict=True):
            result[penalty][test] = fitted.predict(x[test])
    return result


@dataclass(frozen=True)
class _Gram:
    """Weighted second moments of standardised features."""

    center: np.ndarray
    scale: np.ndarray
    mean_y: np.ndarray
    gram: np.ndarray
    cross: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> "_Gram":
        share = weights / weights.sum()
        center = share @ x
        scale = np.sqrt(share @ (x - center) ** 2) + 1e-6
        mean_y = share @ y
        standard = ((x - center) / scale).astype(np.float64)
        weighted = standard * weights[:, None]
        return cls(center, scale, mean_y, weighted.T @ standard, weighted.T @ (y - mean_y))

    def solve(self, penalty: float) -> Ridge:
        weight = np.linalg.solve(self.gram + penalty * np.eye(len(self.gram)), self.cross)
        return Ridge(self.center, self.scale, weight, self.mean_y)

    def solve_many(self, penalties: Sequence[float]) -> list[Ridge]:
        values, vectors = np.linalg.eigh(self.gram)
        rotated = vectors.T @ self.cross
        return [
            Ridge(self.center, self.scale, vectors @ (rotated / (values + penalty)[:, None]), self.mean_y)
            for penalty in penalties
        ]
