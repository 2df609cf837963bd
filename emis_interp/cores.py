"""Lets OpenMP's waiting threads spin while the cores are free, and sleep while other processes want them.

A waiting thread of GNU's OpenMP (libgomp, which torch brings) spins before it sleeps. Where the cores are free that is right: waking up
costs a training of a small model up to a third of its speed. Beside other processes it starves them and itself. How long it spins is read
from the environment once, when torch is loaded; but while libgomp manages more threads than there are cores, it spins for 100 rounds only
(its manual, GOMP_SPINCOUNT). So while others are at work, a few threads that do nothing are held for it to manage.
"""

import os
import sys
import threading
import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

STAT = Path("/proc/stat")
LOOK_SECONDS = 1.0
BUSY_CORES = 0.3
"""What others must work on the cores that this process's own threads do not leave free, in cores, to count."""


@cache
def share_cores() -> "Watch | None":
    """Begin to look after OpenMP's threads, once in a process, before or after torch is loaded.

    Returns:
        None, and nothing is done, where the environment says how they wait (`GOMP_SPINCOUNT`, `OMP_WAIT_POLICY`), or the system does not
        say what others do (only Linux does).
    """
    if {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & set(os.environ) or busy_seconds() is None:
        return None
    watch = Watch()
    threading.Thread(target=watch.run, name="cores", daemon=True).start()
    return watch


@dataclass
class Watch:
    """Looks every second at what others do on the cores of this process.

    Attributes:
        held: threads that make OpenMP manage more of them than there are cores.
    """

    held: "list[Held]" = field(default_factory=list)

    def run(self) -> None:
        while True:
            before = others_seconds(), time.monotonic()
            time.sleep(LOOK_SECONDS)
            self.adapt((others_seconds() - before[0]) / (time.monotonic() - before[1]))

    def adapt(self, others: float) -> None:
        """Hold threads where others want the cores on which OpenMP's threads are at work; let them go where they do not.

        Args:
            others: on how many of the cores of this process others are at work.
        """
        n_cores, n_threads = len(os.sched_getaffinity(0)), openmp_threads()
        shared = n_threads > 1 and others > n_cores - n_threads + BUSY_CORES
        if shared and not self.held:
            # Beside the threads at work each of these has n_threads - 1 more to manage; one too many does no harm.
            missing = max(0, n_cores + 1 - n_threads)
            self.held = [Held() for _ in range(1 + -(-missing // (n_threads - 1)))]
        while self.held and not shared:
            self.held.pop().end()


class Held:
    """A thread with OpenMP threads of its own, which all sleep until it ends."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._wait, name="cores: held", daemon=True)
        self._thread.start()

    def _wait(self) -> None:
        torch = sys.modules["torch"]
        torch.zeros(2**17).add_(1)  # long enough to be shared out among threads
        self._over.wait()

    def end(self) -> None:
        self._over.set()
        self._thread.join()


def openmp_threads() -> int:
    """How many threads torch computes with; 1 as long as it is not loaded."""
    torch = sys.modules.get("torch")
    whole = torch is not None and not getattr(torch.__spec__, "_initializing", False)
    return torch.get_num_threads() if torch is not None and whole else 1


def others_seconds() -> float:
    """Seconds for which the cores of this process have worked, without those for itself; only differences mean something."""
    return (busy_seconds() or 0.0) - time.process_time()


def busy_seconds() -> float | None:
    """Seconds for which the cores of this process have worked since the machine started, all processes together; None where the system
    does not say so."""
    try:
        cores = {f"cpu{core}" for core in os.sched_getaffinity(0)}
        lines = [line.split() for line in STAT.read_text("ascii").splitlines()]
    except (AttributeError, OSError):
        return None
    rows = [[int(field) for field in line[1:8]] for line in lines if line and line[0] in cores]
    idle, waiting = 3, 4  # of: user, nice, system, idle, waiting for a disk, interrupts, soft interrupts
    ticks = [sum(row) - row[idle] - row[waiting] for row in rows]
    return sum(ticks) / os.sysconf("SC_CLK_TCK") if rows else None
