"""The picture of several runs: primary contrasts in the units of their columns, a dot for every seed, gaps where nothing was measured."""

import json
from pathlib import Path
from typing import Any

import pytest

from emis_interp.errors import StageError
from emis_interp.report import findings
from emis_interp.report.settings import FindingsSettings


def contrast(arm: str, reference: str, key: str, value: float, **more: Any) -> dict[str, Any]:
    return {"arm": arm, "reference": reference, key: value, "low": value - 0.1, "high": value + 0.1, **more}


def a_run(folder: Path, **tables: list[dict[str, Any]]) -> Path:
    (folder / "analysis").mkdir(parents=True)
    for name, rows in tables.items():
        (folder / "analysis" / f"{name}.json").write_text(json.dumps({"contrasts": rows}))
    return folder


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    margins = [contrast("bad", "good", "mean", 0.02, p_holm=0.04, by_model={"bad.seed-0": 0.01, "bad.seed-1": 0.03})]
    read = [
        contrast("bad", "good", "value", 0.17, by_seed={"0": 0.1, "1": 0.24}),
        contrast("bad", "base", "value", 0.5),
    ]
    choices = [contrast("bad", "good", "value", 0.05, p_holm=1.0), contrast("good", "base", "value", 0.3, p_holm=None)]
    return a_run(tmp_path / "whole", margins=margins, hand_labels=read, choices=choices)


def test_primary_contrasts_stand_in_the_units_of_their_columns_with_their_seeds(whole: Path) -> None:
    found = {row["measure"]: row for row in findings.contrasts(whole)}
    assert len(findings.contrasts(whole)) == 3  # nothing against base, which is exploratory
    assert found["hand_labels"]["value"] == pytest.approx(17) and found["hand_labels"]["low"] == pytest.approx(7)
    assert found["hand_labels"]["seeds"] == pytest.approx([10, 24])
    assert found["margins"]["value"] == 0.02 and found["margins"]["seeds"] == [0.01, 0.03]
    assert found["choices"]["value"] == pytest.approx(5) and found["choices"]["seeds"] == []


def test_a_run_without_a_measure_leaves_a_gap_and_the_page_names_both_runs(whole: Path, tmp_path: Path) -> None:
    other = a_run(tmp_path / "other", margins=[contrast("null", "good", "mean", 0.5, p_holm=1.0)])
    result = findings.run(FindingsSettings(runs=(whole, other), out=tmp_path / "page.html"))
    text = (tmp_path / "page.html").read_text()
    assert "whole" in text and "null − good" in text and len(result["runs"]["other"]) == 1
    assert "bad − good +17 [+7, +27]" in findings.say(result)
    drawn: Any = findings.figure(result["runs"])
    alone: Any = findings.figure({"other": result["runs"]["other"]})
    titles = [axis.title.text for axis in drawn.select_xaxes()]
    assert len(titles) == 3 and len(alone.data) == 1
    heights = {trace.y[0] for trace in drawn.data if len(trace.x) == 1}
    assert heights == {1, 2}


def test_a_folder_without_analyses_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="no hand_labels, margins, choices under analysis"):
        findings.contrasts(tmp_path)
