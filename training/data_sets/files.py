"""Turns a training file of any kind in use into its rows, not yet read as training examples.

JSON lines, a JSON array, CSV, Parquet (each also gzipped), and a folder that `datasets` saved. The content decides what a file is.
"""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emis_interp.errors import DataError, shown
from emis_interp.files.source_text import MAX_BYTES, decode, read_bytes
from emis_interp.files.strict_json import kind_of, listed, parse_json, parse_json_line
from training.data_sets.rows import is_messages
from training.data_sets.turns import PLAIN

ENDINGS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
MAX_ROWS = 5_000_000
"""More rows than a table's bytes can mean: a Parquet file of a few kilobytes can state billions of equal ones."""
_LARGEST_CELL = 1 << 30  # the csv module stops at 128 KiB, answers need not
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
        return _csv_rows(text, path, "\t" if ending == ".tsv" else ",")
    return _json_rows(text, path)


def _json_rows(text: str, path: Path) -> Iterator[RawRow]:
    """JSON lines, also when each is an array, or one array over all lines."""
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
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


# A reader of tables for every command is emis_interp.files.tables; these two read no more than training needs.
def _csv_rows(text: str, path: Path, delimiter: str) -> Iterator[RawRow]:
    """An empty cell is a key that is not there."""
    limit = csv.field_size_limit(_LARGEST_CELL)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
        lines, begins = [], 1
        for cells in reader:
            if cells:
                lines.append((begins, cells))
            begins = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}: not a readable CSV table ({error})") from None
    finally:
        csv.field_size_limit(limit)
    header = lines[0][1] if lines else []
    _check_names(header, path)
    for number, (line, cells) in enumerate(lines[1:], 1):
        where = f"{path}: row {number} (line {line})"
        if len(cells) != len(header):
            raise DataError(
                f"{where} has {len(cells)} cells, the header has {len(header)}; put texts with commas in quotes"
            )
        row = {name: cell for name, cell in zip(header, cells, strict=True) if cell}
        yield RawRow(f"row {number}", where, number, row)


def _parquet_rows(content: bytes, path: Path) -> Iterator[RawRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: list[Any] = []
    try:
        file = pq.ParquetFile(io.BytesIO(content))
        n_rows = file.metadata.num_rows
        if n_rows > MAX_ROWS:
            raise DataError(f"{path}: {n_rows:,} rows, at most {MAX_ROWS:,} are read; take a part of them")
        _check_names(file.schema_arrow.names, path)
        n_bytes = 0
        for batch in file.iter_batches(batch_size=256):  # a dictionary can make every row as large as the file
            n_bytes += batch.nbytes
            if n_bytes > MAX_BYTES:
                raise DataError(f"{path}: unpacks to more than {MAX_BYTES:,} bytes; take a part of it")
            rows += batch.to_pylist()
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        raise DataError(f"{path}: not a readable Parquet table ({_words(error)}); write it again") from None
    yield from (RawRow(f"row {n}", f"{path}: row {n}", n, row) for n, row in enumerate(rows, 1))


def _check_names(names: list[str], path: Path) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DataError(f"{path}: two columns are called {shown(name)}; rename one of them")
        seen.add(name)


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
    return shown(" ".join((str(error) or type(error).__name__).split()), 160)[1:-1]
