"""The table of remedies: every margin stays in the record, seeds are paired, and p-values are corrected for the number of remedies."""

from typing import Any

import numpy as np
import pytest

from training.studies.prevention_study import FAMILY, against_words
from training.studies.prevention_table import against, beyond_controls, correct, summary
from training.studies.remedies import CONTROL, UNTREATED, Remedy


def test_the_record_keeps_the_margins_of_every_seed_beside_their_shifts() -> None:
    base = {"margin": {"a": -0.5, "b": -0.2}, "task": [0.0], "kl_neutral": 0.0}
    seeds = [
        against({"margin": {"a": -0.4 + x, "b": -0.1 + x}, "task": [1.0], "kl_neutral": 0.1}, base) for x in (0, 0.1)
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
            return {"margins": margin, "margin": margin, "task": [0.0, 1.0], "kl_neutral": 0.0}

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
        return {"margins": margin, "margin": margin, "task": [1.0 + shift, 2.0 + shift], "kl_neutral": shift}

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
        return {"margin": {"a": a, "b": b}}

    treated = [seed(-0.3, -0.1), seed(-0.5, -0.1)]
    drawn = [[seed(-0.1, 0.0), seed(-0.1, 0.0)], [seed(0.1, 0.2), seed(-0.3, 0.0)]]
    found = beyond_controls(treated, {"random": drawn})["random"]
    # by question, seed 0: -0.3 - 0.0, -0.1 - 0.1; seed 1: -0.5 + 0.2, -0.1 - 0.0
    assert found["value"] == pytest.approx((-0.3 - 0.2 - 0.3 - 0.1) / 4) and found["n_draws"] == 2
    assert found["low"] < found["value"] < found["high"] and 0 < found["p"] < 1
    assert beyond_controls(treated, {}) == {}
