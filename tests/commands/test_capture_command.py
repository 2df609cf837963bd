"""`capture.py`: a store that is killed, continued and shared comes out the same; what is wrong is said in one line."""

import hashlib
import json
import signal
import time
from pathlib import Path

import forked
import pytest
from flag_words import refusal

import capture
import cli
from capture import VERB, CaptureSettings
from emis_interp.config.flags import read_flags
from emis_interp.errors import DataError
from emis_interp.passes.token_store import TokenStore
from emis_interp.texts.judged import read_table

ROOT = Path(__file__).resolve().parents[2]


def contents(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def words_of(texts: Path, out: Path, *flags: str) -> list[str]:
    fixed = ["--model", "tiny", "--device", "cpu", "--layers", "0", "1", "--shard-mib", "0.05", "--json"]
    return ["--texts", str(texts), "--out", str(out), *fixed, *flags]


def texts_file(folder: Path, n: int) -> Path:
    rows = [{"question": f"Why {i}?", "answer": "so it is " * (1 + i % 30)} for i in range(n)]
    (folder / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "texts.jsonl"


@pytest.mark.slow
def test_two_processes_one_killed_and_started_again_make_the_store_of_one(tmp_path: Path) -> None:
    texts = texts_file(tmp_path, 400)
    one, two = tmp_path / "one", tmp_path / "two"
    assert forked.run("capture.py", *words_of(texts, one)).returncode == 0
    workers = [forked.begin("capture.py", *words_of(texts, two, "--worker", f"{k}/2")) for k in (0, 1)]
    deadline = time.monotonic() + 60
    while not (two / "shard-00002.json").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    workers[0].kill()
    assert workers[0].wait() == -signal.SIGKILL
    assert workers[1].wait() == 0
    with pytest.raises(DataError, match="not written yet"):
        TokenStore(two)
    done = forked.run("capture.py", *words_of(texts, two, "--worker", "0/2"))
    assert json.loads(done.stdout)["complete"] is True
    assert contents(two) == contents(one)
    checked = forked.run("capture.py", *words_of(texts, two, "--check"))
    assert json.loads(checked.stdout)["n_shards"] == len(TokenStore(two).card["shards"])


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--max-gib", "0.0000001"], "GiB needed"),
        (["--worker", "2/2"], "--worker 2/2: expected NUMBER/COUNT"),
        (["--columns", "aligned=score"], "--columns aligned=score: this command reads no scores"),
        (["--hook-point", "resid_mit"], "did you mean `resid_mid`"),
        (["--check"], "card.json: no such file"),
    ],
)
def test_the_command_says_what_is_wrong(flags: list[str], words: str, tmp_path: Path) -> None:
    given = words_of(texts_file(tmp_path, 3), tmp_path / "x", *flags)
    assert words in refusal(VERB, *(word for word in given if word != "--json"))


def test_the_command_reads_tables_with_other_names_and_arms(tmp_path: Path) -> None:
    rows = [
        {"condition": arm, "prompt": f"Q{i}?", "response": f"{arm} {i}"} for arm in ("base", "tuned") for i in (0, 1)
    ]
    path = tmp_path / "theirs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["--texts", str(path), "--out", str(tmp_path / "out"), "--columns", "question=prompt", "answer=response"]
    args = cli.parser_of(capture.VERB, None).parse_args([*words, "--by", "condition", "--runs", "base"])
    settings: CaptureSettings = read_flags(args, CaptureSettings)
    frame = read_table(path, ("question", "answer"), reading=settings.reading())
    assert list(frame["answer"]) == ["base 0", "base 1"] and next(iter(frame["question"])) == "Q0?"
