"""Runs the pipeline over every combination of models, seeds, arms, interventions or any other field, here or on a Ray cluster.

Examples:
  python scripts/sweep.py --preset smoke --axis 'seed=[0, 1, 2]' --dry-run                    the cells and their commands
  python scripts/sweep.py sweep.yaml                                                          a sweep file (docs/sweeps.md)
  python scripts/sweep.py sweep.yaml --executor ray --ray-address auto --cpus-per-task 8 --gpus-per-task 1

Every cell is a run of `run_pipeline.py` in a folder of its own, with its log. The same command goes on: cells that are done stay, those
that failed or were cut off continue. Exit status 1 when a cell failed.
"""

import shlex
from pathlib import Path
from typing import Any

import cli
from emis_interp.config.sweep_settings import SweepSettings
from emis_interp.process import Bars

PIPELINE = Path(__file__).with_name("run_pipeline.py")


def run(settings: SweepSettings, bars: Bars) -> dict[str, Any]:
    from emis_interp.files.lock import writing
    from emis_interp.report.run_index import build_index
    from emis_interp.report.settings import PageSettings
    from emis_interp.sweeping.axes import sweep_of
    from emis_interp.sweeping.executors import make_cells
    from emis_interp.sweeping.outcome_table import TABLE, figures_of, write_table
    from emis_interp.sweeping.sweep_folder import SweepFolder, words_of_cell

    settings.check()
    sweep = sweep_of(settings)
    out = settings.out or Path("runs") / sweep.name
    result: dict[str, Any] = {"name": sweep.name, "out": str(out)}
    if settings.dry_run:
        words = {
            cell.name: words_of_cell(sweep, cell, out / cell.name, data_dir=settings.data_dir) for cell in sweep.cells
        }
        return {
            **result,
            "commands": {name: f"python scripts/run_pipeline.py {shlex.join(line)}" for name, line in words.items()},
        }
    with writing(out):
        folder = SweepFolder(out, sweep)
        tasks = folder.tasks(PIPELINE, data_dir=settings.data_dir, n_threads=settings.n_threads)
        n_done = len(sweep.cells) - len(tasks)
        before = f", {n_done} of them done before" if n_done else ""
        cli.terminal.say(f"{sweep.name}: {len(sweep.cells)} cells{before}, into {out}", style="bold")
        if tasks:
            make_cells(folder, tasks, settings, bars=bars)
        rows, unread = figures_of(folder)
        result |= {"cells": {name: state.model_dump() for name, state in folder.states.items()}}
        result |= {"figures": rows, "unread": unread}
        if any(state.status == "done" for state in folder.states.values()):
            write_table(out / TABLE, folder, rows)
            result |= {"table": str(out / TABLE), "page": build_index(PageSettings(index=out))["report"]}
    return result


def say(result: dict[str, Any]) -> str:
    if "commands" in result:
        lines = [f"{name}\n  {command}" for name, command in result["commands"].items()]
        return "\n".join([*lines, f"{len(lines)} cells into {result['out']}; nothing was run"])
    from emis_interp.sweeping.outcome_table import lines_of

    count = {
        status: sum(cell["status"] == status for cell in result["cells"].values()) for status in ("done", "failed")
    }
    head = f"{result['name']}: {count['done']} of {len(result['cells'])} cells done, {count['failed']} failed"
    lines = [head, *lines_of(result["cells"], result["figures"])]
    lines += [f"! {name} cannot be read: {reason}" for name, reason in result["unread"].items()]
    if count["failed"]:
        lines.append(f"failed cells: their logs are in {result['out']}/logs; the same command tries them again")
    return "\n".join([*lines, *(f"{name}: {result[name]}" for name in ("table", "page") if name in result)])


def status(result: dict[str, Any]) -> int:
    return int(any(cell["status"] != "done" for cell in result.get("cells", {}).values()))


VERB = cli.Verb(SweepSettings, "sweep", run, status=status)

if __name__ == "__main__":
    cli.run(VERB.do, cli.parser_of(VERB, __doc__), say, status=status)
