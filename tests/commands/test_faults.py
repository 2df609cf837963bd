"""What machines do to a run in the middle of it: a limit on files, a disk that is read-only, a folder that is taken away or moved."""

import errno
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import forked
import pytest
from flag_words import sets
from made_records import completion
from small_run import SETTINGS, SmallRun

from emis_interp.errors import StageError
from emis_interp.files.store import RecordLog, write_bytes
from emis_interp.files.temporary import leftovers
from emis_interp.files.verification import verified

ROOT = Path(__file__).resolve().parents[2]
TRAIN = ["--preset", "smoke", *sets(*SETTINGS), "--only", "train"]


def train(folder: Path, prepare: Callable[[], object] | None = None) -> subprocess.CompletedProcess[str]:
    """`prepare` is called in the process before it becomes the command."""
    if prepare is None:
        return forked.run(forked.PIPELINE, *TRAIN, "--run-dir", str(folder))
    words = [sys.executable, "scripts/run_pipeline.py", *TRAIN, "--run-dir", str(folder)]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300, preexec_fn=prepare)


@pytest.mark.slow
def test_a_limit_on_the_size_of_files_is_named_and_the_run_goes_on_without_it(tmp_path: Path) -> None:
    limited = train(tmp_path / "run", lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, 12_000)))
    assert limited.returncode == 2 and "Traceback" not in limited.stderr, limited.stderr[-2000:]
    assert "disk is full" in limited.stderr or "ulimit -f" in limited.stderr
    assert leftovers(tmp_path / "run") == []
    assert train(tmp_path / "run").returncode == 0
    assert verified(tmp_path / "run")["ok"]


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A small file system of the test's own."""
    place = tmp_path / "disk"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=60m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(words, check=False, capture_output=True).returncode:
        pytest.skip("needs root to mount a small file system")
    yield place
    subprocess.run(["umount", str(place)], check=False)


@pytest.mark.fuzz
@pytest.mark.slow
def test_a_disk_that_is_read_only_is_named_and_the_run_goes_on_later(mounted: Path) -> None:
    (mounted / "run").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", str(mounted)], check=True)
    refused = train(mounted / "run")
    assert refused.returncode == 2 and "Traceback" not in refused.stderr, refused.stderr[-2000:]
    assert "cannot be written (Read-only file system)" in refused.stderr
    subprocess.run(["mount", "-o", "remount,rw", str(mounted)], check=True)
    assert train(mounted / "run").returncode == 0


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SmallRun, Path, Path]]:
    """A run until its arms are trained, and the same until its answers are scored, undisturbed."""
    small, folder = SmallRun(), tmp_path_factory.mktemp("begun")
    small.go(folder / "trained", "--only", "train")
    shutil.copytree(folder / "trained", folder / "calm")
    small.go(folder / "calm", "--only", "sample", "score")
    yield small, folder / "trained", folder / "calm"
    small.server.close()


