"""Turns CSV, JSON lines and Parquet files into one kind of table whose cells stay as they were written, and tables back into files.

Every command reads tables here and nowhere else, so what one command writes all others read. What a file is that is not one of these, or
which row and column is broken, is said.
"""

import io
import json
import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from emis_interp.errors import DataError
from emis_interp.files.cells import is_unicode, read_text, short
from emis_interp.files.csv_text import csv_cell, csv_text, parse_csv, row_place
from emis_interp.files.decoding import numbered_lines
from emis_interp.files.decoding import read_text as text_of_file
from emis_interp.files.names import ARM_KEYS, QUESTION_KEYS, no_column, shown
from emis_interp.store import write_bytes

log = logging.getLogger(__name__)

SUFFIXES = (".csv", ".jsonl", ".parquet")
_KNOWN = (*QUESTION_KEYS, *ARM_KEYS, "answer", "aligned", "coherent")
_FLOAT_ID = re.compile(r"-?[0-9]+\.0")
_ARROW = (pa.ArrowException, OSError, ValueError, KeyError, TypeError, OverflowError, NotImplementedError)
"""What pyarrow raises for damaged files and for values that Python's types cannot hold."""


@dataclass(frozen=True, eq=False)
class Table:
    """Rows in file order; a CSV cell is text.

    Attributes:
        arrow: keeps the column types of a Parquet file.
        places: of the rows in the file, for messages.
        scales: metric -> (worst, best) of its scale where it is stated.
        backwards: metrics of which high is bad here.
    """

    path: Path
    columns: list[str]
    rows: list[dict[str, Any]]
    arrow: Any = None
    places: Sequence[str] = ()
    scales: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    backwards: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.rows)

    def where(self, index: int, column: str | None = None) -> str:
        """`file: row 3 (line 5), column `x``, for error messages; `index` counts from 0."""
        place = self.places[index] if self.places else f"{self.path}: row {index + 1}"
        return place if column is None else f"{place}, column `{shown(column)}`"

    def cells(self, column: str) -> list[Any]:
        """A column as it was written; None where a row has no such cell."""
        return [row.get(column) for row in self.rows]

    def text(self, column: str) -> list[str]:
        """A column as text; a missing cell is empty.

        Raises:
            DataError: a cell holds a list, an object or bytes, named with its row.
        """
        values = self.cells(column)
        for index, value in enumerate(values):
            if isinstance(value, (list, dict, bytes)):
                raise DataError(f"{self.where(index)}: `{shown(column)}` is a {type(value).__name__}, expected text")
        return [read_text(value) for value in values]

    def names(self, column: str) -> list[str]:
        """A column of ids as text, the same from every kind of file; "" where a cell is missing.

        A column of whole numbers is the same whether it was kept as 1, as 1.0 (numbers that had gaps) or as "1"; `007` is not `7`.
        """
        found = self.text(column)
        there = [text for text in found if text.strip()]
        whole = all(_FLOAT_ID.fullmatch(text) for text in there)
        if not whole and any(isinstance(row.get(column), float) for row in self.rows):  # JSON may hold 1 beside 1.0
            whole = all(_FLOAT_ID.fullmatch(text) or text.lstrip("-").isdecimal() for text in there)
        return [text.removesuffix(".0") if whole else text for text in found]

    def need(self, columns: Iterable[str]) -> None:
        """Check that the columns are there.

        Raises:
            DataError: naming the first that is not, what may be meant by it, and what is there.
        """
        for column in columns:
            if column not in self.columns:
                raise DataError(f"{self.path}: {no_column(column, self.columns)}")

    def only(self, indices: Sequence[int]) -> "Table":
        """Some of the rows, which keep their places."""
        places = [self.where(i) for i in indices]
        arrow = None if self.arrow is None else self.arrow.take(pa.array(indices, pa.int64()))
        return replace(self, rows=[self.rows[i] for i in indices], arrow=arrow, places=places)


