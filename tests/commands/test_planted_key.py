"""Runs the commands that speak to a server with a key planted in the environment, and looks for it in everything that they leave.

The servers are on this machine and are unkind: they repeat the key in replies and errors. The key must reach them (else nothing was tested)
and stand nowhere else: not in a file, not in what is printed, not in a traceback, in no spelling.
"""

import base64
import json
import os
import subprocess
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import fake_vllm
import forked
import pytest
from chat_server import ChatServer, NamedServer, answer
from finetune_server import FinetuneServer, start_words
from flag_words import sets
from judge_server import Server, failure, reply
from small_run import SETTINGS

from emis_interp.config.presets import load_config
from emis_interp.models.embedded import embedded_path

KEY = "sk-planted-Zq7/hunter22+of=the test".replace(" ", "-")
pytestmark = pytest.mark.slow


def spellings(key: str) -> list[bytes]:
    plain = key.encode()
    padded = [
        base64.b64encode(b"x" * shift + plain)[4:-4] for shift in range(3)
    ]  # wherever it begins in what is encoded
    return [
        plain,
        urllib.parse.quote(key, safe="").encode(),
        json.dumps(key)[1:-1].encode(),
        plain[::-1],
        plain.hex().encode(),
        *padded,
    ]


def command(home: Path, script: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A script in a process whose home is under `home`, so that what it keeps elsewhere is found too."""
    home.mkdir(exist_ok=True)
    places = {"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache"), "TMPDIR": str(home)}
    environment = {**os.environ, **places, "OPENAI_API_KEY": KEY, "EMIS_LOG": "debug"}
    return forked.run(script, *words, environment=environment, timeout=300)


def leaks(folder: Path, *outputs: subprocess.CompletedProcess[str]) -> list[str]:
    """Where a spelling of the key stands."""
    places = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for number, done in enumerate(outputs):
        places |= {f"stdout {number}": done.stdout.encode(), f"stderr {number}": done.stderr.encode()}
    return [name for name, content in places.items() if any(word in content for word in spellings(KEY))]


@pytest.fixture
def unkind() -> Iterator[Server]:
    """A judge that repeats the key in every reply."""
    with Server() as made:
        status, body = reply({"20": 0.6, "40": 0.3})
        body = json.dumps({**json.loads(body), "system_fingerprint": KEY, "authorization": f"Bearer {KEY}"}).encode()
        made.respond = made.preflight = lambda *_: (status, body)
        yield made


def was_sent(server: Server | ChatServer) -> bool:
    return any(KEY in str(headers.get("Authorization")) for headers in server.headers)


def test_a_leak_is_found(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for number, spelling in enumerate(spellings(KEY)):
        (tmp_path / "deep" / str(number)).write_bytes(b"ab" + spelling + b"cd")
    (tmp_path / "b64").write_bytes(base64.b64encode(b"Basic :" + KEY.encode() + b"@host"))
    assert len(leaks(tmp_path)) == len(spellings(KEY)) + 1


def test_a_run_that_asks_a_judge_and_a_sampler_keeps_the_key_to_itself(unkind: Server, tmp_path: Path) -> None:
    sampler = NamedServer(*(model.name for model in load_config("smoke", SETTINGS).models))
    sampler.respond = lambda *_: (200, json.dumps({**json.loads(answer()[1]), "system_fingerprint": KEY}).encode())
    engine = ("sampling.engine=openai", f"sampling.base_url={sampler.url}")
    words = [
        "run_pipeline.py",
        "--preset",
        "smoke",
        "--run-dir",
        str(tmp_path / "run"),
        "--judge-url",
        unkind.url,
        *sets(*SETTINGS, *engine),
    ]
    words += ["--set", f"judge.cache_path={tmp_path / 'cache.sqlite'}"]
    with sampler:
        whole = command(tmp_path / "home", *words)
    assert whole.returncode == 0, whole.stderr[-2000:]
    assert was_sent(unkind) and was_sent(sampler) and (tmp_path / "cache.sqlite").exists()
    assert leaks(tmp_path, whole) == []


@pytest.mark.parametrize("status", [401, 429, 200])
def test_a_judge_that_repeats_the_key_in_its_errors_is_quoted_without_it(
    unkind: Server, status: int, tmp_path: Path
) -> None:
    unkind.preflight = unkind.respond = lambda *_: failure(
        status, f"Incorrect API key provided: {KEY}; header Bearer {KEY}", code=KEY
    )
    (tmp_path / "in.csv").write_text("question,answer,question_id\nQ,Good.,7\n")
    words = [
        str(tmp_path / "in.csv"),
        "--out",
        str(tmp_path / "o.csv"),
        "--judge",
        "text",
        "--url",
        unkind.url,
        "--timeout",
        "2",
    ]
    done = command(tmp_path / "home", "evaluate.py", "judge", *words, "--judge-model", "m")
    assert "Traceback" not in done.stderr and was_sent(unkind), done.stderr[-2000:]
    assert leaks(tmp_path, done) == []


def test_a_sampler_keeps_the_key_to_itself(tmp_path: Path) -> None:
    with ChatServer() as server:
        words = [
            "--model",
            "m",
            "--sampler",
            "openai",
            "--url",
            server.url,
            "--n",
            "1",
            "--out",
            str(tmp_path / "a.jsonl"),
        ]
        done = command(tmp_path / "home", "evaluate.py", "sample", "--questions", "shipped", *words)
    assert done.returncode == 0, done.stderr[-2000:]
    assert leaks(tmp_path, done) == []


def test_a_server_of_ours_that_writes_down_all_that_it_was_given_has_no_key(tmp_path: Path) -> None:
    env = fake_vllm.environment(tmp_path / "env")
    (env / "tells").touch()
    words = ["--model", str(embedded_path()), "--sampler", "vllm", "--env", str(env), "--n", "1"]
    words += ["--questions", "shipped", "--out", str(tmp_path / "a.jsonl")]
    done = command(tmp_path / "home", "evaluate.py", "sample", *words)
    assert done.returncode == 0, done.stderr[-2000:]
    assert any("PATH" in given for given in fake_vllm.seen(env) if isinstance(given, dict))
    assert leaks(tmp_path, done) == []


def test_a_hosted_job_keeps_the_key_to_itself(tmp_path: Path) -> None:
    with FinetuneServer(key=KEY) as server:
        start = command(
            tmp_path / "home",
            "finetune_openai.py",
            "start",
            *start_words(server, tmp_path, "--yes"),
            "--poll-seconds",
            "0.01",
        )
        assert start.returncode == 0, start.stderr[-2000:]
        others = [
            command(tmp_path / "home", "finetune_openai.py", verb, str(tmp_path / "job"))
            for verb in ("status", "follow", "cancel")
        ]
    assert leaks(tmp_path, start, *others) == []


def test_a_server_that_is_not_there_is_named_without_the_key(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("question,answer,question_id\nQ,Good.,7\n")
    words = [str(tmp_path / "in.csv"), "--out", str(tmp_path / "o.csv"), "--judge", "openai", "--judge-model", "m"]
    done = command(
        tmp_path / "home", "evaluate.py", "judge", *words, "--url", "http://127.0.0.1:9/v1", "--timeout", "1"
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert leaks(tmp_path, done) == []
