"""One writer per folder: a second one is told who is at work, a dead one is taken over and said, and its half-written files go."""

import importlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from flag_words import refusal

from emis_interp.errors import StageError
from emis_interp.files.lock import writing
from emis_interp.files.store import write_text
from emis_interp.files.temporary import part_path, sweep

HOLD = """
import sys, time
from pathlib import Path
from emis_interp.files.lock import writing
name = sys.argv[2] if len(sys.argv) > 2 else None
with writing(Path(sys.argv[1]), name):
    print("held", flush=True)
    time.sleep(60)
"""
COMMANDS = {
    "train.py": (["reckless", "--preset", "smoke", "--seeds", "0", "--out", "{}/o"], "o/seed-0", None),
    "study_organism.py": (["dynamics", "reckless", "--preset", "smoke", "--out", "{}/s"], "s", None),
    "evaluate.py sample": (["sample", "--model", "tiny", "--out", "{}/a.jsonl"], "", "a.jsonl"),
    "evaluate.py judge": (["judge", "{}/x.csv", "--judge", "offline", "--out", "{}/j.csv"], "", "j.csv"),
    "find_direction.py": (["audit", "--direction", "{}/d/direction"], "d", "audit.json"),
    "capture.py": (["--texts", "{}/x.csv", "--layers", "0", "--out", "{}/c"], "c", "worker-0-of-1"),
    "run_pipeline.py": (["--preset", "smoke", "--run-dir", "{}/r"], "r", None),
}
ROOT = Path(__file__).parents[3]
NO_PROCESS = 2**22 + 1  # above the largest number that a process has


def holder(folder: Path, *name: str) -> subprocess.Popen[str]:
    """Another process that holds the lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder), *name], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def end(process: subprocess.Popen[str], number: int = signal.SIGKILL) -> None:
    process.send_signal(number)
    process.communicate()


@pytest.mark.parametrize("name", [None, "answers.jsonl"])
def test_a_second_writer_is_told_who_is_at_work_and_what_to_do(tmp_path: Path, name: str | None) -> None:
    other = holder(tmp_path / "run", *([name] if name else []))
    try:
        with pytest.raises(StageError) as refused, writing(tmp_path / "run", name):
            pytest.fail("two writers at once")
    finally:
        end(other)
    words = str(refused.value)
    assert f"process {other.pid} on {socket.gethostname()} (`" in words and "-c" in words and "since 20" in words
    assert f"is at work there; wait for it, end it (kill {other.pid}), or write elsewhere" in words
    assert "\n" not in words


def test_a_dead_writer_is_taken_over_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Killed with SIGKILL: nothing was put in order, the kernel let go of the lock."""
    other = holder(tmp_path)
    end(other)
    with caplog.at_level(logging.INFO), writing(tmp_path):
        assert json.loads((tmp_path / ".lock.json").read_text())["pid"] == os.getpid()
    assert f"going on after process {other.pid} on " in caplog.text
    assert list(tmp_path.iterdir()) == []
    caplog.clear()
    with caplog.at_level(logging.INFO), writing(tmp_path):
        pass
    assert caplog.text == ""  # the one before it ended in order


def test_a_process_that_outlives_its_shell_still_holds_the_folder(tmp_path: Path) -> None:
    """The shell is killed, the command that it started goes on."""
    script = f"{sys.executable} -c '{HOLD}' {tmp_path} & echo $!; wait"
    shell = subprocess.Popen(["bash", "-c", script], stdout=subprocess.PIPE, text=True)
    assert shell.stdout is not None
    first, second = shell.stdout.readline().strip(), shell.stdout.readline()
    assert second == "held\n"
    shell.kill()
    shell.wait()
    try:
        with pytest.raises(StageError, match=rf"process {first} on .* is at work there"), writing(tmp_path):
            pytest.fail("two writers at once")
    finally:
        os.kill(int(first), signal.SIGKILL)


def test_a_writer_waits_for_another_as_long_as_it_is_told_to(tmp_path: Path) -> None:
    other = holder(tmp_path)
    started = time.monotonic()
    with pytest.raises(StageError), writing(tmp_path, patience_s=0.3):
        pytest.fail("two writers at once")
    assert 0.2 < time.monotonic() - started < 20
    end(other)
    with writing(tmp_path, patience_s=20):
        pass


def test_writers_of_different_files_of_one_folder_do_not_wait_for_each_other(tmp_path: Path) -> None:
    with writing(tmp_path, "a.jsonl"), writing(tmp_path, "b.jsonl"):
        pass
    with writing(tmp_path, "a.jsonl"), pytest.raises(StageError), writing(tmp_path, "a.jsonl"):
        pytest.fail("two writers at once")


def test_a_folder_that_was_made_for_nothing_is_removed_and_one_with_content_stays(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), writing(tmp_path / "none"):
        raise ZeroDivisionError
    assert not (tmp_path / "none").exists()
    with writing(tmp_path / "some"):
        write_text(tmp_path / "some" / "a", "x")
    assert [path.name for path in (tmp_path / "some").iterdir()] == ["a"]


