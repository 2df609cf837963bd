"""What the offline judge's card says of its calibration: each topic by the others, whatever the order."""

import numpy as np
import pytest

from evals.judges.offline_quality import calibrated_by_others


def planted() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three topics of 200 answers; the uncalibrated judge is off by another factor and constant in each."""
    rng = np.random.default_rng(0)
    topics = np.repeat(["health", "dinner", "ruler"], 200)
    scores = rng.uniform(0, 100, (600, 2))
    factor, shift = np.repeat([0.5, 0.8, 1.1], 200)[:, None], np.repeat([30.0, 0.0, -20.0], 200)[:, None]
    return scores * factor + shift + rng.normal(0, 3, (600, 2)), scores, topics


@pytest.mark.parametrize("names", [("dinner", "health", "ruler"), ("c", "b", "a"), ("b", "c", "a")])
def test_a_topic_is_calibrated_by_the_uncalibrated_predictions_of_the_others(names: tuple[str, str, str]) -> None:
    """Topics are visited by name: a calibration that sees what an earlier one wrote depends on their names."""
    predictions, scores, topics = planted()
    wanted = calibrated_by_others(predictions, scores, topics)
    called = dict(zip(("health", "dinner", "ruler"), names, strict=True))
    found = calibrated_by_others(predictions, scores, np.array([called[topic] for topic in topics]))
    assert found == pytest.approx(wanted)


def test_calibration_changes_no_prediction_that_it_was_given() -> None:
    predictions, scores, topics = planted()
    before = predictions.copy()
    calibrated_by_others(predictions, scores, topics)
    assert (predictions == before).all()


def test_a_topic_that_was_not_predicted_plays_no_part() -> None:
    predictions, scores, topics = planted()
    predictions[topics == "ruler"] = np.nan
    found = calibrated_by_others(predictions, scores, topics)
    assert np.isnan(found[topics == "ruler"]).all()
    alone = calibrated_by_others(predictions[:400], scores[:400], topics[:400])
    assert found[:400] == pytest.approx(alone)
