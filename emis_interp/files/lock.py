"""Turns a folder, or a file and what stands beside it, into one that a single process writes; another one is told who does.

The lock is the kernel's (flock, by filelock), so it ends with its process however that ends. Beside it stands who holds it. Readers
take no lock: whatever is written is renamed into place whole, or appended in whole lines.
"""

import contextlib
import datetime
import logging
import os
import shlex
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import filelock
from pydantic import ValidationError

from emis_interp.errors import StageError
from emis_interp.files.store import disk_errors, write_text
from emis_interp.files.temporary import is_alive, sweep
from emis_interp.files.text import is_unicode, without_credentials, written_out
from emis_interp.records import Record

log = logging.getLogger(__name__)
_POLL_S = 0.05


def command_line() -> str:
    """How this process was started, quoted for a shell, without passwords of URLs."""
    # An argument that is no Unicode (a folder's name in another encoding) arrives with halves of surrogate pairs.
    return written_out(without_credentials(shlex.join(sys.orig_argv)))


class Holder(Record):
    """Who writes. `started` is when the lock was taken, in local time."""

    pid: int
    host: str
    command: str
    started: str

    @classmethod
    def of_this_process(cls) -> "Holder":
        now = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
        return cls(pid=os.getpid(), host=socket.gethostname(), command=" ".join(command_line().split()), started=now)

    def __str__(self) -> str:
        command = self.command if len(self.command) <= 160 else self.command[:157] + "..."
        return f"process {self.pid} on {self.host} (`{command}`, since {self.started})"


@contextlib.contextmanager
def writing(folder: Path, name: str | None = None, *, patience_s: float = 0.0) -> Iterator[None]:
    """Be the only writer of `folder` until the `with` ends; first, what killed writers left half written is removed.

    Args:
        name: be the only writer of this file and of what stands beside it with the same stem, not of the whole folder.
        patience_s: how long to wait for another writer.

    Raises:
        StageError: another process writes there (its number, host, command and start), or the folder cannot be
            written, or has a name that is not UTF-8.
    """
    where = folder if name is None else folder / name
    if not is_unicode(str(where)):
        raise StageError(
            f"{written_out(str(where))}: a name that is not UTF-8, under which tokenizers and weights cannot be saved; write elsewhere"
        )
    path = folder / (".lock" if name is None else f".{name}.lock")
    with disk_errors(folder):
        made = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path, thread_local=False)
        try:
            lock.acquire(timeout=patience_s, poll_interval=_POLL_S)
        except filelock.Timeout:
            raise StageError(_refusal(where, _holder(path))) from None
    card = _card(path)
    try:
        if (before := _holder(path)) is not None:
            log.info("%s: going on after %s, which ended without a word", where, before)
        with disk_errors(where):
            removed = sweep(folder, name)
        if removed:
            log.info("%s: removed %d half-written file(s) of ended processes", where, len(removed))
        write_text(card, Holder.of_this_process().model_dump_json() + "\n")
        yield
    finally:
        card.unlink(missing_ok=True)
        if isinstance(lock, filelock.UnixFileLock):
            # Unlinked while it is locked: filelock sees when the name of what it locked is gone, and takes the new file.
            path.unlink(missing_ok=True)
        lock.release()
        if made:
            with contextlib.suppress(OSError):  # it holds something by now
                folder.rmdir()


def _card(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _holder(path: Path) -> Holder | None:
    """Who is written beside a lock; None when nobody is, or not yet, or not legibly."""
    try:
        return Holder.model_validate_json(_card(path).read_bytes())
    except (OSError, ValidationError):
        return None


def _refusal(where: Path, holder: Holder | None) -> str:
    if holder is None:
        return f"{where}: another process is at work there; wait for it or end it"
    gone = holder.host == socket.gethostname() and not is_alive(holder.pid)
    end = "end what it left running" if gone else f"end it (kill {holder.pid})"
    return f"{where}: {holder} is at work there; wait for it, {end}, or write elsewhere"
