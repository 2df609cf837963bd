"""Turns a file's final name into the hidden name under which it is written, and finds what killed writers left under such names.

A name is `.FINAL.PID-RANDOM.part`: whose writer it was can be read from it, so a leftover can be told from a write under way.
"""

import os
import re
import secrets
import time
from pathlib import Path

_PART = re.compile(r"\.(?P<name>.+)\.(?P<pid>\d+)-[0-9a-f]{8}\.part")
_LONGEST_WRITE_S = 3600.0
"""A part that nobody has added to for so long is no write under way, whoever has its process number by now."""


def part_path(path: Path) -> Path:
    """Where this process writes what will be renamed to `path`; another name at every call."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")


def leftovers(folder: Path, name: str | None = None) -> list[Path]:
    """Parts in `folder` whose writers are dead. Ask only while nobody else in this process writes there.

    Args:
        name: parts of this file and of the files beside it that share its stem, in `folder` alone; None for all, in all folders below.
    """
    found = folder.rglob(".*.part") if name is None else folder.glob(".*.part")
    dead = []
    for path in sorted(found):
        match = _PART.fullmatch(path.name)
        if match is None or (name is not None and Path(match["name"]).stem.split(".")[0] != name.split(".")[0]):
            continue
        if not _is_under_way(path, int(match["pid"])):
            dead.append(path)
    return dead


def sweep(folder: Path, name: str | None = None) -> list[Path]:
    """Remove `leftovers` and return what was removed."""
    removed = leftovers(folder, name)
    for path in removed:
        path.unlink(missing_ok=True)
    return removed


def is_alive(pid: int) -> bool:
    """Whether a process of this number runs on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # another user's; a number that no process can have
        return pid < 2**31
    return True


def _is_under_way(path: Path, pid: int) -> bool:
    if pid == os.getpid() or not is_alive(pid):
        return False
    try:
        return time.time() - path.stat().st_mtime < _LONGEST_WRITE_S
    except FileNotFoundError:
        return False
