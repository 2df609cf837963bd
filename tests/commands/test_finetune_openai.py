"""The finetuning command: what it prints, what it advises, and that a killed one leaves one upload and one job."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from finetune_server import Fault, FinetuneServer, start_words

import cli
import finetune_openai
from training.hosted import connection, follow, start
from training.hosted.job_folder import read_job
from training.hosted.openai_jobs import Waits
from training.hosted.settings import JobFollowSettings

ROOT = Path(__file__).resolve().parents[2]
KEY = "sk-of-the-test-0123456789"
UPLOAD, CREATE = ("POST", "/files"), ("POST", "/fine_tuning/jobs")
LOOK = ("GET", "/fine_tuning/jobs/ftjob-0")


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(connection, "make_waits", lambda settings: Waits(0.001, 0.01, 3, 0.001, 3))


@pytest.fixture
def server() -> Iterator[FinetuneServer]:
    with FinetuneServer(key=KEY) as running:
        yield running


def cli_start(*given: str) -> dict[str, Any]:
    """`start` in this process."""
    words = cli.verb_parser(None, finetune_openai.VERBS).parse_args(["start", *given])
    return finetune_openai.VERBS["start"].do(words)


def test_without_yes_the_command_that_sends_is_told(
    server: FinetuneServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["scripts/finetune_openai.py", "start", "my rows.jsonl", "--out", "x"])
    result = cli_start(*start_words(server, tmp_path))
    assert result["command"] == "python scripts/finetune_openai.py start 'my rows.jsonl' --out x --yes"
    assert "Nothing was sent" in start.say(result) and result["command"] in start.say(result)
    assert server.requests == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "kind", "left"),
    [
        (UPLOAD, "kill_after", ("prepared", 1, 0)),  # between the upload and its record
        (CREATE, "kill_before", ("uploaded", 1, 0)),  # between the upload and the creation
        (CREATE, "kill_after", ("uploaded", 1, 1)),  # between the creation and its record
        (LOOK, "kill_after", ("validating_files", 1, 1)),
    ],
)
def test_after_a_kill_there_is_exactly_one_file_and_one_job(
    server: FinetuneServer, tmp_path: Path, where: tuple[str, str], kind: str, left: tuple[str, int, int]
) -> None:
    server.faults.append(Fault(*where, kind=kind))
    command = [
        sys.executable,
        str(ROOT / "scripts/finetune_openai.py"),
        "start",
        *start_words(server, tmp_path, "--yes"),
    ]
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    server.victim = process.pid
    output, _ = process.communicate(timeout=120)
    assert process.returncode == -9, output.decode()
    assert (read_job(tmp_path / "job").status, len(server.files), len(server.jobs)) == left
    result = follow.run(JobFollowSettings(folder=tmp_path / "job"))
    assert result["status"] == "succeeded" and len(server.files) == len(server.jobs) == 1
    assert server.count(*UPLOAD) == 1 and result["adopted"] == (left[2] == 1 and where == CREATE)
    again = cli_start(*start_words(server, tmp_path, "--yes"))
    assert again["model"] == result["model"] and len(server.jobs) == 1


@pytest.mark.slow
def test_the_script_prints_one_object_and_keeps_the_key_to_itself(server: FinetuneServer, tmp_path: Path) -> None:
    def script(*given: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "scripts/finetune_openai.py", *given, "--json"]
        return subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=120)

    finished = script("start", *start_words(server, tmp_path, "--yes"), "--poll-seconds", "0.01")
    assert finished.returncode == 0 and json.loads(finished.stdout)["model"] == "ft:base:ftjob-0"
    assert "price unknown" in finished.stderr and "now running" in finished.stderr and KEY not in finished.stderr
    refused = script("follow", str(tmp_path / "nowhere"))
    assert refused.returncode == 2 and "no such file" in json.loads(refused.stdout)["error"]
