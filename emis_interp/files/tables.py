"""Turns CSV, JSON lines and Parquet files into one kind of table whose cells stay as they were written.

Every command reads tables here and nowhere else, so what one command writes all others read. What a file is that is not one of these, or
which row and column is broken, is said.
"""

import logging
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, overload

import pyarrow as pa

from emis_interp.errors import DataError
from emis_interp.files.cells import read_text
from emis_interp.files.column_rows import Cells, ColumnRows
from emis_interp.files.csv_text import parse_csv, row_place
from emis_interp.files.names import ARM_KEYS, QUESTION_KEYS, no_columns, shown
from emis_interp.files.parquet import ARROW_ERRORS, read_arrow
from emis_interp.files.strict_json import parse_json, parse_json_line
from emis_interp.files.table_text import TableText

log = logging.getLogger(__name__)
_BATCH = 4096

SUFFIXES = (".csv", ".jsonl", ".parquet")
"""Endings of tables that are written."""
KINDS = {**{suffix: suffix for suffix in SUFFIXES}, ".tsv": ".csv", ".ndjson": ".jsonl", ".json": ".jsonl"}
"""Endings of tables that are read -> what they are read as; the content tells the delimiter, and rows in lines from rows in one list."""
_KNOWN = (*QUESTION_KEYS, *ARM_KEYS, "answer", "aligned", "coherent")
_FLOAT_ID = re.compile(r"-?[0-9]+\.0")


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
    rows: Sequence[dict[str, Any]]
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
        return self.rows.column(column) if isinstance(self.rows, ColumnRows) else [row.get(column) for row in self.rows]

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

        Blanks around a name are no part of it. A column of whole numbers is the same whether it was kept as 1, as 1.0 (numbers that had
        gaps) or as "1"; `007` is not `7`.
        """
        found = [text.strip() for text in self.text(column)]
        there = [text for text in found if text]
        whole = all(_FLOAT_ID.fullmatch(text) for text in there)
        if not whole and any(isinstance(cell, float) for cell in self.cells(column)):  # JSON may hold 1 beside 1.0
            whole = all(_FLOAT_ID.fullmatch(text) or text.lstrip("-").isdecimal() for text in there)
        return [text.removesuffix(".0") if whole else text for text in found]

    def need(self, columns: Iterable[str]) -> None:
        """Check that the columns are there.

        Raises:
            DataError: naming those that are not, what may be meant by them, and what is there.
        """
        if missing := [column for column in columns if column not in self.columns]:
            raise DataError(f"{self.path}: {no_columns(missing, self.columns)}")

    def without(self, column: str) -> "Table":
        """The rows without a column, as they stand in memory."""
        if column not in self.columns:
            return self
        there = [name for name in self.columns if name != column]
        if isinstance(self.rows, ColumnRows):
            rows = ColumnRows({name: self.rows.columns[name] for name in there}, len(self))
        else:
            rows = [{name: cell for name, cell in row.items() if name != column} for row in self.rows]
        return replace(self, columns=there, rows=rows, arrow=None)

    def only(self, indices: Sequence[int]) -> "Table":
        """Some of the rows, which keep their places."""
        places = [self.where(i) for i in indices]
        arrow = None if self.arrow is None else self.arrow.take(pa.array(indices, pa.int64()))
        rows = self.rows.take(indices) if isinstance(self.rows, ColumnRows) else [self.rows[i] for i in indices]
        return replace(self, rows=rows, arrow=arrow, places=places)


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
    counted = Counter(table.columns)
    twice = next((name for name in table.columns if counted[name] > 1), None)
    if twice is not None:
        raise DataError(f"{path}: two columns are called `{shown(twice)}`; rename one of them")
    if not len(table) and not table.columns:
        raise DataError(f"{path}: is empty, expected a table")
    table.need(needed)
    if not len(table):
        raise DataError(f"{path}: no rows, only the names of columns")
    return table


def is_table(path: Path) -> bool:
    """Whether the file is a table by its ending, or, for `.json`, begins as a list of objects: other files have that ending too."""
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if path.suffix.lower() != ".json":
        return suffix in KINDS
    with path.open("rb") as file:
        return re.match(rb"(\xef\xbb\xbf)?\s*\[\s*\{", file.read(1000)) is not None


def _kind(path: Path) -> str:
    packed = path.suffix.lower() == ".gz"
    kind = KINDS.get((path.with_suffix("") if packed else path).suffix.lower())
    if packed and kind == ".parquet":
        raise DataError(f"{path}: Parquet is compressed inside already; unpack it")
    if kind is None:
        raise DataError(f"{path}: expected a .csv, .jsonl or .parquet file (CSV and JSON lines also as .gz)")
    return kind


def _read_csv(path: Path, escape: bool | None) -> Table:
    found = parse_csv(TableText.read(path, row_place), str(path), known=_KNOWN, escape=escape)
    for note in found.notes:
        log.info("%s: %s", path, note)
    # A name that two columns have is refused by the caller.
    rows = ColumnRows(dict(zip(found.header, found.columns, strict=True)), len(found.lines))
    return Table(path, found.header, rows, places=LinePlaces(path, found.lines))


def _read_jsonl(path: Path) -> Table:
    text = TableText.read(path)
    if text.begins_with("["):
        listed, places = _array_rows(text.whole(), path)
        rows = ColumnRows.of(listed)
    else:
        lines = array("q")
        rows = ColumnRows.of(_json_rows(text, path, lines))
        places = LinePlaces(path, lines)
    return Table(path, list(rows.columns), rows, places=places)


def _json_rows(text: TableText, path: Path, lines: "array[int]") -> Iterator[dict[str, Any]]:
    """One for every line that is not blank; `lines` gets their numbers."""
    for number, line in text.numbered():
        row = parse_json_line(line, f"{path}:{number}", loose=True)
        if not isinstance(row, dict):
            raise DataError(f"{path}:{number}: expected an object with columns as keys, found {type(row).__name__}")
        lines.append(number)
        yield _stripped(row, f"{path}:{number}")


class LinePlaces(Sequence[str]):
    """`file: row 3 (line 5)` for rows that begin on these lines of a file."""

    def __init__(self, path: Path, lines: Sequence[int]) -> None:
        self.path, self.lines = path, lines

    def __len__(self) -> int:
        return len(self.lines)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        found = range(len(self.lines))[index]
        if isinstance(found, int):
            return f"{self.path}: row {found + 1} (line {self.lines[found]})"
        return [self[place] for place in found]


def _array_rows(text: str, path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows of one JSON list, which some tools write in place of a row per line."""
    value = parse_json(text, str(path), loose=True)
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


def _read_parquet(path: Path) -> Table:
    try:
        arrow = read_arrow(path, str(path))
        cells = [_cells_of(column) for column in arrow.columns]
    except ARROW_ERRORS as error:
        raise DataError(f"{path}: not a readable parquet table ({' '.join(str(error).split())[:200]})") from None
    names = [name.strip() for name in arrow.column_names]
    if names != arrow.column_names and len(set(names)) == len(names):
        arrow = arrow.rename_columns(names)
    return Table(path, names, ColumnRows(dict(zip(names, cells, strict=True)), arrow.num_rows), arrow)


def _cells_of(column: Any) -> list[Any]:
    found = Cells()
    for chunk in column.chunks:
        for begin in range(0, len(chunk), _BATCH):
            for cell in chunk.slice(begin, _BATCH).to_pylist(maps_as_pydicts="strict"):
                found.append(cell)
    return found.values