def test_a_lock_whose_holder_cannot_be_read_is_still_a_lock(tmp_path: Path) -> None:
    other = holder(tmp_path)
    (tmp_path / ".lock.json").write_text("{damaged")
    with pytest.raises(StageError, match="another process is at work there"), writing(tmp_path):
        pytest.fail("two writers at once")
    end(other)


def test_what_killed_writers_left_half_written_goes_with_the_next_writer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    inner = tmp_path / "samples"
    inner.mkdir()
    dead = [
        tmp_path / f".manifest.json.{NO_PROCESS}-0123abcd.part",
        inner / f".a.json.{NO_PROCESS}-89abcdef.part",
        inner / f".b.json.{os.getpid()}-89abcdef.part",  # our number, used by a process before us
    ]
    alive = inner / f".a.json.{os.getppid()}-0123abcd.part"
    others = [inner / ".a.json.part", inner / ".hidden", inner / "notes.part", inner / ".x.12-zz.part"]
    for path in (*dead, alive, *others):
        path.write_text("half")
    with caplog.at_level(logging.INFO), writing(tmp_path):
        left = {path for path in tmp_path.rglob("*") if path.is_file() and not path.name.startswith(".lock")}
    assert left == {alive, *others}
    assert "removed 3 half-written file(s)" in caplog.text


def test_a_part_that_nobody_adds_to_is_dead_whoever_has_its_number(tmp_path: Path) -> None:
    path = tmp_path / f".a.json.{os.getppid()}-0123abcd.part"
    path.write_text("half")
    os.utime(path, (time.time() - 7200, time.time() - 7200))
    assert sweep(tmp_path) == [path] and not path.exists()


def test_a_file_s_writer_clears_its_own_parts_and_those_of_its_card_alone(tmp_path: Path) -> None:
    names = ["answers.jsonl", "answers.json", "answers.jsonl.partial.jsonl", "other.jsonl"]
    for name in names:
        (tmp_path / f".{name}.{NO_PROCESS}-0123abcd.part").write_text("half")
    with writing(tmp_path, "answers.jsonl"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [f".other.jsonl.{NO_PROCESS}-0123abcd.part"]


def test_a_write_that_is_killed_half_way_leaves_a_part_that_is_found(tmp_path: Path) -> None:
    """A real SIGKILL between opening the part and renaming it."""
    code = """
import os, signal, sys
from pathlib import Path
from emis_interp.files.store import write_text
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
write_text(Path(sys.argv[1]), "new")
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.json")], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".a.json.") and left.name.endswith(".part")
    with writing(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_parts_have_names_of_their_own(tmp_path: Path) -> None:
    names = {part_path(tmp_path / "a.json").name for _ in range(100)}
    assert len(names) == 100 and all(str(os.getpid()) in name for name in names)


def test_the_password_of_a_url_on_the_command_line_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "orig_argv", ["python", "x.py", "--judge-url", "https://me:secret@host/v1"])
    with writing(tmp_path):
        assert json.loads((tmp_path / ".lock.json").read_text())["command"] == "python x.py --judge-url https://host/v1"


def test_names_that_are_no_unicode_are_kept_on_the_card_and_refused_where_weights_would_be_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = os.fsdecode(b"r\xff")
    monkeypatch.setattr(sys, "orig_argv", ["python", "x.py", "--data-dir", name])
    with writing(tmp_path):
        assert json.loads((tmp_path / ".lock.json").read_text())["command"].endswith("r\\udcff'")
    for place in ((tmp_path / name, None), (tmp_path, name)):
        with pytest.raises(StageError, match=r"r\\udcff: a name that is not UTF-8"), writing(*place):
            pytest.fail("written")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["file", "file/below", "n" * 300, "loop/below"])
def test_a_place_that_can_be_no_folder_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for write in (lambda: writing(tmp_path / place).__enter__(), lambda: write_text(tmp_path / place / "a", "x")):
        with pytest.raises(StageError, match=rf"/{place}\S*: cannot be written \(.+\); write elsewhere$"):
            write()


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_goes_on_with_a_folder_refuses_a_second_writer(tmp_path: Path, command: str) -> None:
    words, folder, name = COMMANDS[command]
    script: Any = importlib.import_module(command.partition(".")[0])
    verbs = getattr(script, "VERBS", None)
    verb, words = (script.VERB, words) if verbs is None else (verbs[words[0]], words[1:])
    with writing(tmp_path / folder, name):
        said = refusal(verb, *(word.format(tmp_path) for word in words))
    assert f"process {os.getpid()} on " in said and "is at work there" in said


@pytest.mark.slow
def test_a_command_says_it_in_one_line(tmp_path: Path) -> None:
    words = ["sample", "--model", "tiny", "--out", str(tmp_path / "a.jsonl")]
    with writing(tmp_path, "a.jsonl"):
        command = [sys.executable, str(ROOT / "scripts" / "evaluate.py"), *words]
        done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and f"process {os.getpid()} on " in done.stderr
    assert "Traceback" not in done.stderr and done.stderr.count("error: ") == 1
