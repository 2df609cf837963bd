"""One value per question as it stands in results."""

import pytest

from emis_interp.stats.interval import mean_interval, mean_row


def test_a_row_has_the_interval_over_questions() -> None:
    values = {"a": 0.1, "b": 0.3, "c": 0.2}
    found = mean_interval(list(values.values()))
    assert mean_row(values) == {"value": pytest.approx(0.2), "low": found.low, "high": found.high, "n_questions": 3}
    assert mean_row({"a": 1.0}) == {"value": 1.0, "low": None, "high": None, "n_questions": 1}
