"""What of a separation is length: planted lengths are found, taken away, and matched."""

from typing import Any

import numpy as np
import pytest

from emis_interp.errors import DataError
from emis_interp.fitting.length_baseline import (
    length_baseline,
    matched_by_question,
    regressed_by_question,
    without_length,
)
from emis_interp.fitting.reliability import auroc_by_question


def texts(
    by_length: float, by_class: float, longer: float = 0.8, n_each: int = 200, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Scores, lengths, labels, questions: misaligned answers are longer by `longer` (in log tokens); topics differ in both."""
    generator = np.random.default_rng(seed)
    labels = np.tile([True, False], 4 * n_each)
    questions = [f"q{i // (2 * n_each)}" for i in range(len(labels))]
    topic = np.array([float(name[1:]) for name in questions])
    logs = 3 + 0.3 * topic + longer * labels + 0.6 * generator.normal(size=len(labels))
    lengths = np.maximum(1, np.exp(logs).round())
    scores = by_length * np.log(lengths) + by_class * labels - 5 * topic + 0.5 * generator.normal(size=len(labels))
    return scores, lengths, labels, questions


def baseline(data: tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]) -> dict[str, Any]:
    scores, lengths, labels, questions = data
    return length_baseline(scores, lengths, labels, questions=questions)


def test_a_projection_that_is_length_alone_is_unmasked() -> None:
    row = baseline(texts(by_length=1.0, by_class=0.0))
    assert row["projection"]["value"] > 0.7 and row["length"]["value"] > 0.75
    assert row["matched"]["value"] == pytest.approx(0.5, abs=0.05)
    assert row["regressed"]["value"] == pytest.approx(0.5, abs=0.05)


def test_a_projection_that_has_nothing_to_do_with_length_keeps_its_auroc() -> None:
    row = baseline(texts(by_length=0.0, by_class=1.0, longer=0.0))
    assert row["length"]["value"] == pytest.approx(0.5, abs=0.05)
    for key in ("regressed", "matched"):
        assert row[key]["value"] == pytest.approx(row["projection"]["value"], abs=0.03)
    assert row["matched"]["n_pairs"] > 500 and row["matched"]["n_questions"] == 4


@pytest.mark.parametrize("longer", [0.8, -0.8])
def test_of_a_projection_of_both_a_part_is_left_whichever_class_is_longer(longer: float) -> None:
    row = baseline(texts(by_length=np.sign(longer), by_class=0.5, longer=longer))
    assert (row["length"]["value"] > 0.5) == (longer > 0)
    for key in ("regressed", "matched"):
        assert 0.55 < row[key]["value"] < row["projection"]["value"] - 0.05
        assert row[key]["low"] < row[key]["value"] < row[key]["high"]


def test_scores_that_are_length_exactly_are_ties_and_not_a_ranking_of_rounding() -> None:
    _, lengths, labels, questions = texts(0.0, 0.0)
    scores = 3 * np.log(lengths) + np.array([10.0 * int(name[1:]) for name in questions])
    np.testing.assert_array_equal(without_length(scores, lengths, questions), 0)
    assert set(regressed_by_question(scores, lengths, labels, questions=questions).values()) == {0.5}


def test_equal_lengths_change_nothing_and_give_every_pair() -> None:
    scores, _, labels, questions = texts(0.0, 1.0, n_each=5)
    lengths = np.full(len(scores), 7.0)
    plain = auroc_by_question(scores, labels, questions)
    assert regressed_by_question(scores, lengths, labels, questions=questions) == pytest.approx(plain)
    matched, n_pairs = matched_by_question(scores, lengths, labels, questions=questions)
    assert matched == pytest.approx(plain) and n_pairs == 4 * 25


def test_pairs_are_of_one_question_and_of_nearly_equal_length() -> None:
    scores = np.array([1.0, 0.0, 5.0, 9.0, 2.0])
    labels = np.array([True, False, False, True, False])
    questions = ["a", "a", "a", "b", "b"]
    found = matched_by_question(scores, np.array([10.0, 9.0, 11.0, 10.0, 20.0]), labels, questions=questions)
    assert found == ({"a": 0.5}, 2)  # 10 with 9 and with 11; b has no answer of equal length
    assert matched_by_question(scores, np.array([10.0, 8.9, 12.0, 10.0, 20.0]), labels, questions=questions) == ({}, 0)
    row = length_baseline(scores, np.array([10.0, 8.9, 12.0, 10.0, 20.0]), labels, questions=questions)
    assert row["matched"]["value"] is None and row["matched"]["n_questions"] == 0


@pytest.mark.parametrize("lengths", [[1.0, 0.0], [1.0], [float("nan"), 1.0]])
def test_a_text_without_a_length_is_refused(lengths: list[float]) -> None:
    with pytest.raises(DataError, match="at least one token"):
        without_length(np.zeros(2), np.array(lengths), ["a", "a"])
