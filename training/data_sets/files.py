"""Turns a training file of any kind in use into its rows, not yet read as training examples.

JSON lines, a JSON array, CSV, Parquet (each also gzipped), and a folder that `datasets` saved. The content decides what a file is.
"""

import json
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emis_interp.errors import DataError, printable, shown
from emis_interp.files.csv_text import parse_csv
from emis_interp.files.parquet import ARROW_ERRORS, MAX_ROWS, read_arrow
from emis_interp.files.source_text import decode, read_bytes
from emis_interp.files.strict_json import kind_of, listed, parse_json, parse_json_line
from emis_interp.files.table_text import TableText, text_lines
from training.data_sets.rows import PROMPTS, RESPONSES, TURNS, is_messages
from training.data_sets.turns import PLAIN

log = logging.getLogger(__name__)

ENDINGS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
_NO_TEXT = {
    b"ARROW1": "an Arrow file; give the folder that `datasets` saved, or save it as Parquet",
    b"PK\x03\x04": "a zip archive (or an Excel sheet); unpack it, or save it as CSV",
    b"\x89HDF": "an HDF5 file; save it as JSON lines or Parquet",
    b"BZh": "a bzip2 file; unpack it",
    b"\xfd7zXZ": "an xz file; unpack it",
    b"\x28\xb5\x2f\xfd": "a zstandard file; unpack it",
    b"\x80\x04": "a pickle, which is never read; save it as JSON lines or Parquet",
    b"SQLite": "an SQLite file; save its table as JSON lines or Parquet",
}


@dataclass(frozen=True)
class RawRow:
    """One row as it stands in the file, or why it cannot be read.

    Attributes:
        label: `line 3` or `row 3`; where: the same with the file, for errors; number: 1-based, what a row without an id is called.
    """

    label: str
    where: str
    number: int
    value: Any


def raw_rows(path: Path) -> list[RawRow]:
    """Every row of a training file or folder; blank lines are none. In JSON lines a line that is no JSON is a row whose value is the error.

    Raises:
        DataError: no such file, unreadable content, or no row at all.
    """
    rows = list(_folder_rows(path) if path.is_dir() else _file_rows(path))
    if not rows:
        raise DataError(f"{path}: no rows")
    return rows


def _file_rows(path: Path) -> Iterator[RawRow]:
    content = read_bytes(path)
    ending = Path(path.name.removesuffix(".gz")).suffix.lower()
    for magic, what in _NO_TEXT.items():
        if content.startswith(magic):
            raise DataError(f"{path}: {what}")
    if content.startswith(b"PAR1") or ending == ".parquet":
        return _parquet_rows(content, path)
    text = decode(content, str(path))
    if ending in (".csv", ".tsv"):
        return _csv_rows(text, path)
    return _json_rows(text, path)


def _json_rows(text: str, path: Path) -> Iterator[RawRow]:
    """JSON lines, also when each is an array, or one array over all lines."""
    lines = list(text_lines(text))
    first = lines[0][1].strip() if lines else ""
    if first.startswith("[") and (len(lines) == 1 or not _is_json(first)):
        value = parse_json(text, str(path))
        rows = [value] if is_messages(value) else value
        yield from (RawRow(f"row {n}", f"{path}: row {n}", n, row) for n, row in enumerate(rows, 1))
        return
    if first == "{" or (path.name.removesuffix(".gz").endswith(".json") and len(lines) > 1 and not _is_json(first)):
        value = parse_json(text, str(path))
        held = f" with the keys {listed(value)}" if isinstance(value, dict) else ""
        raise DataError(
            f"{path}: one {kind_of(value).partition(' ')[2]}{held}, expected an array of rows or one row a line, e.g. {PLAIN}"
        )
    for number, line in lines:
        where = f"{path}:{number}"
        try:
            value = parse_json_line(line, where)
        except DataError as error:
            value = error
        yield RawRow(f"line {number}", where, number, value)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _csv_rows(text: str, path: Path) -> Iterator[RawRow]:
    """An empty cell is a key that is not there."""
    found = parse_csv(TableText.of(text), str(path), known=(*TURNS, *PROMPTS, *RESPONSES), flag=None)
    _check_names(found.header, path)
    for note in found.notes:
        log.info("%s: %s", path, note)
    for number, (line, cells) in enumerate(zip(found.lines, found.rows(), strict=True), 1):
        row = {name: cell for name, cell in zip(found.header, cells, strict=True) if cell}
        yield RawRow(f"row {number}", f"{path}: row {number} (line {line})", number, row)


def _parquet_rows(content: bytes, path: Path) -> Iterator[RawRow]:
    table = read_arrow(content, str(path))
    _check_names(table.column_names, path)
    try:
        rows = table.to_pylist()
    except ARROW_ERRORS as error:
        raise DataError(f"{path}: not a readable parquet table ({_words(error)}); write it again") from None
    yield from (RawRow(f"row {n}", f"{path}: row {n}", n, row) for n, row in enumerate(rows, 1))


def _check_names(names: list[str], path: Path) -> None:
    twice = next((name for name, n in Counter(names).items() if n > 1), None)
    if twice is not None:
        raise DataError(f"{path}: two columns are called {shown(twice)}; rename one of them")


def _folder_rows(folder: Path) -> Iterator[RawRow]:
    """Rows of a folder that `datasets` saved (`save_to_disk`); of several splits the one that the path names."""
    if (folder / "dataset_dict.json").exists():
        splits = sorted(path.name for path in folder.iterdir() if (path / "state.json").exists())
        if len(splits) != 1:
            names = ", ".join(splits) or "none"
            advice = f"name one, e.g. {folder / splits[0]}" if splits else "save it again with save_to_disk"
            raise DataError(f"{folder}: a data set with the splits {names}; {advice}")
        folder = folder / splits[0]
    if not (folder / "state.json").exists():
        files = sorted(path.name for path in folder.iterdir() if path.name.removesuffix(".gz").endswith(ENDINGS))
        there = (
            f"it holds {', '.join(files[:5])}; name one of them" if files else f"expected a file ({', '.join(ENDINGS)})"
        )
        raise DataError(f"{folder}: is a folder that `datasets` did not save (no state.json); {there}")
    for number, row in enumerate(_saved_rows(folder), 1):
        yield RawRow(f"row {number}", f"{folder}: row {number}", number, row)


def _saved_rows(folder: Path) -> list[Any]:
    from datasets import load_from_disk

    try:
        found: Any = load_from_disk(str(folder))
        rows = None if len(found) > MAX_ROWS else found.with_format(None).to_list()
    except Exception as error:  # the library promises nothing about what it raises on a damaged folder
        raise DataError(f"{folder}: not a data set that `datasets` can read ({_words(error)}); save it again") from None
    if rows is None:
        raise DataError(f"{folder}: {len(found):,} rows, at most {MAX_ROWS:,} are read; take a part of them")
    return rows


def _words(error: BaseException) -> str:
    return printable(" ".join((str(error) or type(error).__name__).split()), 160)
