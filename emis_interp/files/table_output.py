"""Turns tables and rows into CSV, JSON lines and Parquet files that every reader reads back, or names a cell that a format cannot keep."""

import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from emis_interp.errors import DataError
from emis_interp.files.cells import short
from emis_interp.files.csv_text import csv_cell, csv_text
from emis_interp.files.names import shown
from emis_interp.files.parquet import ARROW_ERRORS
from emis_interp.files.store import write_bytes
from emis_interp.files.tables import SUFFIXES, Table
from emis_interp.files.text import is_unicode


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
        except ARROW_ERRORS as error:
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
    except ARROW_ERRORS as error:
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