@pytest.mark.slow
def test_a_folder_that_becomes_read_only_in_the_middle_of_a_stage_is_named_and_the_run_goes_on_later(
    begun: tuple[SmallRun, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, trained, calm = begun
    folder, opened = tmp_path / "run", Path.open
    shutil.copytree(trained, folder)

    def read_only(path: Path, mode: str = "r", *words: Any, **more: Any) -> Any:
        first = folder / "samples" / "base.jsonl"
        if set(mode) & set("awx+") and path.is_relative_to(folder) and first.exists() and first.stat().st_size:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return opened(path, mode, *words, **more)

    with monkeypatch.context() as disk:
        disk.setattr(Path, "open", read_only)
        with pytest.raises(StageError, match=r"cannot be written \(Read-only file system\); mend its permissions"):
            small.go(folder, "--only", "sample")
    assert (folder / "samples" / "base.jsonl").stat().st_size and not (folder / "samples" / "x.jsonl").exists()
    small.go(folder, "--only", "sample")
    for name in ("base", "x"):
        assert (folder / f"samples/{name}.jsonl").read_bytes() == (calm / f"samples/{name}.jsonl").read_bytes()
    assert verified(folder)["ok"] and leftovers(folder) == []


@pytest.mark.slow
def test_a_cache_of_judgements_that_vanishes_between_two_halves_changes_no_score(
    begun: tuple[SmallRun, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, trained, calm = begun
    folder, cache, append = tmp_path / "run", tmp_path / "cache" / "replies.sqlite", RecordLog.append
    shutil.copytree(trained, folder)
    small.go(folder, "--only", "sample")
    with_cache = (f"judge.cache_path={cache}",)

    def killed(log: RecordLog, rows: Any) -> None:
        append(log, rows)
        if log.path == folder / "scores" / "base.jsonl":
            raise KeyboardInterrupt

    with monkeypatch.context() as killing:
        killing.setattr(RecordLog, "append", killed)
        with pytest.raises(KeyboardInterrupt):
            small.go(folder, "--only", "score", settings=with_cache)
    assert cache.exists() and 0 < len((folder / "scores" / "base.jsonl").read_bytes().splitlines()) < 4
    shutil.rmtree(cache.parent)
    small.go(folder, "--only", "score", settings=with_cache)
    assert cache.exists()
    for name in ("base", "x"):
        assert (folder / f"scores/{name}.jsonl").read_bytes() == (calm / f"scores/{name}.jsonl").read_bytes()


def test_a_folder_that_is_taken_away_is_named(tmp_path: Path) -> None:
    log = RecordLog(tmp_path / "run" / "a.jsonl")
    shutil.rmtree(tmp_path / "run")
    row = completion("A")
    with pytest.raises(StageError, match=r"a\.jsonl: its folder vanished while it was written to"):
        log.append([row])


def test_a_limit_within_a_process_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_bytes(path, b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(
            StageError, match=r"x\.json: larger than this disk or the limit of this shell takes \(ulimit -f\)"
        ):
            write_bytes(path, b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_bytes() == b"old" and [item.name for item in tmp_path.iterdir()] == ["x.json"]


@pytest.mark.fuzz
@pytest.mark.slow
def test_a_run_that_was_moved_goes_on_where_it_is_now_and_is_whole(tmp_path: Path) -> None:
    small = SmallRun()
    try:
        small.go(tmp_path / "here", "--only", "train", "check")
        (tmp_path / "here").rename(tmp_path / "there")
        small.go(tmp_path / "there")
        assert not (tmp_path / "here").exists()
        result = verified(tmp_path / "there")
    finally:
        small.server.close()
    assert result["ok"] and result["other_inputs"] == []


@pytest.mark.fuzz
@pytest.mark.slow
def test_a_clock_that_jumps_changes_no_result_and_no_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour forward, two days back, at every look: times in records are wrong then, nothing else."""
    true, jumps = time.time, iter([3600.0, -2 * 86400.0] * 100_000)
    small = SmallRun()
    try:
        small.go(tmp_path / "calm", "--only", "train", "check", "sample")
        with monkeypatch.context() as clock:
            clock.setattr(time, "time", lambda: true() + next(jumps))
            small.go(tmp_path / "jumping", "--only", "train", "check", "sample")
    finally:
        small.server.close()
    for name in (
        "samples/base.jsonl",
        "samples/x.jsonl",
        "checks/x.json",
        "training/x/adapter/adapter_model.safetensors",
    ):
        assert (tmp_path / "calm" / name).read_bytes() == (tmp_path / "jumping" / name).read_bytes(), name
    assert verified(tmp_path / "jumping")["ok"]


@pytest.mark.slow
def test_of_two_runs_in_one_folder_the_second_is_refused_with_the_name_of_the_first(tmp_path: Path) -> None:
    """In the middle of the work, not at its beginning alone."""
    small, refused = SmallRun(), list[str]()
    folder = tmp_path / "run"

    def second() -> None:
        while not (folder / "training" / "x" / "metrics.jsonl").exists():
            time.sleep(0.01)
        done = train(folder)
        refused.append(f"{done.returncode} {done.stderr}")

    other = threading.Thread(target=second)
    other.start()
    try:
        small.go(folder)
    finally:
        other.join()
        small.server.close()
    if not refused[0].startswith("2 "):
        pytest.skip("the first was done before the second had started")
    assert f"process {os.getpid()} on" in refused[0] and "is at work there; wait for it" in refused[0]
    assert verified(folder)["ok"]
