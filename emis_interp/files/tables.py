"""Turns CSV, JSONL and Parquet files into rows whose cells stay as they were written, and rows with new columns back into a file."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from emis_interp.errors import DataError, did_you_mean
from emis_interp.store import read_lines, write_bytes

SUFFIXES = (".csv", ".jsonl", ".parquet")
_LARGEST_CELL = 1 << 30  # the csv module stops at 128 KiB, answers need not


@dataclass(frozen=True, eq=False)
class Table:
    """Rows in file order. A CSV cell is text; `arrow` keeps the column types of a Parquet file."""

    path: Path
    columns: list[str]
    rows: list[dict[str, Any]]
    arrow: Any = None

    def text(self, column: str) -> list[str]:
        """A column as text; a missing cell is empty.

        Raises:
            DataError: a cell holds a list or an object, named with its row.
        """
        values = [row.get(column) for row in self.rows]
        for number, value in enumerate(values, 1):
            if isinstance(value, (list, dict, bytes)):
                raise DataError(f"{self.path}: row {number}: `{column}` is a {type(value).__name__}, expected text")
        return ["" if value is None or value != value else str(value) for value in values]


def read_cells(path: Path, needed: Sequence[str] = ()) -> Table:
    """A table that has the `needed` columns and one row or more.

    Raises:
        DataError: no such file, unknown ending, unreadable content (with its line), or a missing column (with what is there).
    """
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path}: expected a .csv, .jsonl or .parquet file")
    if not path.is_file():
        raise DataError(f"{path}: {'is a folder, expected a file' if path.is_dir() else 'no such file'}")
    table = {".csv": _read_csv, ".jsonl": _read_jsonl, ".parquet": _read_parquet}[path.suffix](path)
    for column in needed:
        if column not in table.columns:
            raise DataError(f"{path}: no column `{column}`{did_you_mean(column, table.columns)}")
    if not table.rows:
        raise DataError(f"{path}: no rows")
    return table


def write_cells(
    path: Path, table: Table, added: Mapping[str, Sequence[Any]], renamed: Mapping[str, str] | None = None
) -> None:
    """Write the table with `added` columns behind its own, in the format of the ending.

    Args:
        added: column -> cells: texts, or an array of numbers. None and NaN are empty cells.
        renamed: new names for columns of the table.
    """
    check_ending(path)
    names = {column: (renamed or {}).get(column, column) for column in table.columns}
    if path.suffix == ".parquet":
        arrow = table.arrow if table.arrow is not None else _to_arrow(table)
        arrow = arrow.rename_columns([names[column] for column in arrow.column_names])
        for column, values in added.items():
            kind = pa.float64() if isinstance(values, np.ndarray) else pa.string()
            arrow = arrow.append_column(column, pa.array(values, kind, from_pandas=True))
        sink = io.BytesIO()
        pq.write_table(arrow, sink)
        write_bytes(path, sink.getvalue())
        return
    rows = [
        {names[column]: row[column] for column in table.columns if column in row}
        | {column: _plain(values[i]) for column, values in added.items()}
        for i, row in enumerate(table.rows)
    ]
    if path.suffix == ".jsonl":
        text = "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
    else:
        sink = io.StringIO(newline="")
        writer = csv.writer(sink, lineterminator="\n")
        columns = [*names.values(), *added]
        writer.writerow(columns)
        writer.writerows([_csv_cell(row.get(column)) for column in columns] for row in rows)
        text = sink.getvalue()
    write_bytes(path, text.encode("utf-8", "surrogatepass"))


def check_ending(path: Path) -> None:
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path}: expected a name that ends with .csv, .jsonl or .parquet")


def _read_csv(path: Path) -> Table:
    limit = csv.field_size_limit(_LARGEST_CELL)
    try:
        content = io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")
        lines = [line for line in csv.reader(content, strict=True) if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a readable csv table ({error})") from None
    finally:
        csv.field_size_limit(limit)
    header = lines[0] if lines else []
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path}: two columns are called `{twice}`; rename one of them")
    for number, line in enumerate(lines[1:], 1):
        if len(line) != len(header):
            raise DataError(f"{path}: row {number} has {len(line)} cells, the header has {len(header)}")
    return Table(path, header, [dict(zip(header, line, strict=True)) for line in lines[1:]])


def _read_jsonl(path: Path) -> Table:
    rows: list[dict[str, Any]] = []
    for number, line in read_lines(path):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{number}: not JSON ({error.msg}, column {error.colno})") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}:{number}: expected an object with columns as keys, found {type(row).__name__}")
        rows.append(row)
    return Table(path, list(dict.fromkeys(key for row in rows for key in row)), rows)


def _read_parquet(path: Path) -> Table:
    try:
        arrow = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable parquet table ({' '.join(str(error).split())[:200]})") from None
    return Table(path, list(arrow.column_names), arrow.to_pylist(), arrow)


def _to_arrow(table: Table) -> Any:
    try:
        return pa.table({column: pa.array([row.get(column) for row in table.rows]) for column in table.columns})
    except pa.ArrowException as error:
        raise DataError(
            f"{table.path}: does not fit a Parquet table ({' '.join(str(error).split())[:200]}); write .jsonl or .csv"
        ) from None


def _plain(value: Any) -> Any:
    """A number or text as JSON knows it; NaN is None."""
    return None if value is None or value != value else value if isinstance(value, str) else float(value)


def _csv_cell(value: Any) -> str:
    if value is None:
        return ""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else str(value)
