"""Hours of small runs, some of them killed on their way: memory, open files, threads and what lies about stay what they were.

`EMIS_SOAK_MINUTES` says for how long (default 3). `-s` shows a line for every run.
"""

import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from killing import differences, warm
from small_run import SmallRun

from emis_interp.files.temporary import leftovers
from emis_interp.models import loading
from emis_interp.models.gguf import cache_dir
from emis_interp.process import release_memory

MINUTES = float(os.environ.get("EMIS_SOAK_MINUTES", "3"))
WARM_UP, MOST_GROWTH_MIB = 3, 1.0
"""Runs whose memory is not counted (what is imported and cached), and what a run more may cost in the end."""
pytestmark = [pytest.mark.fuzz, pytest.mark.slow]


@dataclass(frozen=True)
class Held:
    """What this process holds: memory in MiB, open files, threads; and files in its folder for temporary ones and in the cache."""

    memory: float
    n_open: int
    n_threads: int
    n_temporary: int
    n_cached: int

    @classmethod
    def now(cls, scratch: Path) -> "Held":
        release_memory()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        files = [sum(path.is_file() for path in place.rglob("*")) for place in (scratch, cache_dir())]
        memory = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
        return cls(memory, len(list(Path("/proc/self/fd").iterdir())), threading.active_count(), *files)


def growth(memory: list[float]) -> float:
    """MiB that each run added, by a line through the middle of what was held."""
    return float(np.polyfit(range(len(memory)), memory, 1)[0]) if len(memory) > 1 else 0.0


@pytest.fixture(autouse=True)
def no_words_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """tokenizers 0.23 never frees the words that a tokenizer has kept, even when that is gone; one that keeps none shows what we leave."""
    ready = loading.ready_tokenizer

    def without_words(*given: Any, **options: Any) -> Any:
        tokenizer = ready(*given, **options)
        tokenizer.backend_tokenizer.model._resize_cache(0)
        return tokenizer

    monkeypatch.setattr(loading, "ready_tokenizer", without_words)


def test_runs_in_one_process_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    small, draw = SmallRun(), random.Random(0)
    held, n_kills, begun = list[Held](), 0, time.monotonic()
    small.go(tmp_path / "first")
    seconds = time.monotonic() - begun
    while len(held) < WARM_UP + 2 or time.monotonic() - begun < 60 * MINUTES:
        folder = tmp_path / "run"
        attempt = warm((*small.words(), "--run-dir", str(folder)), tmp_path)
        attempt.spoke(seconds)
        if attempt.ended(draw.uniform(0, seconds)) is None:
            os.kill(attempt.pid, signal.SIGKILL)
            n_kills += attempt.ended(5) == -signal.SIGKILL
        assert not attempt.survivors()
        small.go(folder)
        assert differences(tmp_path / "first", folder) == [] and leftovers(folder) == []
        small.server.requests.clear()
        small.server.headers.clear()
        shutil.rmtree(folder)
        held.append(Held.now(scratch))
        sys.stderr.write(f"{(time.monotonic() - begun) / 60:.1f} min, run {len(held)}: {held[-1]}\n")
    small.server.close()
    counted = held[WARM_UP:]
    grown = growth([one.memory for one in counted])
    sys.stderr.write(
        f"{len(held)} runs, {n_kills} of them killed before: {grown:+.2f} MiB a run, {counted[0]} -> {counted[-1]}\n"
    )
    assert grown < MOST_GROWTH_MIB
    assert {astuple(one)[1:] for one in counted} == {astuple(counted[0])[1:]}
    assert counted[0].n_temporary == 0 and n_kills > 0


def test_a_planted_leak_is_seen() -> None:
    assert growth([500.0 + 2 * i + (-1) ** i for i in range(12)]) > MOST_GROWTH_MIB
    assert abs(growth([500.0 + (-1) ** i for i in range(12)])) < MOST_GROWTH_MIB