def read_cells(path: Path, needed: Sequence[str] = (), escape: bool | None = None) -> Table:
    """A table that has the `needed` columns and one row or more. CSV and JSON lines may be compressed (`.csv.gz`).

    Args:
        escape: for CSV, see `parse_csv`.

    Raises:
        DataError: no such file, unknown ending, unreadable content (with row and line), or a missing column (with what is there).
    """
    kind = _kind(path)
    if not path.is_file():
        raise DataError(f"{path}: {'is a folder, expected a file' if path.is_dir() else 'no such file'}")
    table = _read_csv(path, escape) if kind == ".csv" else (_read_jsonl if kind == ".jsonl" else _read_parquet)(path)
    twice = next((name for name in table.columns if table.columns.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path}: two columns are called `{shown(twice)}`; rename one of them")
    if not table.rows and not table.columns:
        raise DataError(f"{path}: is empty, expected a table")
    table.need(needed)
    if not table.rows:
        raise DataError(f"{path}: no rows, only the names of columns")
    return table


def write_cells(
    path: Path,
    table: Table,
    added: Mapping[str, Sequence[Any] | np.ndarray],
    *,
    renamed: Mapping[str, str] | None = None,
) -> None:
    """Write the table with `added` columns behind its own, in the format of the ending.

    Args:
        added: column -> cells: texts, or an array of numbers. None and NaN are empty cells.
        renamed: new names for columns of the table.

    Raises:
        DataError: unknown ending, or a cell that this format cannot hold (see `check_writable`).
    """
    check_ending(path)
    names = {column: (renamed or {}).get(column, column) for column in table.columns}
    if path.suffix == ".parquet":
        arrow = table.arrow if table.arrow is not None else _to_arrow(table.path, table.columns, table.rows)
        arrow = arrow.rename_columns([names[column] for column in arrow.column_names])
        for column, values in added.items():
            kind = pa.float64() if isinstance(values, np.ndarray) else pa.string()
            arrow = arrow.append_column(column, pa.array(values, kind, from_pandas=True))
        write_bytes(path, _parquet_bytes(arrow, table.path))
        return
    rows = [
        {names[column]: row[column] for column in table.columns if column in row}
        | {column: _plain(values[i]) for column, values in added.items()}
        for i, row in enumerate(table.rows)
    ]
    write_rows(path, [*names.values(), *added], rows, source=table.path)


def write_rows(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]], *, source: Path | str) -> None:
    """Write rows in the format of the ending; in Parquet a column of numbers and texts becomes one of texts.

    Args:
        source: where the rows come from, for messages.

    Raises:
        DataError: unknown ending, or a text that the format cannot hold.
    """
    check_ending(path)
    if path.suffix == ".jsonl":
        # Half of a surrogate pair has no UTF-8, but an escape that JSON knows.
        text = "".join(json.dumps(_strict(row), ensure_ascii=False) + "\n" for row in rows)
        write_bytes(path, text.encode("utf-8", "backslashreplace"))
        return
    try:
        if path.suffix == ".csv":
            write_bytes(path, csv_text(columns, ([row.get(name) for name in columns] for row in rows)).encode("utf-8"))
        else:
            write_bytes(path, _parquet_bytes(_to_arrow(source, columns, rows, mixed=True), source))
    except UnicodeEncodeError as error:
        raise DataError(
            f"{source}: a text holds a lone surrogate, which {path.suffix} cannot keep ({error}); write .jsonl"
        ) from None


def check_ending(path: Path) -> None:
    """Raises:
    DataError: the name does not end with one of `SUFFIXES`."""
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path}: expected a name that ends with .csv, .jsonl or .parquet")


def check_writable(path: Path, table: Table) -> None:
    """Whether the table's cells can be written in the format of the ending, before the work whose results they wait for.

    Raises:
        DataError: unknown ending, or the row and column of a cell that the format cannot hold.
    """
    check_ending(path)
    if path.suffix == ".jsonl" and table.arrow is None:
        return
    for index, row in enumerate(table.rows):
        for column, value in row.items():
            if isinstance(value, bytes) and path.suffix != ".parquet":
                raise DataError(f"{table.where(index, column)}: bytes, which {path.suffix} cannot keep; write .parquet")
            if isinstance(value, str) and path.suffix != ".jsonl" and not is_unicode(value):
                raise DataError(
                    f"{table.where(index, column)}: {short(value)} holds a lone surrogate, which {path.suffix} cannot keep; "
                    "write .jsonl"
                )
    if path.suffix == ".parquet" and table.arrow is None:
        _parquet_bytes(_to_arrow(table.path, table.columns, table.rows), table.path)


def _kind(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    if suffixes[-1:] == [".gz"]:
        if suffixes[0] in (".csv", ".jsonl"):
            return suffixes[0]
        if suffixes[0] == ".parquet":
            raise DataError(f"{path}: Parquet is compressed inside already; unpack it")
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"{path}: expected a .csv, .jsonl or .parquet file (CSV and JSON lines also as .gz)")
    return path.suffix.lower()


