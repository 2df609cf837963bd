"""Turns a file that was made twice into what differs between the two: no byte, no figure, or which figures and by how much.

Times, and the place of the folder, are no figures: they are looked past and said.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open

from emis_interp.errors import EmisError
from emis_interp.files.sealed import SEAL
from emis_interp.files.store import read_json, read_lines
from emis_interp.files.strict_json import parse_json_line

TIMES = frozenset(
    ("seconds", "tokens_per_second", "peak_rss_gib", "finished", "started", "at", "seconds_per_text", "made", "date")
)
"""Names of values that say when and how fast something was made."""
MOST_PLACES = 5
Same = Literal["bytes", "figures", "no"]


@dataclass
class RemadeFile:
    """`same`: in every byte, or in every figure; `places` are the first that differ, `largest` the largest relative difference of two
    numbers, `passed_over` names of times and places that differ."""

    file: str
    same: Same = "bytes"
    places: list[str] = field(default_factory=list)
    largest: float = 0.0
    passed_over: set[str] = field(default_factory=set)

    def beside(self, first: Path, second: Path) -> None:
        """Where the two stand, so that hashes of files beside them can be followed."""
        self._folders = first.parent, second.parent

    def passes_hash(self, key: str) -> bool:
        """Whether a hash that differs is of a file beside them whose figures are the same."""
        one, two = self._folders
        if not (one / key).is_file() or not (two / key).is_file() or compared(one, two, key).same == "no":
            return False
        self.passed_over.add("hash of a file with times")
        return True


def compared(first: Path, second: Path, name: str) -> RemadeFile:
    """The file `name` of two folders. JSON and JSON lines are compared by figures, tensors by numbers, the rest by bytes."""
    found, one, two = RemadeFile(name), first / name, second / name
    found.beside(one, two)
    if not one.is_file() or not two.is_file():
        found.same, found.places = "no", [f"is missing in {'the first' if not one.is_file() else 'the second'}"]
        return found
    if one.read_bytes() == two.read_bytes():
        return found
    try:
        differences = list(_differences(one, two, found))
    except (EmisError, SafetensorError) as error:
        differences = [str(error)]
    found.places = differences[:MOST_PLACES]
    found.same = "no" if differences else "figures"
    return found


def _differences(one: Path, two: Path, found: RemadeFile) -> Iterator[str]:
    if one.suffix == ".json":
        yield from _of_values(read_json(one), read_json(two), "", found=found)
    elif one.suffix == ".jsonl":
        rows = [
            [parse_json_line(line, f"{path}:{n}", halves=True) for n, line in read_lines(path)] for path in (one, two)
        ]
        yield from _of_values(rows[0], rows[1], "", found=found)
    elif one.suffix == ".safetensors":
        yield from _of_tensors(one, two, found)
    elif one.suffix in (".html", ".md"):
        yield from _of_pages(one, two, found)
    else:
        yield "bytes differ"


def _of_values(one: Any, two: Any, where: str, *, found: RemadeFile, key: str = "") -> Iterator[str]:
    if isinstance(one, dict) and isinstance(two, dict):
        for key in dict.fromkeys([*one, *two]):
            if key in TIMES and key in one and key in two:
                found.passed_over |= {key} if one[key] != two[key] else set()
            elif key == SEAL and key in one and key in two:
                continue  # of what is compared here, times included
            else:
                place = f"{where}.{key}" if where else str(key)
                if key in one and key in two:
                    yield from _of_values(one[key], two[key], place, found=found, key=str(key))
                else:
                    yield f"{place} is in one of them alone"
    elif isinstance(one, list) and isinstance(two, list) and len(one) == len(two):
        for i, pair in enumerate(zip(one, two, strict=True)):
            yield from _of_values(pair[0], pair[1], f"{where}.{i}" if where else str(i), found=found)
    elif one != two:
        if isinstance(one, str) and isinstance(two, str) and _same_place(one, two):
            found.passed_over.add("place of the folder")
            return
        if _is_hash(one) and _is_hash(two) and found.passes_hash(key):
            return
        if isinstance(one, int | float) and isinstance(two, int | float):
            found.largest = max(found.largest, _apart(one, two))
        yield f"{where}: {str(one)[:40]} and {str(two)[:40]}"


def _of_tensors(one: Path, two: Path, found: RemadeFile) -> Iterator[str]:
    with safe_open(one, "pt") as first, safe_open(two, "pt") as second:
        if set(first.keys()) != set(second.keys()):
            yield "the tensors have other names"
            return
        for name in sorted(first.keys()):
            a, b = first.get_tensor(name), second.get_tensor(name)
            if a.shape != b.shape or a.dtype != b.dtype:
                yield f"{name}: {list(a.shape)} {a.dtype} and {list(b.shape)} {b.dtype}"
            elif not a.equal(b):
                scale = float(a.double().abs().max()) or 1.0
                gap = float((a.double() - b.double()).abs().max()) / scale
                found.largest = max(found.largest, gap if math.isfinite(gap) else math.inf)
                yield f"{name}: up to {gap:.2g} of its largest number"


def _of_pages(one: Path, two: Path, found: RemadeFile) -> Iterator[str]:
    """A page shows times and how long stages took among its text: numbers with a unit of time, and dates."""
    first, second = (_TIME.sub("", path.read_text("utf-8")) for path in (one, two))
    found.passed_over.add("times")
    if first != second:
        yield "the text differs besides its times"


_TIME = re.compile(
    r"\d{4}-\d\d-\d\dT[\d:]+(?:\+00:00|Z)?|\d+(?:\.\d+)? (?:s|min|h|GiB|tokens/s)\b|\"(?:seconds|peak_rss_gib)\": ?[\d.]+"
)


def _same_place(one: str, two: str) -> bool:
    """Whether two texts are paths that end alike inside of a run folder."""
    first, second = one.split("/"), two.split("/")
    shared = 0
    while shared < min(len(first), len(second)) and first[-1 - shared] == second[-1 - shared]:
        shared += 1
    return shared >= 2 and " " not in "".join(first[-shared:])


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) is not None


def _apart(one: float, two: float) -> float:
    gap = abs(one - two) / max(abs(one), abs(two))
    return gap if math.isfinite(gap) else math.inf
