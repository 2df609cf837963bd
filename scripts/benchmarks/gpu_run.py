"""Turns the checks of a GPU into one JSON: each in a process of its own, kept as soon as it is there, within a budget of minutes."""

import importlib.metadata
import json
import logging
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.gpu_checks import CHECKS, GpuCheck, scaled
from benchmarks.gpu_subject import Subject
from emis_interp.errors import DataError, StageError
from emis_interp.files.claim import claim
from emis_interp.files.code_state import CodeState
from emis_interp.files.names import shown
from emis_interp.files.sealed import is_as_sealed, sealed
from emis_interp.files.store import write_json
from emis_interp.process import Bars

log = logging.getLogger(__name__)
KEPT = ("passed", "failed", "dry run: met", "dry run: not met")
"""Verdicts that the same command does not ask for again."""
Measure = Callable[[str, float], dict[str, Any]]
"""The name of a check and the seconds that it may take -> `figures`, or `error`, or `too_slow`."""


def run_checks(
    subject: Subject, about: dict[str, Any], out: Path, *, minutes: float, measure: Measure, bars: Bars
) -> dict[str, Any]:
    """What `out` holds in the end.

    Args:
        about: of device and model; it decides whether `out` goes on.

    Raises:
        StageError: `out` holds checks of another device, model, code or packages.
    """
    started, code = time.monotonic(), CodeState.now()
    fresh = {
        "about": about,
        "versions": code.versions,
        "sources_sha256": code.sources_sha256,
        "git": code.git.model_dump(),
        "checks": {},
    }
    # A dry run on another commit with the same sources is the same.
    found = claim(out, fresh, holds="checks of a GPU", advice="give another --out", free=("checks", "git"), alone=False)
    if not isinstance(found.get("checks"), dict):
        raise DataError(f"{out}: expected `checks`, an object; it was damaged: delete it, or give another --out")
    for name in [name for name in found["checks"] if name not in CHECKS]:
        log.warning("%s: `%s` is no check; its entry is damaged or of another version, and left out", out, shown(name))
        del found["checks"][name]
    with bars("checks", len(CHECKS)) as advance:
        for name, check in CHECKS.items():
            if not is_kept(name, found["checks"], out):
                left = 60 * minutes - (time.monotonic() - started)
                entry = checked(name, scaled(check, subject.tiny), subject, left=left, measure=measure)
                found["checks"][name] = sealed(entry)
                write_json(out, found)
            advance(note=name)
    return {**found, "out": str(out)}


def is_kept(name: str, checks: Any, out: Path) -> bool:
    """Whether a check is settled. One whose entry has another checksum than its content is made again."""
    entry = checks.get(name)
    if entry is None:
        return False
    if not is_as_sealed(entry):
        log.warning("%s: the entry of %s is damaged or of an older version; made again", out, name)
        return False
    return entry.get("verdict") in KEPT


def checked(name: str, check: GpuCheck, subject: Subject, *, left: float, measure: Measure) -> dict[str, Any]:
    """The entry of one check."""
    entry: dict[str, Any] = {"claim": check.claim, "where": check.where, "criterion": check.criterion}
    if reason := check.lacking(subject):
        return {**entry, "verdict": "skipped", "reason": reason}
    if left < check.room_s:
        reason = f"{max(0, left):.0f} s of the budget were left and {check.room_s:.0f} s are kept for it; the same command goes on"
        return {**entry, "verdict": "not run", "reason": reason}
    started = time.monotonic()
    result = measure(name, left)
    entry["seconds"] = round(time.monotonic() - started, 1)
    if check.packages:
        entry["packages"] = {package: importlib.metadata.version(package) for package in check.packages}
    if "figures" not in result:
        return {**entry, "verdict": "not run" if result.get("too_slow") else "error", "reason": result["error"]}
    met = check.holds(result["figures"])
    # On a CPU with a tiny model the figures say that the check runs, and nothing of a GPU.
    verdict = ("passed" if met else "failed") if subject.device == "cuda" else f"dry run: {'met' if met else 'not met'}"
    return {**entry, "verdict": verdict, "figures": result["figures"]}


def in_child(words: list[str], device: str) -> Measure:
    """Runs `scripts/gpu_check.py WORDS --only NAME` in a process group of its own, which is ended when its time is over."""
    script = Path(__file__).resolve().parents[1] / "gpu_check.py"
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else dict(os.environ)

    def measure(name: str, left: float) -> dict[str, Any]:
        command = [sys.executable, str(script), *words, "--only", name, "--json"]
        child = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
        )
        try:
            out, err = child.communicate(timeout=left)
        except subprocess.TimeoutExpired:
            end_group(child)
            return {
                "error": f"ended after {left:.0f} s, when the budget was spent; give more --minutes",
                "too_slow": True,
            }
        except BaseException:
            end_group(child)
            raise
        if child.returncode:
            last = " | ".join(err.strip().splitlines()[-3:])
            return {"error": f"{shlex.join(command[1:])} ended with status {child.returncode}: {last}"}
        return {"figures": json.loads(out.strip().splitlines()[-1])}

    return measure


def end_group(child: subprocess.Popen[str]) -> None:
    """End a child and what it started."""
    os.killpg(child.pid, signal.SIGKILL)
    child.communicate()


def figures_of(name: str, subject: Subject) -> dict[str, Any]:
    """The figures of one check, made in this process.

    Raises:
        StageError: an unknown check, or one that cannot be made here.
    """
    if name not in CHECKS:
        raise StageError(f"no check `{name}`; there are {', '.join(CHECKS)}")
    if reason := CHECKS[name].lacking(subject):
        raise StageError(f"{name}: {reason}")
    return dict(CHECKS[name].measure(subject))


def lines_of(result: dict[str, Any]) -> list[str]:
    """What the command says: device, model, a line for each check, and what is left."""
    about, rows = result["about"], result["checks"]
    lines = [f"{about['device']['name']}; {about['model']['weights']}"]
    for name, row in rows.items():
        lines.append(f"{name:11} {row['verdict']}: {row.get('reason') or row['criterion']}")
    left = [name for name, row in rows.items() if row["verdict"] in ("not run", "error")]
    if about["device"]["kind"] == "cpu":
        lines.append("A dry run: every check ran on the CPU, which says nothing of a GPU.")
    if left:
        lines.append(f"Left: {', '.join(left)}; the same command goes on with them.")
    return [*lines, result["out"]]