def _read_csv(path: Path, escape: bool | None) -> Table:
    found = parse_csv(text_of_file(path, row_place), str(path), known=_KNOWN, escape=escape)
    for note in found.notes:
        log.info("%s: %s", path, note)
    places = [f"{path}: row {number} (line {line})" for number, line in enumerate(found.lines, 1)]
    return Table(
        path, found.header, [dict(zip(found.header, cells, strict=True)) for cells in found.rows], places=places
    )


def _read_jsonl(path: Path) -> Table:
    text = text_of_file(path)
    if text.lstrip().startswith("["):
        rows, places = _array_rows(text, path)
    else:
        rows, places = [], []
        for number, line in numbered_lines(text):
            row = _parse_json(line, f"{path}:{number}")
            if not isinstance(row, dict):
                raise DataError(f"{path}:{number}: expected an object with columns as keys, found {type(row).__name__}")
            rows.append(_stripped(row, f"{path}:{number}"))
            places.append(f"{path}: row {len(rows)} (line {number})")
    return Table(path, list(dict.fromkeys(key for row in rows for key in row)), rows, places=places)


def _array_rows(text: str, path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows of one JSON list, which some tools write in place of a row per line."""
    value = _parse_json(text, str(path))
    rows = []
    for number, row in enumerate(value, 1):
        if not isinstance(row, dict):
            raise DataError(
                f"{path}: item {number} of the list is a {type(row).__name__}, expected an object with columns as keys"
            )
        rows.append(_stripped(row, f"{path}: row {number}"))
    return rows, [f"{path}: row {number}" for number in range(1, len(rows) + 1)]


def _stripped(row: dict[str, Any], where: str) -> dict[str, Any]:
    stripped = {name.strip(): value for name, value in row.items()}
    if len(stripped) < len(row):
        raise DataError(f"{where}: two keys differ in blanks only ({', '.join(map(repr, row))}); rename one of them")
    return stripped


def _parse_json(text: str, where: str) -> Any:
    def without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a key occurs twice in one object; keep one of them")
        return found

    try:
        return json.loads(text, object_pairs_hook=without_twins)
    except json.JSONDecodeError as error:
        place = f"{where}:{error.lineno}" if error.lineno > 1 else where
        raise DataError(
            f"{place}: not JSON ({error.msg}, column {error.colno}); expected one object on each line"
        ) from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; thousands of brackets
        raise DataError(f"{where}: not readable JSON ({error})") from None


def _read_parquet(path: Path) -> Table:
    try:
        arrow = pq.ParquetFile(path).read()  # read_table would take `condition=base/` in a path for a column
        rows = arrow.to_pylist(maps_as_pydicts="strict")
    except _ARROW as error:
        raise DataError(f"{path}: not a readable parquet table ({' '.join(str(error).split())[:200]})") from None
    names = [name.strip() for name in arrow.column_names]
    if names != arrow.column_names and len(set(names)) == len(names):
        arrow = arrow.rename_columns(names)
        rows = [{name.strip(): value for name, value in row.items()} for row in rows]
    return Table(path, names, rows, arrow)


def _to_arrow(
    source: Path | str, columns: Sequence[str], rows: Sequence[Mapping[str, Any]], *, mixed: bool = False
) -> Any:
    """An arrow table; a column whose cells have no common type becomes text with `mixed`, else it is refused."""
    arrays = {}
    for column in columns:
        values = [row.get(column) for row in rows]
        try:
            arrays[column] = pa.array(values, from_pandas=True)
        except UnicodeEncodeError:
            raise
        except _ARROW as error:
            if not mixed:
                raise DataError(
                    f"{source}: column `{shown(column)}` does not fit a Parquet table ({' '.join(str(error).split())[:200]}); "
                    "write .jsonl or .csv"
                ) from None
            arrays[column] = pa.array([None if value is None else csv_cell(value) for value in values], pa.string())
    return pa.table(arrays)


def _parquet_bytes(arrow: Any, source: Path | str) -> bytes:
    sink = io.BytesIO()
    try:
        pq.write_table(arrow, sink)
    except _ARROW as error:
        raise DataError(
            f"{source}: does not fit a Parquet table ({' '.join(str(error).split())[:200]}); write .jsonl or .csv"
        ) from None
    return sink.getvalue()


def _plain(value: Any) -> Any:
    """A number or text as JSON knows it; NaN is None."""
    return None if value is None or value != value else value if isinstance(value, str) else float(value)


def _strict(value: Any) -> Any:
    """A value as strict JSON knows it: NaN is null, and what JSON has no word for (infinity, a date) is a text."""
    if isinstance(value, Mapping):
        return {str(key): _strict(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None if math.isnan(value) else str(value)
    return value if value is None or isinstance(value, (str, int)) else str(value)
