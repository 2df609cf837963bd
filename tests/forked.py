"""Commands of the project as forks of one process that has imported what they import: its ten seconds are spent once, not at every command.

`run` stands for `subprocess.run` and `begin` for `subprocess.Popen` of `python scripts/NAME.py WORDS`: a process and session of its own,
its own standard streams and environment, signals as a person's shell leaves them. What is different: variables that torch and transformers
read when they are imported (`OMP_NUM_THREADS`, `HF_HUB_OFFLINE`) are those of the tests. Where a test is about these, or about starting,
it starts a process of its own.
"""

import multiprocessing
import multiprocessing.process
import os
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PIPELINE = "run_pipeline.py"
QUIET = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
"""What commands say to libraries before they import them (`terminal.log_to`)."""


@dataclass
class Begun:
    """A command that was begun; `out` and `err` are the files that it writes to."""

    args: list[str]
    process: multiprocessing.process.BaseProcess
    out: Path
    err: Path

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    @property
    def returncode(self) -> int | None:
        """As `subprocess` has it: negative for the signal that ended it, None while it is at work."""
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return self.process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Waits for the end: standard output and standard error."""
        self.wait(timeout)
        return self.out.read_text("utf-8"), self.err.read_text("utf-8")

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def begin(
    script: str,
    *words: str,
    out: Path | None = None,
    err: Path | None = None,
    environment: dict[str, str] | None = None,
    terminal: str | None = None,
) -> Begun:
    """Begins a command.

    Args:
        script: its name in scripts/.
        out, err: files that its standard streams are appended to (default: temporary ones).
        environment: all of its variables (default: those of the test).
        terminal: path of the terminal that all three streams are, and that its session belongs to.
    """
    place = Path(tempfile.mkdtemp(prefix="said-"))
    out, err = out or place / "out", err or place / "err"
    given = dict(os.environ) if environment is None else environment
    streams = ("/dev/null", str(out), str(err)) if terminal is None else (terminal,) * 3
    words = tuple(map(str, words))
    child = _server().Process(target=_work, args=(script, words, streams, given))
    child.start()
    begun = Begun([sys.executable, f"scripts/{script}", *words], child, out, err)
    weakref.finalize(begun, shutil.rmtree, place, ignore_errors=True)
    return begun


def run(script: str, *words: str, timeout: float = 600, **how: Any) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end, and what it said."""
    process = begin(script, *words, **how)
    try:
        out, err = process.communicate(timeout)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.wait(), out, err)


@cache
def _server() -> ForkServerContext:
    """The process that is forked; it starts with the first command of a test process and ends with it."""
    from multiprocessing.forkserver import ensure_running

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["warm_imports"])
    paths = [str(ROOT), str(ROOT / "scripts"), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(path for path in paths if path))
        for name, value in QUIET.items():
            patch.setenv(name, value)
        ensure_running()
    return context


def _work(script: str, words: Sequence[str], streams: tuple[str, str, str], environment: dict[str, str]) -> None:
    """What `python scripts/SCRIPT WORDS` does, in a process that is there."""
    os.setsid()
    os.chdir(ROOT)
    for number, path in enumerate(streams):
        flags = os.O_RDONLY if path == "/dev/null" and number == 0 else os.O_RDWR | os.O_CREAT | os.O_APPEND
        os.dup2(os.open(path, flags, 0o600), number)
    # The streams that were there remember whether they could seek.
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.argv = [f"scripts/{script}", *words]
    sys.orig_argv = [sys.executable, *sys.argv]
    runpy.run_path(str(ROOT / "scripts" / script), run_name="__main__")
