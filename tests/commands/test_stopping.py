"""Whoever stops a run, by Ctrl-C or SIGTERM, has the terminal back within seconds, with the command that goes on, and loses nothing."""

import hashlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import forked
import pytest
from flag_words import sets
from small_run import SETTINGS

ROOT = Path(__file__).parents[2]
STAGES = ("train", "sample", "score")
INTERRUPTED, ENDED = (signal.SIGINT, 130), (signal.SIGTERM, 143)
STOPS = [
    ("sample", *ENDED),
    *(
        pytest.param(*rest, marks=pytest.mark.fuzz)
        for rest in (
            ("train", *INTERRUPTED),
            ("train", *ENDED),
            ("sample", *INTERRUPTED),
            ("score", *INTERRUPTED),
            ("score", *ENDED),
        )
    ),
]
MORE = (
    "arms=[{name: base}, {name: x, dataset: reckless, n_rows: 40}]",
    "sampling.samples_per_paraphrase=5",
    "sampling.max_new_tokens=24",
    "training.checkpoint_steps=2",
)
"""Of everything so much that a signal meets it at work."""


def words_of(folder: Path, last: str) -> list[str]:
    """A run from its first stage to this one."""
    stages = STAGES[: STAGES.index(last) + 1]
    return ["--preset", "smoke", "--run-dir", str(folder), "--only", *stages, *sets(*SETTINGS, *MORE)]


def result(folder: Path) -> dict[str, str]:
    """Hashes of weights, answers and scores."""
    files = [*folder.glob("training/x/adapter/*.safetensors"), *folder.glob("s*/*.jsonl")]
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, str]]:
    """The result of a run to a stage that nobody stopped."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"

    def to(last: str) -> dict[str, str]:
        assert forked.run(forked.PIPELINE, *words_of(folder, last)).returncode == 0
        kinds = {"train": "training/", "sample": "samples/", "score": "scores/"}
        made = tuple(kinds[stage] for stage in STAGES[: STAGES.index(last) + 1])
        found = {name: value for name, value in result(folder).items() if name.startswith(made)}
        assert len(found) == 2 * len(made) - 1, sorted(found)
        return found

    return to


def at_work(folder: Path, stage: str) -> bool:
    """Whether the stage has made something, and is not done."""
    first = {"train": "training/x/metrics.jsonl", "sample": "samples/base.jsonl", "score": "scores/base.jsonl"}[stage]
    return (folder / first).exists()


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "number", "status"), STOPS)
def test_a_stopped_stage_goes_on_to_the_same_result(
    undisturbed: Callable[[str], dict[str, str]], tmp_path: Path, stage: str, number: int, status: int
) -> None:
    folder = tmp_path / "run"
    process = forked.begin(forked.PIPELINE, *words_of(folder, stage))
    deadline = time.monotonic() + 240
    while not at_work(folder, stage) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    assert process.poll() is None, "it was done before it was stopped"
    stopped = time.monotonic()
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert time.monotonic() - stopped < 5.0
    assert process.returncode == status and "Traceback" not in stderr
    assert shlex.split(stderr.strip().splitlines()[-1]) == process.args
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)  # nobody of its group is left
    again = forked.run(forked.PIPELINE, *words_of(folder, stage))
    assert again.returncode == 0, again.stderr
    assert f"of {STAGES.index(stage) + 1}, " in again.stderr.splitlines()[1], again.stderr
    assert result(folder) == undisturbed(stage)


BUSY = """
import argparse, hashlib, signal, sys
import cli

signal.signal(signal.SIGINT, signal.default_int_handler)

def work(args):
    print("at work", file=sys.stderr, flush=True)
    hashlib.pbkdf2_hmac("sha256", b"a", b"b", 2_000_000_000)  # minutes, in which Python hears no signal
    return {}

parser = argparse.ArgumentParser()
cli.add_output_flags(parser)
cli.run(work, parser, str)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_call_that_does_not_return_is_ended_all_the_same(number: int, status: int) -> None:
    path = os.pathsep.join([str(ROOT), str(ROOT / "scripts")])
    words = [sys.executable, "-c", BUSY]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path})
    assert process.stderr is not None and process.stderr.readline() == "at work\n"
    stopped = time.monotonic()
    process.send_signal(number)
    _, stderr = process.communicate(timeout=30)
    assert time.monotonic() - stopped < 5.0
    assert process.returncode == status
    said, _, command = stderr.partition("\n")
    assert said.endswith("finished work is kept, the same command continues:") and shlex.split(command) == words
