"""Turns an arm into results of benchmarks that others maintain, through their own harnesses."""

import shlex
from pathlib import Path
from typing import Any

from emis_interp.errors import ConfigError, DataError
from emis_interp.files.strict_json import read_json
from emis_interp.files.text import flat_lines
from emis_interp.models.precision import dtype_name
from emis_interp.process import Bars, no_bars
from evals.settings_suites import HarnessSettings
from evals.suites import harness, harness_data, strong_reject
from evals.suites.machiavelli import read_machiavelli


def run(settings: HarnessSettings, bars: Bars = no_bars) -> dict[str, Any]:
    """Save a merged arm, run benchmarks on it, or read their results."""
    if settings.action == "export":
        if settings.model is None or settings.arm_dir is None:
            raise ConfigError("harness export: give --model and --arm-dir")
        return {
            "arm_dir": str(
                harness.export_arm(settings.model, settings.adapter, settings.arm_dir, dtype=dtype_name(settings.dtype))
            )
        }
    if settings.action == "read":
        return read(settings.file, settings.unfinished)
    return _run(settings)


def say(result: dict[str, Any]) -> str:
    return "\n".join(flat_lines(result))


def read(path: Path | None, unfinished: bool = False) -> dict[str, Any]:
    """Rows of a results file of lm-eval (.json), of a StrongREJECT log (.json), or of a MACHIAVELLI table (.csv)."""
    if path is None:
        raise ConfigError("harness read: give a results file")
    if path.suffix == ".csv":
        return {"machiavelli": read_machiavelli(path)}
    content = read_json(path, loose=True)
    if isinstance(content, dict) and "samples" in content and "eval" in content:
        return {"strong_reject": strong_reject.read_log(path, unfinished=unfinished)}
    return {"rates": harness.read_results(path)}


def _run(settings: HarnessSettings) -> dict[str, Any]:
    if settings.arm_dir is None or settings.out_dir is None:
        raise ConfigError("harness run: give --arm-dir and --out-dir")
    arm, out, names = settings.arm_dir.resolve(), settings.out_dir.resolve(), list(settings.benchmarks)
    if "strong_reject" in names:
        if len(names) > 1:
            raise ConfigError("strong_reject runs through another harness; give it in a command of its own")
        words = strong_reject.command(arm, out, settings.judge, limit=settings.limit)
        if settings.only_print:
            return {"command": shlex.join(words), "data": [strong_reject.DATA], "install": strong_reject.INSTALL}
        harness.require("inspect_evals", strong_reject.INSTALL)
        harness.call(words, "inspect-evals")
        logs = sorted(out.glob("*.json"), key=lambda path: path.stat().st_mtime)
        if not logs:
            raise DataError(f"{out}: inspect-evals wrote no JSON log")
        return {"file": str(logs[-1]), **read(logs[-1], settings.unfinished)}
    tasks_dir = tasks = None
    if settings.data is not None and not settings.only_print:
        tasks_dir = out / "tasks"
        tasks = harness_data.local_tasks(names, settings.data.resolve(), tasks_dir)
    words = harness.command(
        names,
        arm,
        out,
        tasks_dir=tasks_dir,
        tasks=tasks,
        n_fewshot=settings.fewshot,
        limit=settings.limit,
        batch_size=settings.batch_size,
        dtype=dtype_name(settings.dtype),
        allow_code=settings.allow_code,
    )
    if settings.only_print:
        data = harness.describe_data(names, settings.data or Path("DATA"))
        return {"command": shlex.join(words), "data": data, "install": harness.INSTALL}
    path = harness.run_harness(words, out, settings.data.resolve() if settings.data else None)
    return {"file": str(path), "rates": harness.pick(harness.read_results(path), names)}
