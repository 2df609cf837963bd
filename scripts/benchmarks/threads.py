"""Times a model at work under settings of OpenMP's waiting, alone and beside busy processes: threads that spin starve on shared cores."""

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from benchmarks.alternate import alternate
from benchmarks.settings import ThreadBenchmarkSettings
from emis_interp.process import Bars, no_bars

VARIABLES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
START = "import sys, emis_interp.cores; sys.argv[3] == 'ours' and emis_interp.cores.share_cores(); "
WORK = START + "from benchmarks import threaded_work; threaded_work.main(sys.argv[1], float(sys.argv[2]))"


def run(settings: ThreadBenchmarkSettings, bars: Bars = no_bars) -> dict[str, Any]:
    """Tokens per second of every setting, alone and beside one busy process for each core; ratios to the library's own setting alone."""
    n_cores = len(os.sched_getaffinity(0))
    waiting: dict[str, dict[str, str]] = {
        "library default": {},
        "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
        **{f"spin {count}": {"GOMP_SPINCOUNT": str(count)} for count in settings.counts},
        "ours": {},
    }
    contestants = {name: partial(speed, settings, name, change) for name, change in waiting.items()}
    alone = alternate(contestants, settings.n_rounds, warm_up=False)
    with busy(n_cores):
        beside = alternate(contestants, settings.n_rounds, warm_up=False)
    whole = alone["library default"]
    return {
        "work": settings.work,
        "n_cores": n_cores,
        "alone": {name: round(value) for name, value in alone.items()},
        "beside": {name: round(value) for name, value in beside.items()},
        "alone_vs_default": {name: round(value / whole, 3) for name, value in alone.items()},
        "of_fair_share": {name: round(value / (whole / 2), 3) for name, value in beside.items()},
    }


def speed(settings: ThreadBenchmarkSettings, name: str, change: dict[str, str]) -> float:
    """Tokens per second of a process of its own, with a thread for each core."""
    threads = str(len(os.sched_getaffinity(0)))
    kept = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", WORK, settings.work, str(settings.seconds), name],
        env={
            **kept,
            **change,
            "OMP_NUM_THREADS": threads,
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout.split()[-1])


@contextmanager
def busy(n: int) -> Iterator[None]:
    """So many processes that do nothing but compute."""
    others = [multiprocessing.get_context("spawn").Process(target=_spin, daemon=True) for _ in range(n)]
    for other in others:
        other.start()
    time.sleep(2)
    try:
        yield
    finally:
        for other in others:
            other.terminate()


def _spin() -> None:
    while True:
        pass


def say(result: dict[str, Any]) -> str:
    lines = [f"{'':18}{'alone':>8}{'ratio':>8}{'beside':>8}{'of fair share':>15}"]
    for name, value in result["alone"].items():
        ratios = result["alone_vs_default"][name], result["of_fair_share"][name]
        lines.append(f"{name:18}{value:>8}{ratios[0]:>8.2f}{result['beside'][name]:>8}{ratios[1]:>15.2f}")
    return "\n".join(
        [f"{result['work']}: tokens per second, {result['n_cores']} cores and as many busy processes", *lines]
    )
