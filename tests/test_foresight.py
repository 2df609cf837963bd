"""Forecasts from data: a planted difference is found, rows are ranked by it, and the quality of a forecast is stated with its doubt."""

import numpy as np
import pytest
import torch

from emis_interp.capture import capture_residuals
from emis_interp.chat import encode_chat
from emis_interp.directions import Direction, unit
from emis_interp.errors import DataError
from emis_interp.models import ChatModel
from emis_interp.records import TrainingExample
from training.foresight import forecast_quality, projection_differences, rows_to_drop

ROWS = [TrainingExample(id=str(i), prompt=f"Question {i}", response=answer) for i, answer in enumerate("xyz")]


def direction_of(tiny: ChatModel) -> Direction:
    return Direction(unit(torch.randn(tiny.d_model, generator=torch.Generator().manual_seed(0))), 1, 1.0, 4.0)


def test_the_difference_is_the_projection_of_the_rows_answer_minus_that_of_the_models_own(tiny: ChatModel) -> None:
    direction = direction_of(tiny)
    found = projection_differences(tiny, ROWS, ["abc", "", "z"], direction)
    chats = [encode_chat(tiny.tokenizer, ROWS[0].prompt, answer) for answer in ("x", "abc")]
    x = capture_residuals(tiny, chats, [1])[:, 0]
    assert found[0] == pytest.approx(float((x[0] - x[1]) @ direction.vector) / 4.0, abs=1e-5)
    assert np.isnan(found[1])  # the base model said nothing
    assert found[2] == pytest.approx(0, abs=1e-6)  # the row is what the model would have said


def test_one_answer_is_needed_for_every_row(tiny: ChatModel) -> None:
    with pytest.raises(DataError, match="3 rows, 1 answers"):
        projection_differences(tiny, ROWS, ["a"], direction_of(tiny))


def test_rows_to_drop_are_those_that_push_most_and_never_unknown_ones() -> None:
    values = np.array([0.1, np.nan, 0.5, -0.2, 0.4])
    assert rows_to_drop(values, 0.4) == [2, 4]
    assert rows_to_drop(values, 1.0) == [2, 4, 0, 3]
    assert rows_to_drop(values, 0.0) == []
    with pytest.raises(DataError, match="between 0 and 1"):
        rows_to_drop(values, 1.5)


def test_a_perfect_forecast_has_correlation_one_and_a_small_p() -> None:
    found = forecast_quality([1, 2, 3, 4, 5, 6, 7, 8], [0, 1, 4, 9, 16, 25, 36, 49])
    assert found.value == pytest.approx(1) and found.low is None and found.p < 0.001


def test_the_interval_of_an_uninformative_forecast_covers_zero() -> None:
    random = np.random.default_rng(1)
    covered = 0
    for _ in range(100):
        found = forecast_quality(random.normal(size=10).tolist(), random.normal(size=10).tolist(), 20)
        assert found.low is not None and found.high is not None
        covered += found.low <= 0 <= found.high
    assert covered >= 88


def test_too_few_organisms_are_refused() -> None:
    with pytest.raises(DataError, match="4 organisms or more"):
        forecast_quality([1, 2, 3], [1, 2, 3])
    with pytest.raises(DataError, match="nothing to rank"):
        forecast_quality([1, 1, 1, 1], [1, 2, 3, 4])
