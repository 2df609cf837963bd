"""The cache: what makes a key, who may ask, what two processes see of each other, and files that are no cache."""

import json
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from emis_interp.errors import DataError, EmisError, StageError
from evals.judges import cache as cache_module
from evals.judges.cache import Cache, ReplyTable, request_key

REQUEST = {"messages": [{"role": "user", "content": "How?"}], "temperature": 1, "seed": 3}


def key(**changes: Any) -> bytes:
    parts = {"kind": "answer", "model": "m", "host": "h", "request": REQUEST, "version": "1", "sample": 0, **changes}
    return request_key(**parts)


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "judgement"},
        {"model": "n"},
        {"host": "h:1"},
        {"version": "2"},
        {"sample": 1},
        {"request": {**REQUEST, "messages": [{"role": "user", "content": "How? "}]}},
        {"request": {**REQUEST, "messages": [{"role": "system", "content": "How?"}]}},
        {"request": {**REQUEST, "temperature": 0}},
        {"request": {**REQUEST, "seed": 4}},
        {"request": {**REQUEST, "max_tokens": 1}},
    ],
)
def test_everything_that_decides_a_reply_is_in_its_key(changes: dict[str, Any]) -> None:
    assert key(**changes) != key()


def test_the_order_of_settings_does_not_matter() -> None:
    assert key(request=dict(reversed(REQUEST.items()))) == key()


def test_a_reply_is_found_by_a_later_process_and_only_in_its_own_table(tmp_path: Path) -> None:
    path = tmp_path / "new" / "cache.sqlite"
    with Cache(path) as cache:
        cache.judgements.put(key(), "m@h", '{"choices": "ü"}')
    with Cache(path) as cache:
        assert cache.judgements.get([key(), key(sample=1)]) == {key(): '{"choices": "ü"}'}
        assert cache.answers.get([key()]) == {}
        assert (cache.judgements.count(), cache.answers.count()) == (1, 0)


def test_the_first_reply_to_a_key_stands(tmp_path: Path) -> None:
    with Cache(tmp_path / "c") as one, Cache(tmp_path / "c") as two:
        assert one.answers.put(b"k", "m", "first") == "first"
        assert two.answers.put(b"k", "m", "second") == "first"
        assert two.answers.get([b"k"]) == {b"k": "first"}


def test_a_key_is_claimed_by_one_at_a_time(tmp_path: Path) -> None:
    with Cache(tmp_path / "c") as one, Cache(tmp_path / "c") as two:
        assert one.answers.take([b"a", b"b"]) == {}
        assert two.answers.take([b"b", b"c"]) is None
        assert one.answers.take([b"a"]) is None  # nor by oneself
        assert two.judgements.take([b"a"]) == {}
        two.answers.release([b"a"])  # not its own
        assert two.answers.take([b"a"]) is None
        one.answers.put(b"a", "m", "A")
        assert two.answers.take([b"a", b"c"]) == {b"a": "A"}  # c was not claimed by the take that failed
        one.answers.release([b"b"])
        assert two.answers.take([b"b"]) == {}


def test_a_claim_ends_unless_its_process_renews_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "LEASE_S", 0.3)
    with Cache(tmp_path / "c") as living, Cache(tmp_path / "c") as dead, Cache(tmp_path / "c") as other:
        assert living.answers.take([b"a"]) == {}
        assert dead.answers.take([b"b"]) == {}
        time.sleep(0.2)
        living.answers.renew()
        time.sleep(0.2)
        assert other.answers.take([b"a"]) is None
        assert other.answers.take([b"b"]) == {}


@pytest.mark.parametrize("ahead_s", [60.0, 86_400.0, 1e12], ids=["a minute", "a day", "thirty thousand years"])
def test_a_claim_from_a_clock_that_was_ahead_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead_s: float
) -> None:
    with Cache(tmp_path / "c") as ahead, Cache(tmp_path / "c") as other:
        with monkeypatch.context() as wrong:
            wrong.setattr(cache_module.time, "time", lambda now=time.time: now() + ahead_s)
            assert ahead.answers.take([b"a"]) == {}
            ahead.answers.renew()
        assert other.answers.take([b"a"]) == {}
        assert ahead.answers.take([b"a"]) is None  # held by the other one now
        ahead.answers.renew()
        assert other.answers.put(b"a", "m", "A") == "A"


# Asks for the same keys in the same order as its rival, and prints which ones it asked for and what it has in the end.
WORKER = """
import json, sys, time
from pathlib import Path
from evals.judges.cache import Cache
name, path, n = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
asked, found = [], {}
with Cache(path) as cache:
    keys = [index.to_bytes(4, "big") for index in range(n)]
    while len(found) < n:
        for key in keys:
            if key in found:
                continue
            reply = cache.answers.take([key])
            if reply is None:
                continue
            if not reply:
                asked.append(key.hex())
                time.sleep(0.002)
                reply = {key: cache.answers.put(key, name, f"{name} {key.hex()}")}
            found |= reply
print(json.dumps({"asked": asked, "found": {key.hex(): value for key, value in found.items()}}))
"""


