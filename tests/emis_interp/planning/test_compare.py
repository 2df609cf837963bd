"""A plan beside a planted manifest: what was resumed is not compared, what has CPU time is compared by it."""

import datetime
import os
from pathlib import Path
from typing import Any

import pytest

from emis_interp.files.manifest import Manifest, OtherCode, StageRecord
from emis_interp.planning.compare import ITS_OWN, LAST_SESSION, compared, comparison_lines, overall

NOWHERE = Path("/nowhere")


def row(stage: str, alone: float, **more: Any) -> dict[str, Any]:
    return {"stage": stage, "seconds": 2 * alone, "seconds_alone": alone, "memory_gib": 2.0, "left_out": "", **more}


def manifest(stages: dict[str, tuple[float, float | None]], began: dict[str, str] | None = None) -> Manifest:
    """Stages that ended at noon, after so many seconds and so many of CPU time."""
    found = {
        name: StageRecord(
            seconds=s, finished="2026-01-01T12:00:00+00:00", line="", peak_rss_gib=2.5, files=[], cpu_seconds=cpu
        )
        for name, (s, cpu) in stages.items()
    }
    code: Any = {"revision": None, "dirty": None}
    return Manifest(
        config={},
        inputs={},
        versions={},
        git=code,
        sources_sha256="",
        started="",
        machine={"n_threads": 2},
        stages=found,
        other_code={name: [OtherCode(at=at, changes=["x"])] for name, at in (began or {}).items()},
    )


def test_stages_are_compared_by_the_clock_and_by_cpu_time() -> None:
    rows = compared(
        [row("check", 100), row("sample", 60), row("report", 0)],
        manifest({"check": (250, 160), "sample": (100, None), "report": (1, 1)}),
        NOWHERE,
        trained_s=None,
    )
    by = {one["stage"]: one for one in rows}
    assert by["check"]["off"] == pytest.approx(200 / 250 - 1)
    assert by["check"]["off_cpu"] == pytest.approx(100 / 80 - 1)
    assert by["check"]["off_gib"] == pytest.approx(-0.2)
    assert by["sample"]["off"] == pytest.approx(0.2) and by["sample"]["off_cpu"] is None
    assert by["report"]["off"] is None
    total = overall(rows)
    assert total["off"] == pytest.approx(320 / 350 - 1) and total["share"] == pytest.approx(160 / 350)
    assert total["off_cpu"] == pytest.approx(0.25)


def test_one_factor_leaves_what_the_plan_shares_out_wrongly() -> None:
    """Three stages on a machine that gave the run a quarter of its time; one took half as long as it should have."""
    rows = compared(
        [row("check", 100), row("sample", 100), row("score", 100)],
        manifest({"check": (400, None), "sample": (400, None), "score": (200, None)}),
        NOWHERE,
        trained_s=None,
    )
    scaled = overall(rows)["off_scaled"]
    assert scaled == pytest.approx({"check": -1 / 6, "sample": -1 / 6, "score": 2 / 3})
    said = "\n".join(comparison_lines(rows, overall(rows)))
    assert "2 of 3 stages are within 25%" in said and "not within 25%" in said


def test_a_stage_that_was_resumed_is_not_compared() -> None:
    """It began at 11:00 under other code, and its last session took a minute."""
    rows = compared(
        [row("capture", 100)],
        manifest({"capture": (60, 50)}, {"capture": "2026-01-01T11:00:00+00:00"}),
        NOWHERE,
        trained_s=None,
    )
    assert (rows[0]["off"], rows[0]["off_cpu"], rows[0]["note"]) == (None, None, LAST_SESSION)
    assert overall(rows)["off"] is None
    assert comparison_lines(rows, overall(rows))[-1] == "no stage can be compared"
    [one] = compared(
        [row("capture", 100)],
        manifest({"capture": (60, 50)}, {"capture": "2026-01-01T11:59:00+00:00"}),
        NOWHERE,
        trained_s=None,
    )
    assert one["note"] == "" and one["off"] is not None


def test_trainings_keep_their_own_seconds() -> None:
    [one] = compared([row("train", 100)], manifest({"train": (10, 9)}), NOWHERE, trained_s=190.0)
    assert (one["took_s"], one["off_cpu"], one["note"]) == (190.0, None, ITS_OWN)
    assert one["off"] == pytest.approx(200 / 190 - 1)
    [whole] = compared([row("train", 100)], manifest({"train": (195, 190)}), NOWHERE, trained_s=190.0)
    assert (whole["took_s"], whole["note"]) == (195, "")


@pytest.mark.parametrize(("age_s", "resumed"), [(30, False), (300, True), (-3600, False)])
def test_files_that_are_older_than_the_session_tell_that_it_is_not_all(
    tmp_path: Path, age_s: float, resumed: bool
) -> None:
    """A stage of a minute, of which one file was made so many seconds before its end; an hour later: the folder was copied."""
    found = manifest({"likelihood": (60, None)})
    path = tmp_path / "base.json"
    path.write_text("{}", "utf-8")
    noon = datetime.datetime.fromisoformat("2026-01-01T12:00:00+00:00").timestamp()
    os.utime(path, (noon - age_s, noon - age_s))
    found.stages["likelihood"] = found.stages["likelihood"].model_copy(update={"files": ["base.json"]})
    [one] = compared([row("likelihood", 100)], found, tmp_path, trained_s=None)
    assert (one["note"] == LAST_SESSION) == resumed == (one["off"] is None)
