"""Cells of the README's tables: estimates with and without intervals, rates of nothing, draws of random directions."""

import json
from pathlib import Path
from typing import Any

import pytest

from emis_interp.errors import StageError
from emis_interp.report import run_tables
from emis_interp.report.settings import RunTablesSettings
from emis_interp.report.summary import draw_words
from emis_interp.results import ArmRates, Draws


def test_a_table_has_a_head_a_rule_and_its_rows() -> None:
    assert run_tables.markdown_table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"mean": 0.075, "low": 0.05, "high": 0.1}, "+0.075 [+0.050, +0.100]"),
        ({"mean": -0.5, "low": None, "high": None}, "-0.500 no interval"),
    ],
)
def test_a_shift_says_its_interval_or_that_there_is_none(row: dict[str, Any], said: str) -> None:
    assert run_tables.shift(row) == said


def test_a_rate_of_nothing_and_an_exploratory_contrast_have_a_dash() -> None:
    nothing = {"estimand": "em_of_all", "weighting": "pooled", "value": None}

    def said(rate: dict[str, Any]) -> str:
        return run_tables.rate(ArmRates.model_validate({"arm": "a", "n": 4, "rates": [rate]}), "em_of_all")

    assert said(nothing) == run_tables.corrected_p({}) == "–"
    found = {**nothing, "value": 0.25, "low": 0.1, "high": 0.5, "n_positive": 1, "n": 4}
    assert said(found) == "25.0% [10.0%, 50.0%], 1 of 4"


def test_control_directions_are_counted_that_come_as_far_as_the_direction_that_was_found() -> None:
    draws = Draws(n_pairs=4, own=0.3, shifts={"random": [0.1, -0.4, 0.2], "orthogonal": [0.0]})
    said = draw_words(draws)
    assert "3 random directions −0.400 to +0.200, 1 as far from 0 (p 0.5)" in said
    assert "1 usage-matched directions +0.000 to +0.000, none as far from 0 (p 0.5)" in said


def test_the_tables_of_a_run_are_those_of_the_stages_that_were_made(tmp_path: Path) -> None:
    (tmp_path / "analysis").mkdir()
    with pytest.raises(StageError, match="no analysis there"):
        run_tables.run(RunTablesSettings(run_dir=tmp_path))
    arm = {"share": {"value": 0.2, "low": 0.1, "high": 0.3}, "mass": 0.9}
    row = {"arm": "bad", "reference": "good", "value": 0.1, "low": -0.05, "high": 0.25, "p_holm": 0.12}
    (tmp_path / "analysis" / "choices.json").write_text(json.dumps({"arms": {"base": arm}, "contrasts": [row]}))
    said = run_tables.say(run_tables.run(RunTablesSettings(run_dir=tmp_path)))
    assert "| base | 20.0 [10.0, 30.0] | 90 % |" in said and "| bad − good | +10.0 [-5.0, +25.0] | 0.12 |" in said
    assert "margin" not in said and "Direction" not in said


def test_what_was_read_by_hand_has_its_counts_and_seeds() -> None:
    groups = [
        {
            "model": "small",
            "arm": arm,
            "n": 48,
            "n_models": n,
            "n_coherent": 20,
            "n_misaligned": 9,
            "misaligned_of_coherent": "6 of 20",
        }
        for arm, n in (("base", 1), ("bad", 3))
    ]
    row = {"model": "small", "arm": "bad", "reference": "base", "value": 0.17, "low": -0.03, "high": 0.36}
    row |= {"counts": "9 of 48 against 1 of 48", "by_seed": {"0": 0.1, "1": 0.24}, "arm_at_most": None}
    found = run_tables.hand_label_cells({"groups": groups, "contrasts": [row]})
    assert found["read"][1] == ["bad (3 seeds)", "20 of 48", "9 of 48", "6 of 20"]
    assert found["read_contrasts"] == [["bad − base", "+17 [-3, +36]", "9 of 48 against 1 of 48", "+10, +24"]]
    none = {**row, "value": 0.0, "low": None, "high": None, "arm_at_most": 0.074}
    assert run_tables.hand_label_cells({"groups": groups, "contrasts": [none]})["read_contrasts"][0][1] == (
        "+0 (the arm at most 7 % of answers)"
    )
