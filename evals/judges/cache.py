"""Turns requests into keys, and keeps what came back under them in one SQLite file that several processes may share.

Answers of models under test and judgements lie in separate tables, each under the SHA-256 of everything that decides it. Changing a judge
prompt therefore asks for new judgements and leaves the answers alone. A process claims a key before it sends the request, so that two
processes at the same work share it instead of paying twice; a claim ends by itself soon after its process has died, and one that lies
further ahead than any claim can is from a clock that was wrong and holds nothing. A reply that is not what was kept, which SQLite does not
look at, is forgotten and asked for again.
"""

import contextlib
import hashlib
import json
import logging
import sqlite3
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from emis_interp.errors import DataError, StageError

log = logging.getLogger(__name__)
TABLES = ("answers", "judgements")
LEASE_S = 30.0  # a claim that is not renewed for so long belongs to a dead process
_APPLICATION_ID = 0x454D4953  # "EMIS", in the header of the file
_VERSION = 2
_WITHOUT_CHECKSUMS = 1
_SLACK_S = 1.0  # between reading the clock and having the file to oneself
_BUSY_S = 60.0
_SCHEMA = """
CREATE TABLE {table} (key BLOB PRIMARY KEY, source TEXT NOT NULL, content TEXT NOT NULL, created REAL NOT NULL, sha256 BLOB);
CREATE TABLE {table}_claims (key BLOB PRIMARY KEY, owner TEXT NOT NULL, until REAL NOT NULL);
"""


def request_key(
    kind: Literal["answer", "judgement"],
    model: str,
    host: str,
    *,
    request: Mapping[str, Any],
    version: str,
    sample: int = 0,
) -> bytes:
    """SHA-256 over everything that decides a reply.

    Args:
        request: the whole body as it is sent: messages, sampling settings, seed.
        version: of the code that makes requests of this kind; raise it when equal requests should be asked again.
        sample: 0, 1, ... for repeated draws from equal requests.
    """
    parts = {"kind": kind, "model": model, "host": host, "request": request, "version": version, "sample": sample}
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


class Cache:
    """One SQLite file with the tables `answers` and `judgements`; close it, or use it in a `with`.

    Keep the file on a local disk: SQLite's write-ahead log does not work over network file systems.

    Raises:
        DataError: the file is no SQLite database, a damaged one, or one of another program.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)
        try:
            with self._errors():
                self._prepare()
        except BaseException:
            self._db.close()
            raise
        owner = uuid.uuid4().hex
        self.answers = ReplyTable(self, "answers", owner)
        self.judgements = ReplyTable(self, "judgements", owner)

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> "Cache":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing; other processes wait."""
        with self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                if self._db.in_transaction:  # some errors end it by themselves
                    self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        with self._errors():
            yield self._db

    def _prepare(self) -> None:
        with self.transaction() as db:
            found, version = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
            tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            if not tables and found == 0:
                for table in TABLES:
                    for statement in _SCHEMA.format(table=table).split(";"):
                        db.execute(statement)
                db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                db.execute(f"PRAGMA user_version = {_VERSION}")
            elif found != _APPLICATION_ID:
                known = ", ".join(sorted(tables)[:5]) or "no tables"
                raise DataError(f"{self.path}: is a database of another program ({known}); give another cache path")
            elif version == _WITHOUT_CHECKSUMS:
                for table in TABLES:
                    db.execute(f"ALTER TABLE {table} ADD COLUMN sha256 BLOB")
                db.execute(f"PRAGMA user_version = {_VERSION}")
            elif version != _VERSION:
                raise DataError(
                    f"{self.path}: is a cache of version {version}, this program reads version {_VERSION}; "
                    "give another cache path"
                )
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute(
            "PRAGMA synchronous = NORMAL"
        )  # a crash of the machine may lose the last replies, never the file

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if "full" in str(error):
                raise StageError(
                    f"{self.path}: the disk is full; free some space and run the same command again"
                ) from None
            if "locked" in str(error) or "busy" in str(error):
                raise StageError(
                    f"{self.path}: locked by another program for {_BUSY_S:.0f} s; end it and try again"
                ) from None
            raise StageError(f"{self.path}: cannot be used as a cache ({error}); give another cache path") from None
        except sqlite3.DatabaseError as error:
            raise DataError(
                f"{self.path}: not a readable cache ({error}); delete it or give another cache path"
            ) from None
        except OSError as error:
            raise StageError(f"{self.path}: cannot be written ({error.strerror}); give another cache path") from None


