"""Turns a plan and the manifest of the run that it was for into how far off the plan was, stage by stage.

By the clock a plan can only be right on a machine that is as busy during the run as during the calibration. So every stage is compared
three times: by the clock; by CPU time, where the manifest has it; and by the clock after one factor for all stages, fitted on the run
itself, which says whether the plan shares time out rightly between stages and nothing about its level.
"""

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from emis_interp.files.manifest import Manifest

GOAL = 0.25
"""A plan within this share of what a stage took is a good one."""
SHORT_S = 5
"""Stages below so many planned seconds are not compared."""
SLACK_S = 5
LAST_SESSION = "resumed: the manifest has its last session only"
ITS_OWN = "resumed: seconds of its trainings, by their summaries"


def compared(
    plan: Sequence[Mapping[str, Any]], manifest: Manifest, folder: Path, *, trained_s: float | None
) -> list[dict[str, Any]]:
    """A row for each stage of the plan that the run has finished.

    The manifest has the seconds of a stage's last session: of one that was interrupted they are a part, and such a row is not compared.
    Trainings keep their own seconds over all sessions, which then take the manifest's place.

    Args:
        plan: rows with `stage`, `seconds`, `seconds_alone`, and `memory_gib`.
        folder: of the run; the ages of its files tell which stages were resumed.
        trained_s: seconds of all trainings by their summaries; None where there are none.

    Returns:
        `planned_s`, `alone_s`, `took_s`, `cpu_s`, `off` (planned / took - 1), `off_cpu` (alone / CPU time over threads - 1),
        `planned_gib`, `peak_gib` (of the process so far), `off_gib`, `note`; None for what is not known.
    """
    rows = []
    n_threads = manifest.machine.get("n_threads") or 1
    for planned in plan:
        name = planned["stage"]
        stage = manifest.stages.get(name)
        if stage is None:
            continue
        took, cpu, note = stage.seconds, stage.cpu_seconds, LAST_SESSION if began_before(manifest, name, folder) else ""
        if name == "train" and trained_s is not None and trained_s > stage.seconds + 1:
            took, cpu, note = trained_s, None, ITS_OWN
        known = note != LAST_SESSION and planned["seconds_alone"] >= SHORT_S
        gib = planned.get("memory_gib")
        rows.append(
            {
                "stage": name,
                "planned_s": planned["seconds"],
                "alone_s": planned["seconds_alone"],
                "took_s": took,
                "cpu_s": cpu,
                "off": off(planned["seconds"], took) if known else None,
                "off_cpu": off(planned["seconds_alone"], cpu / n_threads) if known and cpu else None,
                "planned_gib": gib,
                "peak_gib": stage.peak_rss_gib,
                "off_gib": off(gib, stage.peak_rss_gib) if gib else None,
                "note": note,
            }
        )
    return rows


def off(planned: float, took: float) -> float | None:
    """planned / took - 1; positive where the plan was too long."""
    return planned / took - 1 if took else None


def began_before(manifest: Manifest, stage: str, folder: Path) -> bool:
    """Whether a stage was worked on before the session in which it was finished: a file of it is older. In a folder that was copied since,
    where all are younger than its end, notes of other code tell."""
    record = manifest.stages[stage]
    finished = datetime.datetime.fromisoformat(record.finished)
    started = finished - datetime.timedelta(seconds=record.seconds)
    times = [path.stat().st_mtime for path in (folder / name for name in record.files) if path.exists()]
    if times and min(times) <= finished.timestamp() + SLACK_S:
        return min(times) < started.timestamp() - SLACK_S
    notes = manifest.other_code.get(stage, ())
    return any(datetime.datetime.fromisoformat(note.at).timestamp() < started.timestamp() - SLACK_S for note in notes)


def overall(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of all stages that can be compared.

    Returns:
        `off` of their sum by the clock; `share`, their planned time alone over what they took: the share of its speed that the machine gave
        the run if the plan is right; `off_scaled`: stage -> how far off after that one factor; `off_cpu` of the sum of those with CPU time.
    """
    known = [row for row in rows if row["off"] is not None]
    planned, alone, took = (sum(row[key] for row in known) for key in ("planned_s", "alone_s", "took_s"))
    timed = [row for row in known if row["off_cpu"] is not None]
    share = alone / took if took else None
    return {
        "goal": GOAL,
        "planned_s": planned,
        "took_s": took,
        "off": off(planned, took),
        "share": share,
        "off_scaled": {row["stage"]: row["alone_s"] / share / row["took_s"] - 1 for row in known} if share else {},
        "off_cpu": off(
            sum(row["alone_s"] for row in timed), sum(row["alone_s"] / (1 + row["off_cpu"]) for row in timed)
        ),
    }


def comparison_lines(rows: Sequence[Mapping[str, Any]], total: Mapping[str, Any]) -> list[str]:
    """The rows as a table, and what they come to."""
    lines = [f"{'stage':11}{'planned':>10}{'took':>10}{'off':>8}{'scaled':>8}{'CPU':>8}{'GiB':>7}{'peak':>7}{'off':>8}"]
    for row in rows:
        planned_gib = "" if row["planned_gib"] is None else f"{row['planned_gib']:.1f}"
        scaled = total["off_scaled"].get(row["stage"])
        lines.append(
            f"{row['stage']:11}{row['planned_s']:>8.0f} s{row['took_s']:>8.0f} s{_share(row['off']):>8}{_share(scaled):>8}"
            f"{_share(row['off_cpu']):>8}{planned_gib:>7}{row['peak_gib']:>7.1f}{_share(row['off_gib']):>8}  {row['note']}".rstrip()
        )
    if total["off"] is None:
        return [*lines, "no stage can be compared"]
    goal, scaled = total["goal"], total["off_scaled"].values()
    lines.append(
        f"all compared, by the clock: {total['planned_s']:.0f} s planned, {total['took_s']:.0f} s taken, {_share(total['off'])} "
        f"({_within(total['off'], goal)} {goal:.0%})"
    )
    lines.append(
        f"scaled: the plan is right if the machine gave the run {total['share']:.0%} of its speed; with that one factor "
        f"{sum(abs(one) <= goal for one in scaled)} of {len(scaled)} stages are within {goal:.0%}"
    )
    if total["off_cpu"] is not None:
        lines.append(f"by CPU time: {_share(total['off_cpu'])} ({_within(total['off_cpu'], goal)} {goal:.0%})")
    return lines


def _within(value: float, goal: float) -> str:
    return "within" if abs(value) <= goal else "not within"


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:+.0f} %"
