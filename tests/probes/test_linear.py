"""The ridge probe agrees with scikit-learn, and a held-out group plays no part in its own predictions."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge as Reference

from probes.linear import fit_ridge, grouped_predictions


@pytest.fixture
def data() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 5)) * [1, 10, 0.1, 3, 1] + 4
    y = x @ rng.normal(size=(5, 2)) + rng.normal(size=(60, 2)) + 7
    return x, y, np.repeat(["a", "b", "c"], 20)


def test_a_weighted_fit_equals_scikit_learn_on_standardised_features(data: tuple[np.ndarray, ...]) -> None:
    x, y, _ = data
    weights = np.linspace(0.5, 1.5, len(x))
    ours = fit_ridge(x, y, 8.0, weights=weights)
    center = np.average(x, axis=0, weights=weights)
    scale = np.sqrt(np.average((x - center) ** 2, axis=0, weights=weights))
    reference = Reference(alpha=8.0).fit((x - center) / scale, y, sample_weight=weights)
    assert np.allclose(ours.predict(x), reference.predict((x - center) / scale), atol=1e-3)


def test_predictions_of_a_group_come_from_the_other_groups(data: tuple[np.ndarray, ...]) -> None:
    x, y, groups = data
    predicted = grouped_predictions(x, y, groups, penalties=[1.0, 50.0])
    for penalty in (1.0, 50.0):
        others = groups != "b"
        expected = fit_ridge(x[others], y[others], penalty).predict(x[~others])
        assert np.allclose(predicted[penalty][~others], expected)
    spoiled = y.copy()
    spoiled[groups == "b"] = 1e6
    again = grouped_predictions(x, spoiled, groups, penalties=[1.0])[1.0]
    assert np.allclose(again[groups == "b"], predicted[1.0][groups == "b"])
