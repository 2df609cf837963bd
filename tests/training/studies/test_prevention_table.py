"""The table of remedies: every margin stays in the record, seeds are paired, and p-values are corrected for the number of remedies."""

from typing import Any

import numpy as np
import pytest

from training.studies.prevention_study import FAMILY, about_beside, against_words, beside_line, beyond_words
from training.studies.prevention_table import against, base_accuracy, beyond_controls, correct, summary
from training.studies.remedies import CONTROL, UNTREATED, Remedy

UNREAD: dict[str, Any] = {"context": None, "context_margins": None, "choices": [None, None]}
"""Neither training-like contexts nor a control's answers."""


def test_the_record_keeps_the_margins_of_every_seed_beside_their_shifts() -> None:
    unread = {"margin_in_context": None, "task_other_kind": [None]}
    base = {"margin": {"a": -0.5, "b": -0.2}, "task": [0.0], "kl_neutral": 0.0, **unread}
    seeds = [
        against({**base, "margin": {"a": -0.4 + x, "b": -0.1 + x}, "task": [1.0], "kl_neutral": 0.1}, base)
        for x in (0, 0.1)
    ]
    found = summary(Remedy("mix"), seeds, seeds)
    assert found["margins"] == [{"a": -0.4, "b": -0.1}, {"a": pytest.approx(-0.3), "b": 0.0}]
    assert found["margin_shift"]["value"] == pytest.approx(0.15)


def test_of_remedies_that_do_nothing_few_studies_show_one_and_a_real_one_is_shown() -> None:
    """Ten remedies and no effect: one interval in twenty leaves 0 out, so two studies of five would have a finding."""
    rng = np.random.default_rng(0)

    def study(effect: float) -> list[dict[str, Any]]:
        def seed(shift: float = 0.0) -> dict[str, Any]:
            margin = {str(i): float(value) for i, value in enumerate(rng.normal(shift, 0.05, 15))}
            return {"margins": margin, "margin": margin, "task": [0.0, 1.0], "kl_neutral": 0.0, **UNREAD}

        untreated = [seed()]
        names = [UNTREATED, CONTROL, *(f"remedy {i}" for i in range(10))]
        rows = [
            summary(Remedy(name), untreated if name == UNTREATED else [seed(effect * (name == "remedy 3"))], untreated)
            for name in names
        ]
        correct(rows)
        return rows

    found: list[list[dict[str, Any]]] = [study(0.0) for _ in range(100)]
    shown = {
        key: sum(any(row["against_untreated"][key] < 0.05 for row in rows[2:]) for rows in found)
        for key in ("p", "p_holm")
    }
    assert shown["p"] > 25 and shown["p_holm"] <= 10
    rows = study(-0.2)
    told = [row["name"] for row in rows if (row["against_untreated"].get("p_holm") or 1.0) < 0.05]
    assert told == ["remedy 3"] and "p_holm" not in rows[1]["against_untreated"]  # the control is no remedy
    assert " p " in against_words(rows[5]) and against_words(rows[0]) == ""
    assert "corrected for the number of remedies" in FAMILY


def test_a_remedy_over_several_seeds_is_paired_by_seed_and_as_sure_as_its_seeds_allow() -> None:
    def seed(shift: float) -> dict[str, Any]:
        margin = {"a": 0.1 + shift, "b": 0.3 + shift}
        return {"margins": margin, "margin": margin, "task": [1.0 + shift, 2.0 + shift], "kl_neutral": shift, **UNREAD}

    untreated = [seed(0.0), seed(0.4), seed(-0.4)]
    treated = [{**row, "margin": {name: value - 0.2 for name, value in row["margin"].items()}} for row in untreated]
    rows = summary(Remedy("steer"), treated, untreated)
    assert rows["against_untreated"]["value"] == pytest.approx(-0.2)
    assert rows["against_untreated"]["high"] == pytest.approx(-0.2)  # the seeds' own ups and downs cancel
    one = summary(Remedy("steer"), treated[:1], untreated[:1])
    wide, narrow = rows["margin_shift"], one["margin_shift"]
    assert wide["high"] - wide["low"] > narrow["high"] - narrow["low"] > 0
    assert rows["margin_by_seed"] == pytest.approx([0.0, 0.4, -0.4]) and rows["task_gain"]["n"] == 6


