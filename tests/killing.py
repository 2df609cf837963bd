"""Starts runs of the pipeline in processes that can be killed, and says how a run that went on differs from an undisturbed one.

`warm` forks its processes from one that has imported the packages, so that a kill falls into the work and not into ten seconds of imports;
`started` makes a process of its own from the command, imports and all.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import forked

from emis_interp.files.comparison import compared
from emis_interp.files.manifest import MANIFEST, Manifest
from emis_interp.files.strict_json import read_json
from emis_interp.files.verification import verified

PAGE, TIMED = ("report/index.html", "report/data.json"), ("manifest", "training")
"""The page shows times and speeds in its tables; its figures are drawn from the other file, which holds times in two of its parts, and
those parts are files of the run too."""
PATIENCE_S = 5.0
"""What a command that is stopped may take, and what others of its process group may take after it was killed."""


@dataclass(frozen=True)
class Attempt:
    """A run that was begun: `said` is a file with all that it writes, `scratch` its own folder for temporary files."""

    pid: int
    said: Path
    scratch: Path
    ended: Callable[[float], int | None]
    """Waits so many seconds; the exit status (negative: the signal that ended it), None while it is at work."""

    def text(self) -> str:
        return self.said.read_text("utf-8", "replace")

    def spoke(self, seconds: float) -> bool:
        """Waits until it has said something: what it goes on with was looked through then, and the work begins."""
        deadline = time.monotonic() + seconds
        while not self.text() and self.ended(0.02) is None and time.monotonic() < deadline:
            pass
        return self.text() != ""

    def computed(self, seconds: float) -> bool:
        """Waits until it has computed for so long from now on, a clock that other work on the machine does not move. False: it ended."""
        begun = self._cpu_seconds()
        while self.ended(0.01) is None:
            if self._cpu_seconds() - begun >= seconds:
                return True
        return False

    def _cpu_seconds(self) -> float:
        """Seconds of CPU time of the process; 0 once it is gone."""
        path = Path(f"/proc/{self.pid}/stat")
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def survivors(self) -> bool:
        """Whether anybody of its process group is there after the patience."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            try:
                os.killpg(self.pid, 0)
            except ProcessLookupError:
                return False
            time.sleep(0.02)
        return True


Start = Callable[[Sequence[str], Path], Attempt]
"""Begins the pipeline with these words; what it says, and its temporary files, go below the folder."""


def started(words: Sequence[str], beside: Path) -> Attempt:
    """The command as a person gives it."""
    said, scratch = _places(beside)
    with said.open("ab") as file:
        child = subprocess.Popen(
            [sys.executable, f"scripts/{forked.PIPELINE}", *words],
            cwd=forked.ROOT,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env={**os.environ, "TMPDIR": str(scratch)},
            start_new_session=True,
            preexec_fn=lambda: signal.signal(
                signal.SIGINT, signal.SIG_DFL
            ),  # tests under nohup hand on that it is ignored
        )

    def ended(seconds: float) -> int | None:
        try:
            return child.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    return Attempt(child.pid, said, scratch, ended)


def warm(words: Sequence[str], beside: Path) -> Attempt:
    """A fork of a process that has imported what a run imports."""
    said, scratch = _places(beside)
    child = forked.begin(
        forked.PIPELINE, *words, out=said, err=said, environment={**os.environ, "TMPDIR": str(scratch)}
    )

    def ended(seconds: float) -> int | None:
        child.process.join(seconds)
        return child.returncode

    return Attempt(child.pid, said, scratch, ended)


def _places(beside: Path) -> tuple[Path, Path]:
    n = len(list(beside.glob("said-*.txt")))
    said, scratch = beside / f"said-{n}.txt", beside / f"scratch-{n}"
    scratch.mkdir(parents=True)
    said.touch()
    return said, scratch


def stage_under_way(folder: Path, text: str) -> str:
    """The stage that a run was in when it was killed: the first that is not finished."""
    if not text:
        return "start"
    done = Manifest.load(folder).stages if (folder / MANIFEST).exists() else {}
    import run_pipeline

    return next((stage for stage in run_pipeline.STAGES if stage not in done), "end")


def differences(reference: Path, folder: Path) -> list[str]:
    """What is not as in an undisturbed run: files, figures, hashes, and what killed writers left."""
    theirs, mine = _names(reference), _names(folder)
    found = [f"{name} is missing" for name in sorted(theirs - mine)]
    found += [f"{name} is in excess" for name in sorted(mine - theirs)]
    for name in sorted(theirs & mine - {MANIFEST, *PAGE}):
        one = compared(reference, folder, name)
        if one.same == "no":
            found.append(f"{name}: {'; '.join(one.places)}")
    pages = [read_json(place / PAGE[1]) if (place / PAGE[1]).exists() else {} for place in (reference, folder)]
    found += [
        f"{PAGE[1]}: {key} differs" for key in pages[0] if key not in TIMED and pages[0][key] != pages[1].get(key)
    ]
    whole = verified(folder)
    for what in ("changed", "missing", "other_inputs", "unmatched_inputs", "unfinished", "strangers", "exchanged"):
        found += [f"{what}: {text}" for text in whole[what]]
    return found


def _names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
