"""Turns a folder into a sweep's: `sweep.json` says what was asked for and how far each cell is, beside the run folders of the cells."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from emis_interp.errors import EmisError, StageError
from emis_interp.files.claim import check_same, holds_something
from emis_interp.files.manifest import MANIFEST
from emis_interp.files.store import read_object, read_record, write_sealed
from emis_interp.records import Record
from emis_interp.sweeping.axes import Sweep, SweepCell
from emis_interp.sweeping.cell_process import DONE, CellTask, now, read_events

SWEEP = "sweep.json"
LOGS = "logs"
_MOST_SHOWN = 4


class CellState(Record):
    """How far a cell is. `seconds` of its last attempt, `started` of its first; `error` of the last one, where it failed."""

    config_sha256: str
    status: Literal["waiting", "done", "failed"] = "waiting"
    attempts: int = 0
    started: str | None = None
    finished: str | None = None
    seconds: float | None = None
    host: str | None = None
    error: str | None = None


class SweepRecord(Record):
    """`asked`: `Sweep.asked`, which must not change."""

    name: str
    begun: str
    asked: dict[str, Any]
    cells: dict[str, CellState]


class SweepFolder:
    """The folder of a sweep that this process alone writes.

    Raises:
        StageError: it holds something else, or a sweep that asked for something else. DataError: what it holds is damaged.
    """

    def __init__(self, folder: Path, sweep: Sweep) -> None:
        self.folder, self.sweep = folder, sweep
        path, begun = folder / SWEEP, now()
        if path.exists():
            old = read_record(path, SweepRecord)
            advice = "give another --out, or delete the folder to start again"
            check_same(folder, old.asked, sweep.asked, holds="a sweep", advice=advice)
            begun = old.begun
        elif holds_something(folder):
            raise StageError(f"{folder} is not empty and holds no {SWEEP}; give another --out")
        cells = {cell.name: self._state(cell.name, cell.config_sha256) for cell in sweep.cells}
        self.record = SweepRecord(name=sweep.name, begun=begun, asked=sweep.asked, cells=cells)
        self._save()

    def run_dir(self, cell: str) -> Path:
        return self.folder / cell

    def log(self, cell: str) -> Path:
        """Everything that the attempts at a cell printed."""
        return self.folder / LOGS / f"{cell}.log"

    def events(self, cell: str) -> Path:
        return self.folder / LOGS / f"{cell}.jsonl"

    @property
    def states(self) -> dict[str, CellState]:
        return self.record.cells

    def tasks(self, pipeline: Path, *, data_dir: Path | None, n_threads: int) -> list[CellTask]:
        """What is still to be done, in the order of the cells.

        Args:
            pipeline: the script that makes a run.
        """
        return [
            CellTask(
                name=cell.name,
                words=(str(pipeline), *words_of_cell(self.sweep, cell, self.run_dir(cell.name), data_dir=data_dir)),
                run_dir=self.run_dir(cell.name).absolute(),
                log=self.log(cell.name).absolute(),
                events=self.events(cell.name).absolute(),
                home=Path.cwd(),
                n_threads=n_threads,
            )
            for cell in self.sweep.cells
            if self.states[cell.name].status != "done"
        ]

    def finish(self, cell: str, lost: str | None = None) -> CellState:
        """Note how a cell ended.

        Args:
            lost: why, where no attempt of it could say.
        """
        state = self._state(cell, self.states[cell].config_sha256)
        if lost is not None and state.status == "waiting":
            state = state.model_copy(update={"status": "failed", "error": lost})
        self.record = self.record.model_copy(update={"cells": {**self.states, cell: state}})
        self._save()
        return state

    def under_way(self, names: Sequence[str]) -> str:
        """Of these cells those that are at work now, with the stages that they have finished."""
        found = []
        for name in names:
            events = read_events(self.events(name))
            if events and events[-1].event == "begun":
                n = self._n_stages(name)
                found.append(f"{name} ({n} stage{'s' * (n != 1)} done)")
        more = f" and {len(found) - _MOST_SHOWN} more" if len(found) > _MOST_SHOWN else ""
        return "; ".join(found[:_MOST_SHOWN]) + more

    def _n_stages(self, cell: str) -> int:
        path = self.run_dir(cell) / MANIFEST
        try:
            stages = read_object(path).get("stages") if path.exists() else None
        except EmisError:  # its own run will say
            return 0
        return len(stages) if isinstance(stages, dict) else 0

    def _state(self, cell: str, sha: str) -> CellState:
        """What the attempts at a cell say; one that is done without its run folder is to be done again."""
        events = read_events(self.events(cell))
        ended = [one for one in events if one.event == "ended"]
        attempts = len(events) - len(ended)
        state = CellState(config_sha256=sha, attempts=attempts, started=events[0].at if events else None)
        if not ended or events[-1].event == "begun":
            return state
        last = ended[-1]
        if last.status == DONE and not (self.run_dir(cell) / MANIFEST).exists():
            return state
        how = {"status": "done" if last.status == DONE else "failed", "error": last.error}
        return state.model_copy(update={**how, "finished": last.at, "seconds": last.seconds, "host": last.host})

    def _save(self) -> None:
        write_sealed(self.folder / SWEEP, self.record.model_dump(mode="json"))


def words_of_cell(sweep: Sweep, cell: SweepCell, run_dir: Path, *, data_dir: Path | None) -> list[str]:
    """The words behind `run_pipeline.py` that make a cell."""
    words = ["--preset", sweep.preset, "--run-dir", str(run_dir)]
    words += [] if data_dir is None else ["--data-dir", str(data_dir)]
    for setting in (*cell.settings, f"name={cell.name}"):
        words += ["--set", setting]
    return [*words, *(["--only", *sweep.stages] if sweep.stages else [])]
