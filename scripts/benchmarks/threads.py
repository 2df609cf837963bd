"""Times forward passes under settings of OpenMP's waiting, alone and beside busy processes: threads that spin starve on shared cores."""

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
from emis_interp.process import SPIN_COUNT, Bars, no_bars

VARIABLES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
WORK = """
import sys, time, torch
from emis_interp.models.loading import load_model
torch.set_num_threads(int(sys.argv[2]))
model = load_model("smollm2-135m-instruct", dtype="auto", device="cpu").model
ids = torch.randint(0, 1000, (8, 96), generator=torch.Generator().manual_seed(0))
with torch.inference_mode():
    model(ids)
    started, n = time.monotonic(), 0
    while time.monotonic() - started < float(sys.argv[1]):
        model(ids)
        n += ids.numel()
print(n / (time.monotonic() - started))
"""


def run(settings: ThreadBenchmarkSettings, bars: Bars = no_bars) -> dict[str, Any]:
    """Tokens per second of every setting, alone and beside one busy process for each core; ratios to the library's own setting alone."""
    n_cores = len(os.sched_getaffinity(0))
    waiting: dict[str, dict[str, str]] = {
        "library default": {},
        "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
        **{f"spin {count}": {"GOMP_SPINCOUNT": str(count)} for count in settings.counts},
        "ours": {"GOMP_SPINCOUNT": SPIN_COUNT},
    }
    contestants = {name: partial(speed, change, settings.seconds, n_cores) for name, change in waiting.items()}
    alone = alternate(contestants, settings.n_rounds, warm_up=False)
    with busy(n_cores):
        beside = alternate(contestants, settings.n_rounds, warm_up=False)
    whole = alone["library default"]
    return {
        "n_cores": n_cores,
        "alone": {name: round(value) for name, value in alone.items()},
        "beside": {name: round(value) for name, value in beside.items()},
        "alone_vs_default": {name: round(value / whole, 3) for name, value in alone.items()},
        "of_fair_share": {name: round(value / (whole / 2), 3) for name, value in beside.items()},
    }


def speed(change: dict[str, str], seconds: float, n_threads: int) -> float:
    """Tokens per second of a process of its own."""
    kept = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", WORK, str(seconds), str(n_threads)],
        env={**kept, **change, "HF_HUB_OFFLINE": "1"},
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
    return "\n".join([f"tokens per second, {result['n_cores']} cores and as many busy processes", *lines])