def test_what_a_remedy_does_beyond_its_random_controls_is_paired_by_question_and_seed() -> None:
    def seed(a: float, b: float) -> dict[str, Any]:
        return {
            "margin": {"a": a, "b": b},
            "context": {"a": 2 * a, "b": b},
            "task": [a, b],
            "choices": [float(a < b), None],
        }

    treated = [seed(-0.3, -0.1), seed(-0.5, -0.1)]
    drawn = [[seed(-0.1, 0.0), seed(-0.1, 0.0)], [seed(0.1, 0.2), seed(-0.3, 0.0)]]
    found = beyond_controls(treated, {"random": drawn})["random"]
    # by question, seed 0: -0.3 - 0.0, -0.1 - 0.1; seed 1: -0.5 + 0.2, -0.1 - 0.0
    assert found["value"] == pytest.approx((-0.3 - 0.2 - 0.3 - 0.1) / 4) and found["n_draws"] == 2
    assert found["low"] < found["value"] < found["high"] and 0 < found["p"] < 1
    assert beyond_controls(treated, {}) == {}
    # in context every `a` counts twice; tasks are paired by row, and no more than one row of two has a choice
    assert found["context"]["value"] == pytest.approx((-0.6 - 0.2 - 0.6 - 0.1) / 4)
    assert found["task"]["value"] == pytest.approx(found["value"]) and found["task"]["n"] == 4
    assert found["task_accuracy"]["value"] == pytest.approx(0.0) and found["task_accuracy"]["n"] == 2
    row = {"name": "persona", "beyond_controls": {"random": found}}
    assert "isotropic subspaces of 4 dimensions" in beyond_words(row)[0] and "in context -0.375" in beyond_words(row)[0]


def test_task_accuracy_and_the_margin_in_context_stand_beside_those_of_base_and_of_the_untreated() -> None:
    def measured(context: float, task: list[float]) -> dict[str, Any]:
        margin = {"a": context / 2, "b": 0.0}
        in_context = {"a": context, "b": context + 0.2}
        other = [-1.0, -1.0, -1.0, None]
        return {
            "margin": margin,
            "margin_in_context": in_context,
            "task": task,
            "task_other_kind": other,
            "kl_neutral": 0.0,
        }

    base = measured(-0.5, [-2.0, -2.0, -0.5, -2.0])
    untreated = [against(measured(0.1, [-0.5, -0.5, -0.5, -1.0]), base)]
    treated = [against(measured(-0.3, [-0.5, -2.0, -0.5, -1.0]), base)]
    row = summary(Remedy("persona"), treated, untreated)
    assert row["task_accuracy"]["value"] == pytest.approx(2 / 3) and row["task_accuracy"]["n"] == 3
    assert row["task_accuracy_against_untreated"]["value"] == pytest.approx(-1 / 3)
    assert row["context_shift"]["value"] == pytest.approx(0.2)
    assert row["context_against_untreated"]["value"] == pytest.approx(-0.4)
    assert row["context_margins"] == [{"a": -0.3, "b": pytest.approx(-0.1)}]
    about = base_accuracy([base], "careful")
    assert about["base"]["value"] == pytest.approx(1 / 3) and about["chance"] == 0.5 and about["why_none"] is None
    accuracy, context = about_beside({"task_accuracy": about, "context_unread": None})
    assert (
        "share of 3 of 4 held-out rows" in accuracy and "`careful`" in accuracy and "chance 0.5, base 0.33" in accuracy
    )
    assert "base reads the same contexts" in context and "against untreated -0.333" in beside_line(row)


def test_what_cannot_be_measured_is_said_with_its_reason() -> None:
    unread = {"margin_in_context": None, "task_other_kind": [None, None]}
    one = {"margin": {"a": 0.1, "b": 0.3}, "task": [-1.0, -2.0], "kl_neutral": 0.0, **unread}
    seeds = [against(one, one)]
    row = summary(Remedy("persona"), seeds, seeds)
    for name in ("task_accuracy", "task_accuracy_against_untreated", "context_shift", "context_against_untreated"):
        assert row[name] is None
    about = base_accuracy([one], "careful")
    assert about["base"] is None and "matched set (--control)" in about["why_none"]
    lines = about_beside({"task_accuracy": about, "context_unread": "the template drops turns"})
    assert "not measured, no held-out row has another answer of `careful`" in lines[0]
    assert lines[1] == "margin in context: not measured, the template drops turns"
    assert beside_line(row).count("not measured") == 4
    beyond = beyond_controls(seeds, {"random": [seeds]})["random"]
    assert beyond["context"] is None and beyond["task_accuracy"] is None and beyond["task"]["value"] == 0
