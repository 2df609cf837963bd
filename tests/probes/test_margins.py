"""Differences of margins between arms: paired by question, over the models of an arm, and the primary ones corrected as one family."""

import numpy as np
import pytest

from emis_interp.records import ContrastPair
from probes.comparison.margins import by_base_margin, contrast_of, correct


def pairs_of(n_questions: int, n_each: int) -> list[ContrastPair]:
    return [
        ContrastPair(question_id=f"q{i}", group=f"g{i % 2}", half="report", question="?", aligned="a", misaligned="b")
        for i in range(n_questions)
        for _ in range(n_each)
    ]


def test_a_margin_contrast_is_between_means_over_models_paired_by_question() -> None:
    pairs, rng = pairs_of(6, 4), np.random.default_rng(0)
    shared = rng.normal(0, 3, 24)  # the pairs' own margins, which must cancel
    values = {
        "base": {"base": shared},
        "bad": {f"bad.seed-{seed}": shared + 0.5 + 0.1 * seed for seed in range(3)},
        "mild": {f"mild.seed-{seed}": shared + 0.1 + 0.02 * seed for seed in range(2)},
    }
    row = contrast_of(pairs, "bad", "mild", values=values)
    assert row["mean"] == pytest.approx(0.6 - 0.11)
    assert row["by_model"] == pytest.approx({f"bad.seed-{seed}": 0.5 + 0.1 * seed - 0.11 for seed in range(3)})
    assert (row["n_models"], row["n_reference_models"], row["n_positive"]) == (3, 2, 6)
    assert row["by_question"] == pytest.approx({f"q{i}": 0.49 for i in range(6)})
    # All questions agree, so that the width is that of the seeds alone: t over 3 and over 2, in squares.
    half = np.hypot(4.3027 * 0.1 / np.sqrt(3), 12.7062 * 0.02 / np.sqrt(2) / np.sqrt(2))
    for part in (*row["by_group"].values(), *row["question_intervals"].values()):
        assert (part["mean"], part["high"] - part["mean"]) == pytest.approx((0.49, half), abs=1e-3)


def test_thirds_by_bases_margin_tell_a_flattening_from_a_shift_of_every_pair() -> None:
    pairs = pairs_of(6, 5)
    base = np.random.default_rng(1).permutation(np.linspace(-1.2, 0.3, 30))
    flattened, shifted = (
        by_base_margin(pairs, -0.3 * base, base),
        by_base_margin(pairs, np.full(30, 0.1) + 0.01 * base, base),
    )
    assert [(row["n"], round(row["base_low"], 2)) for row in flattened] == [(10, -1.2), (10, -0.68), (10, -0.17)]
    assert flattened[0]["mean"] > 0.25 and flattened[2]["mean"] < 0.0
    assert all(row["low"] > 0.05 for row in shifted)
    assert flattened[1]["mean"] == pytest.approx(-0.3 * np.sort(base)[10:20].mean())
    assert flattened[1]["low"] < flattened[1]["mean"] < flattened[1]["high"]


def test_a_contrast_of_single_models_has_no_keys_of_seeds() -> None:
    pairs = pairs_of(3, 2)
    row = contrast_of(pairs, "a", "base", values={"a": {"a": np.arange(6.0)}, "base": {"base": np.zeros(6)}})
    assert not {"by_model", "n_models", "n_reference_models"} & row.keys()


def test_contrasts_with_the_configured_control_are_one_family_and_the_others_are_exploratory() -> None:
    rows = [
        {"arm": "insecure", "reference": "base", "p": 0.001},
        {"arm": "insecure", "reference": "secure", "p": 0.03},
        {"arm": "educational", "reference": "insecure", "p": 0.04},
        {"arm": "reckless", "reference": "careful", "p": 0.0001},
        {"arm": "secure", "reference": "base", "p": None},
    ]
    correct(rows, {"insecure": "secure", "educational": "insecure", "reckless": "careful", "secure": None})
    assert [row.get("p_holm") for row in rows] == [
        None,
        pytest.approx(0.06),
        pytest.approx(0.06),
        pytest.approx(0.0003),
        None,
    ]
    assert "p_holm" not in rows[0] and "p_holm" not in rows[4]
