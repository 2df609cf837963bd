"""Turns one cell of a sweep into a run: a process of its own with its log, and a line for every beginning and end of an attempt."""

import datetime
import importlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from emis_interp.ending import PATIENCE_S
from emis_interp.errors import DataError, StageError, printable
from emis_interp.files.lock import writing
from emis_interp.files.store import RecordLog, record_of_line
from emis_interp.records import Record
from emis_interp.sweeping import tied

TICK_S = 1.0
FORMER_S = 60.0
"""How long a cell waits for an attempt before it that is still at work: Ray may take a node for lost that is not."""
DONE, MENDABLE = 0, 2
"""Exit statuses of commands; with 2 somebody has to mend something, and to run it again helps nothing."""


class CellEvent(Record):
    """An attempt at a cell began, or ended. `node`: Ray's name of the machine; `error`: why it ended, where it did not succeed."""

    event: Literal["begun", "ended"]
    at: str
    host: str
    pid: int
    node: str | None = None
    status: int | None = None
    seconds: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class CellTask:
    """What a process needs to know of a cell, on whichever machine.

    Attributes:
        words: the command, behind the interpreter.
        events: file of the attempts.
        home: working folder, so that relative paths of data mean the same everywhere.
    """

    name: str
    words: tuple[str, ...]
    run_dir: Path
    log: Path
    events: Path
    home: Path
    n_threads: int


def run_cell(task: CellTask, *, node: str | None = None, tick: Callable[[], None] = lambda: None) -> CellEvent:
    """One attempt at a cell, to its end.

    Args:
        tick: called about once a second.
    """
    events, begun = RecordLog(task.events, seal=True), time.monotonic()
    here = {"host": socket.gethostname(), "pid": os.getpid(), "node": node}
    events.append([CellEvent(event="begun", at=now(), **here)])
    try:
        with writing(task.run_dir, patience_s=FORMER_S):
            pass
        status, error = _command(task, tick)
    except StageError as problem:
        status, error = os.EX_TEMPFAIL, printable(str(problem), 400)
    seconds = round(time.monotonic() - begun, 1)
    ended = CellEvent(event="ended", at=now(), **here, status=status, seconds=seconds, error=error)
    events.append([ended])
    return ended


class CellCrashed(Exception):
    """An attempt at a cell ended in a way that another one may not; Ray repeats it."""


def attempt_on_ray(task: CellTask) -> CellEvent:
    """`run_cell` as a worker of Ray does it.

    Raises:
        CellCrashed: another attempt may succeed.
    """
    ray: Any = importlib.import_module("ray")
    ended = run_cell(task, node=ray.get_runtime_context().get_node_id())
    if may_help_again(ended):
        raise CellCrashed(ended.error)
    return ended


def may_help_again(ended: CellEvent) -> bool:
    """Whether another attempt may end otherwise: it crashed, or was killed."""
    return ended.status not in (DONE, MENDABLE)


def read_events(path: Path) -> list[CellEvent]:
    """What a worker wrote so far, which may be at it.

    Raises:
        DataError: a line is not as it was written.
    """
    if not path.exists():
        return []
    *whole, _ = path.read_bytes().split(b"\n")
    try:
        return [record_of_line(line, CellEvent, f"{path}:{n}") for n, line in enumerate(whole, 1)]
    except DataError as error:
        raise DataError(
            f"{error}. Or delete {path}: its cell is begun again then, and finished stages are kept"
        ) from None


def _command(task: CellTask, tick: Callable[[], None]) -> tuple[int, str | None]:
    """Its exit status (128 + n for signal n) and its last word, where it did not succeed."""
    threads = str(task.n_threads)
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    command = [sys.executable, "-I", "-S", tied.__file__, str(os.getpid()), sys.executable, *task.words]
    task.log.parent.mkdir(parents=True, exist_ok=True)
    with task.log.open("ab") as log:
        start = log.tell()
        # A session of its own: Ctrl-C in the terminal reaches the sweep alone, which then ends its cell once.
        child = subprocess.Popen(
            command,
            cwd=task.home,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            while True:
                try:
                    status = child.wait(TICK_S)
                    break
                except subprocess.TimeoutExpired:
                    tick()
        except BaseException:
            _end(child)
            raise
    status = status if status >= 0 else 128 - status
    return status, None if status == DONE else _last_word(task.log, start, status)


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _last_word(log: Path, start: int, status: int) -> str:
    """The error of a command, or the last line of its log."""
    lines = [line for line in log.read_bytes()[start:].decode("utf-8", "replace").splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    said = (errors or lines or [""])[-1].strip()
    killed = (
        f"ended by {signal.Signals(status - 128).name}" if status > 128 and status - 128 in set(signal.Signals) else ""
    )
    return printable(": ".join(text for text in (killed or f"status {status}" * (not errors), said) if text), 400)


def now() -> str:
    """The time, as a manifest says it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
