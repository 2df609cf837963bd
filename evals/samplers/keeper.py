"""Turns a server into one that does not outlive who started it: as a program, this file starts a command and ends it with its input.

`python keeper.py LOG WORD ...` starts WORD ... in a process group of its own with LOG as its output, waits until standard input is closed
(its writer ended, however it ended) or the command ends, and ends the whole group. It needs Linux and the standard library, nothing else.
`kept` starts it.
"""

import contextlib
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

LOOPBACK = "127.0.0.1"
PATIENCE_S = 8.0
_POLL_S = 0.05
_KEY = re.compile(r"(?:^|_)(?:API_?KEY|KEY|TOKEN|SECRET|PASSWORD|CREDENTIALS?|CUSTOM_HEADERS)(?:_|$)", re.IGNORECASE)


def keep(log: str, words: list[str]) -> int:
    """Exit status of the command."""
    # Ctrl-C reaches all of a terminal; our input says when to end.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    command = begin(words, Path(log))
    ended, readable = os.pidfd_open(command.pid), list[int]()
    while not readable:
        readable, _, _ = select.select([sys.stdin.fileno(), ended], [], [])
    end_group(command.pid)
    return command.wait()


@contextlib.contextmanager
def kept(words: list[str], log: Path, environment: dict[str, str] | None = None) -> Iterator["subprocess.Popen[bytes]"]:
    """A command for as long as the `with`, which does not outlive this process either; the process ends when the command does."""
    program = [sys.executable, "-I", __file__, str(log), *words]
    process = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment)
    assert process.stdin is not None
    try:
        yield process
    finally:
        process.stdin.close()
        process.wait()


def without_keys(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Variables (None: this process' own) but those that look like keys: a server that we start here needs none."""
    given = os.environ if environment is None else environment
    return {name: value for name, value in given.items() if not _KEY.search(name)}


def free_port() -> int:
    """One of the loopback interface that nobody listens on now."""
    with socket.socket() as found:
        found.bind((LOOPBACK, 0))
        return found.getsockname()[1]


def begin(words: list[str], log: Path, environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    """A command in a process group of its own, which has its number."""
    with log.open("ab") as output:
        return subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=without_keys(environment),
            start_new_session=True,
            preexec_fn=_mend_signals,
        )


def end_group(group: int, patience_s: float = PATIENCE_S) -> None:
    """Ask the processes of a group to end, and end those that have not after a while."""
    for number, patience in ((signal.SIGTERM, patience_s), (signal.SIGKILL, patience_s)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, number)
        until = time.monotonic() + patience
        while _group_runs(group) and time.monotonic() < until:
            time.sleep(_POLL_S)


def started_at(pid: int) -> int | None:
    """When a process started, in clock ticks since the machine did; None where none of that number runs. Numbers are used again."""
    fields = _stat(pid)
    return None if fields is None else int(fields[19])


def _group_runs(group: int) -> bool:
    numbers = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
    return any((fields := _stat(pid)) is not None and int(fields[2]) == group for pid in numbers)


def _stat(pid: int) -> list[str] | None:
    """What Linux says of a running process, behind its name (proc_pid_stat(5)): its state first."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields


def _mend_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(keep(sys.argv[1], sys.argv[2:]))