class ReplyTable:
    """Replies under their keys, and who is about to ask for the missing ones."""

    def __init__(self, cache: Cache, name: str, owner: str) -> None:
        self._cache, self._name, self._owner = cache, name, owner

    def get(self, keys: Iterable[bytes]) -> dict[bytes, str]:
        """The replies that are there."""
        with self._cache.reading() as db:
            return self._find(db, keys)

    def take(self, keys: Sequence[bytes]) -> dict[bytes, str] | None:
        """The replies that are there; the other keys are then claimed for the caller, who must `put` or `release` them.

        None when another claim holds one of the keys: nothing is claimed, ask again later.
        """
        found = self.get(keys)
        if len(found) == len(set(keys)):
            return found
        with self._cache.transaction() as db:
            found = self._find(db, keys)
            missing = [key for key in dict.fromkeys(keys) if key not in found]
            now = time.time()
            for key in missing:
                held = db.execute(f"SELECT until FROM {self._name}_claims WHERE key = ?", (key,)).fetchone()  # nosec B608 # our own table
                if held is not None and now <= held[0] <= now + LEASE_S + _SLACK_S:
                    return None
            rows = [(key, self._owner, now + LEASE_S) for key in missing]
            db.executemany(f"INSERT OR REPLACE INTO {self._name}_claims VALUES (?, ?, ?)", rows)  # nosec B608 # our own table
        return found

    def put(self, key: bytes, source: str, content: str) -> str:
        """Keep a reply and end its claim. The first reply to a key stands: returns the one that is kept."""
        row = (key, source, content, time.time(), _checksum(key, content))
        with self._cache.transaction() as db:
            self._find(db, [key])  # a damaged one goes, and does not stand
            db.execute(f"INSERT OR IGNORE INTO {self._name} VALUES (?, ?, ?, ?, ?)", row)  # nosec B608 # our own table
            db.execute(f"DELETE FROM {self._name}_claims WHERE key = ?", (key,))  # nosec B608 # our own table
            return self._find(db, [key])[key]

    def release(self, keys: Iterable[bytes]) -> None:
        """End claims of this process without a reply."""
        rows = [(key, self._owner) for key in keys]
        if rows:
            with self._cache.transaction() as db:
                db.executemany(f"DELETE FROM {self._name}_claims WHERE key = ? AND owner = ?", rows)  # nosec B608 # our own table

    def renew(self) -> None:
        """Say that this process still works on its claims."""
        with self._cache.transaction() as db:
            row = (time.time() + LEASE_S, self._owner)
            db.execute(f"UPDATE {self._name}_claims SET until = ? WHERE owner = ?", row)  # nosec B608 # our own table

    def count(self) -> int:
        with self._cache.reading() as db:
            return db.execute(f"SELECT COUNT(*) FROM {self._name}").fetchone()[0]  # nosec B608 # our own table

    def _find(self, db: sqlite3.Connection, keys: Iterable[bytes]) -> dict[bytes, str]:
        query = f"SELECT content, sha256 FROM {self._name} WHERE key = ?"  # nosec B608 # our own table
        rows = {key: row for key in keys if (row := db.execute(query, (key,)).fetchone()) is not None}
        damaged = [key for key, (content, sha256) in rows.items() if sha256 not in (None, _checksum(key, content))]
        if damaged:
            log.warning("%s: %d damaged reply(s) in `%s`; asked for again", self._cache.path, len(damaged), self._name)
            words = [(key,) for key in damaged]
            db.executemany(f"DELETE FROM {self._name} WHERE key = ?", words)  # nosec B608 # our own table
        return {key: content for key, (content, _) in rows.items() if key not in damaged}


def _checksum(key: bytes, content: str) -> bytes:
    return hashlib.sha256(key + str(content).encode("utf-8", "surrogatepass")).digest()
