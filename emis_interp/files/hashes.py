"""Turns files into hashes of their contents, several at a time."""

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from emis_interp.files.store import file_sha256


def hashes(root: Path, files: Iterable[Path]) -> dict[str, str]:
    """Path relative to `root` -> SHA-256, sorted by path."""
    paths = sorted(files)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        found = list(pool.map(file_sha256, paths))
    return {path.relative_to(root).as_posix(): sha for path, sha in zip(paths, found, strict=True)}


def first_difference(root: Path, expected: Mapping[str, str]) -> str | None:
    """The first of these files under `root` that is missing or has another content, as `FILE is missing` or `FILE changed`."""
    present = [root / file for file in expected if (root / file).is_file()]
    actual = hashes(root, present)
    for file, sha in expected.items():
        if actual.get(file) != sha:
            return f"{file} {'changed' if file in actual else 'is missing'}"
    return None