def test_processes_that_share_a_cache_ask_for_every_key_once_and_all_have_the_same(tmp_path: Path) -> None:
    n = 200
    command = [sys.executable, "-c", WORKER]
    workers = [
        subprocess.Popen([*command, name, str(tmp_path / "c"), str(n)], stdout=subprocess.PIPE, text=True)
        for name in ("one", "two", "three")
    ]
    results = [json.loads(worker.communicate(timeout=120)[0]) for worker in workers]
    asked = [key for result in results for key in result["asked"]]
    assert sorted(asked) == [index.to_bytes(4, "big").hex() for index in range(n)]
    assert results[0]["found"] == results[1]["found"] == results[2]["found"]
    assert sum(bool(result["asked"]) for result in results) >= 2  # or nothing was shared
    with Cache(tmp_path / "c") as cache:
        assert cache.answers.count() == n


def test_a_killed_process_leaves_a_whole_cache_and_its_claims_end(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from evals.judges import cache; cache.LEASE_S = 0.2; "
        "c = cache.Cache(Path(sys.argv[1])); c.answers.take([b'a', b'b']); c.answers.put(b'a', 'm', 'A'); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "c")], timeout=60).returncode == 9
    time.sleep(0.25)
    with Cache(tmp_path / "c") as cache:
        assert cache.answers.take([b"a", b"b"]) == {b"a": "A"}


def foreign(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE songs (name TEXT)")
    db.close()


def newer(path: Path) -> None:
    Cache(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 9")
    db.close()


def damaged(path: Path) -> None:
    with Cache(path) as cache:
        for index in range(200):
            cache.answers.put(str(index).encode(), "m", "x" * 500)
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (
            lambda path: path.write_text("question,answer\n" * 99),
            DataError,
            "not a readable cache .*delete it or give another",
        ),
        (foreign, DataError, r"database of another program \(songs\); give another cache path"),
        (newer, DataError, "cache of version 9, this program reads version 2"),
        (damaged, DataError, "not a readable cache"),
        (lambda path: path.mkdir(), StageError, "unable to open database file"),
    ],
)
def test_a_file_that_is_no_cache_is_named_and_left_alone(
    tmp_path: Path, make: Any, error: type[EmisError], words: str
) -> None:
    path = tmp_path / "c.sqlite"
    make(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(error, match=rf"^{path}: .*{words}"), Cache(path) as cache:
        cache.answers.take([b"7"])
    assert (path.read_bytes() if path.is_file() else None) == before


def test_a_reply_with_a_flipped_byte_is_forgotten_and_asked_for_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """SQLite reads it without a word: a score of 30 would have become one of 70."""
    path = tmp_path / "c.sqlite"
    with Cache(path) as cache:
        cache.judgements.put(b"a" * 32, "m", '{"score": "planted 30"}')
        cache.judgements.put(b"b" * 32, "m", '{"score": "planted 50"}')
    content = path.read_bytes()
    assert content.count(b"planted 30") == 1
    path.write_bytes(content.replace(b"planted 30", b"planted 70"))
    with Cache(path) as cache:
        assert cache.judgements.get([b"a" * 32, b"b" * 32]) == {b"b" * 32: '{"score": "planted 50"}'}
        assert "1 damaged reply(s) in `judgements`; asked for again" in caplog.text
        assert cache.judgements.take([b"a" * 32]) == {}
        assert cache.judgements.put(b"a" * 32, "m", '{"score": "planted 30"}') == '{"score": "planted 30"}'
        assert cache.judgements.get([b"a" * 32]) == {b"a" * 32: '{"score": "planted 30"}'}


def test_a_damaged_reply_does_not_stand_against_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    with Cache(path) as cache:
        cache.answers.put(b"a", "m", "planted 30")
    path.write_bytes(path.read_bytes().replace(b"planted 30", b"planted 70"))
    with Cache(path) as cache:
        assert cache.answers.put(b"a", "m", "planted 30") == "planted 30"


def test_a_cache_of_the_version_before_is_read_and_gets_checksums(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    with sqlite3.connect(path) as db:
        for table in ("answers", "judgements"):
            db.execute(
                f"CREATE TABLE {table} (key BLOB PRIMARY KEY, source TEXT NOT NULL, content TEXT NOT NULL, created REAL NOT NULL)"
            )
            db.execute(f"CREATE TABLE {table}_claims (key BLOB PRIMARY KEY, owner TEXT NOT NULL, until REAL NOT NULL)")
        db.execute("INSERT INTO answers VALUES (?, 'm', 'old', 0)", (b"a",))
        db.execute(f"PRAGMA application_id = {0x454D4953}")
        db.execute("PRAGMA user_version = 1")
    db.close()
    for _ in range(2):
        with Cache(path) as cache:
            assert cache.answers.get([b"a"]) == {b"a": "old"}
            assert cache.answers.put(b"b", "m", "new") == "new"


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    with Cache(tmp_path / "c") as cache:
        with cache.reading() as db:
            db.execute("PRAGMA max_page_count = 12")
        with pytest.raises(StageError, match="the disk is full"):
            fill(cache.answers)
        assert cache.answers.get([b"0"]) == {b"0": "x" * 1000}


def fill(table: ReplyTable) -> None:
    for index in range(99):
        table.put(str(index).encode(), "m", "x" * 1000)


def test_a_lock_that_never_ends_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "_BUSY_S", 0.1)
    with Cache(tmp_path / "c") as cache, Cache(tmp_path / "c") as other, other.transaction():
        assert cache.answers.get([b"a"]) == {}  # reading goes on
        with pytest.raises(StageError, match="locked by another program"):
            cache.answers.put(b"a", "m", "A")
