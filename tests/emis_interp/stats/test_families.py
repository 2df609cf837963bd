"""Families of tests are corrected as in the textbook, and false findings stay at the level."""

import numpy as np
import pytest

from emis_interp.stats.families import holm, mean_p


def test_holm_is_that_of_the_textbook_and_keeps_the_order() -> None:
    found = holm({"a": 0.03, "b": 0.01, "c": 0.04, "d": 0.9})
    assert found == {"a": pytest.approx(0.09), "b": pytest.approx(0.04), "c": pytest.approx(0.09), "d": 0.9}
    assert list(found) == list("abcd")
    assert holm({"a": 0.4}) == {"a": 0.4} and holm({}) == {}


def test_holm_keeps_false_findings_of_a_family_at_the_level() -> None:
    generator = np.random.default_rng(0)
    families = generator.random((4000, 9))
    uncorrected = (families.min(1) < 0.05).mean()
    corrected = np.mean(
        [min(v for v in holm(dict(enumerate(row))).values() if v is not None) < 0.05 for row in families]
    )
    assert uncorrected > 0.3 and corrected == pytest.approx(0.05, abs=0.012)


def test_a_cell_without_a_test_does_not_count_in_the_family() -> None:
    assert holm({"a": 0.03, "none": None, "b": 0.5}) == {"a": pytest.approx(0.06), "none": None, "b": 0.5}


def test_the_p_value_of_a_mean_is_students_and_none_without_spread() -> None:
    assert mean_p([1.0, 2.0, 3.0]) == pytest.approx(0.0742, abs=1e-4)  # t = 3.464 on 2 degrees of freedom
    assert mean_p([0.4, 0.6], null=0.5) == pytest.approx(1.0)
    assert mean_p([1.0, 1.0]) is None and mean_p([1.0]) is None
