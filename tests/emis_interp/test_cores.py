"""Who looks after OpenMP's threads: begun unless the environment says otherwise, and its held threads make the others sleep."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from emis_interp import cores

ROOT = Path(__file__).parents[2]
STAT = """cpu  900 0 900 900 900 0 0 0 0 0
cpu0 10 1 5 100 7 0 2 50 3 0
cpu1 20 0 0 100 0 1 0 0 0 0
cpu7 9000 0 0 0 0 0 0 0 0 0
intr 5 6
"""
linux = pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="only Linux says what others do on the cores")


@linux
@pytest.mark.parametrize(
    ("given", "begun"), [({}, True), ({"GOMP_SPINCOUNT": "7"}, False), ({"OMP_WAIT_POLICY": "ACTIVE"}, False)]
)
def test_what_the_environment_says_of_waiting_stands(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], begun: bool
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(cores.Watch, "run", lambda self: None)
    assert (cores.share_cores.__wrapped__() is not None) == begun


@linux
def test_the_work_of_the_cores_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither idle time nor waiting for a disk, nor what other guests took of the machine; 7 is a core of others."""
    stat = tmp_path / "stat"
    stat.write_text(STAT)
    monkeypatch.setattr(cores, "STAT", stat)
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(cores.os, "sysconf", lambda _: 100)
    assert cores.busy_seconds() == pytest.approx((10 + 1 + 5 + 2 + 20 + 1) / 100)


def test_where_the_system_does_not_say_nothing_is_begun(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cores, "STAT", tmp_path / "none")
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    assert cores.share_cores.__wrapped__() is None


WAITING = """
import os, time, torch
from emis_interp.cores import Watch

N = float(len(os.sched_getaffinity(0)))  # of cores that others want

def spun():
    x, began = torch.zeros(2**17), time.process_time()
    for _ in range(60):
        x.add_(1)
        time.sleep(0.004)  # a thread that may spin does so meanwhile
    return time.process_time() - began

threads = lambda: len(os.listdir("/proc/self/task"))
watch, before = Watch(), (spun(), spun(), threads())
watch.adapt(N)
time.sleep(0.2)
during = spun(), threads()
watch.adapt(N)
time.sleep(0.2)
again = threads()
watch.adapt(0.1)
time.sleep(0.2)
print(before[1], during[0], spun(), before[2], during[1], again, threads())
"""


@linux
@pytest.mark.skipif(len(getattr(os, "sched_getaffinity", lambda _: ())(0)) < 2, reason="one core: nothing to wait for")
def test_waiting_threads_spin_where_the_cores_are_free_and_sleep_where_they_are_shared() -> None:
    environment = {
        name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    }
    done = subprocess.run(
        [sys.executable, "-c", WAITING],
        env={**environment, "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    free, shared, free_again, *threads = map(float, done.stdout.split())
    assert shared < 0.5 * min(free, free_again), done.stdout
    assert threads[0] == threads[3] < threads[1] == threads[2]


@linux
@pytest.mark.parametrize(("others", "held"), [(2.2, False), (2.4, True), (4.0, True)])
def test_others_may_have_the_cores_that_this_process_does_not_use(
    monkeypatch: pytest.MonkeyPatch, others: float, held: bool
) -> None:
    """Two threads on four cores, and more managed than there are cores where there is a need."""
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    monkeypatch.setattr(cores, "openmp_threads", lambda: 2)
    monkeypatch.setattr(cores, "Held", lambda: "held")
    watch = cores.Watch()
    watch.adapt(others)
    assert (len(watch.held) == 4) if held else not watch.held


@linux
def test_one_thread_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "openmp_threads", lambda: 1)
    watch = cores.Watch()
    watch.adapt(100.0)
    assert not watch.held
