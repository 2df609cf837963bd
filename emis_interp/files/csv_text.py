"""Turns CSV text into a header and rows of cells, and back, and says which row is none and why.

Cells stand in double quotes where they hold a delimiter, a quote or a line end; a quote in them is doubled (RFC 4180). Read as well:
semicolons, tabs and bars as delimiters, blanks behind delimiters, and a backslash as escape character where the file shows it.
"""

import contextlib
import csv
import hashlib
import io
import itertools
import json
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from emis_interp.errors import DataError
from emis_interp.files.column_rows import Cells
from emis_interp.files.table_text import TableText

DELIMITERS = (",", ";", "\t", "|")
_LARGEST_CELL = 1 << 30  # the csv module stops at 128 KiB, answers need not
_ESCAPE = re.compile(r"\\(.|$)", re.DOTALL)
_FEW = 3
_ROWS = 1000


class CsvRows(NamedTuple):
    """`columns` are the cells of each name of the header; `lines` the numbers of the lines that the rows begin on; `notes` say what was
    taken for what."""

    header: list[str]
    columns: list[list[str]]
    lines: Sequence[int]
    notes: tuple[str, ...]

    def rows(self) -> Iterator[tuple[str, ...]]:
        return zip(*self.columns, strict=True)


class _Dialect(NamedTuple):
    delimiter: str = ","
    escape: bool = False
    blanks: bool = False


def parse_csv(
    text: TableText,
    where: str,
    *,
    known: Iterable[str] = (),
    escape: bool | None = None,
    flag: str | None = "--csv-escape",
) -> CsvRows:
    """Header and rows; blank lines are left out, and every row has as many cells as the header.

    Args:
        where: the file's name, with which errors begin.
        known: names of columns that help to tell the delimiter.
        escape: whether a backslash escapes the next character. None: it does when the file can be read in no other way, or when all of its
            cells are in quotes and all of its backslashes are doubled (as pandas writes with `escapechar` and QUOTE_ALL).
        flag: of the command, that says so; None where it has none.

    Raises:
        DataError: row and line of what is no CSV, of a row of another length, or a name that two columns have.
    """
    text, stated = _stated_delimiter(text)
    dialect = _Dialect(stated or _delimiter(text, frozenset(known)))
    notes: list[str] = []
    if dialect.delimiter != ",":
        notes.append(f"cells are separated by {_NAMES[dialect.delimiter]}")
    escapes = _escapes(text)
    if escape is not None:
        return _parse(text, where, dialect._replace(escape=escape), notes=notes)
    if set(escapes) == {"\\"} and _all_quoted(text, dialect) and not _is_ours(text, where, dialect):
        notes.append(
            "every cell is quoted and every backslash doubled, so two backslashes are read as one"
            + (f" (else: {flag} no)" if flag else "")
        )
        return _parse(text, where, dialect._replace(escape=True), notes=notes)
    escaped = None
    if '"' in escapes and set(escapes) <= {"\\", '"'}:
        with contextlib.suppress(DataError):
            escaped = _parse(text, where, dialect._replace(escape=True), notes=notes)
    try:
        found = _parse(text, where, dialect, notes=notes)
    except DataError:
        if escaped is None:
            raise
        return escaped._replace(notes=(*notes, 'a backslash is read as escape character (\\" is a quote)'))
    if escaped is not None and escaped.columns != found.columns and not _is_ours(text, where, dialect):
        advice = f"say which: {flag} yes or no" if flag else "save it as JSON lines or Parquet"
        raise DataError(
            f'{where}: holds \\", which may be a quote or a backslash before one, and both give a table; {advice}'
        )
    if flag and set(escapes) == {"\\"} and escapes.total() >= _FEW:
        found = found._replace(
            notes=(*found.notes, f"every backslash is doubled; if one escapes the other: {flag} yes")
        )
    return found


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV in UTF-8's characters; None is an empty cell, lists and mappings are JSON.

    Lines end with CRLF, because then the csv module quotes lone carriage returns inside cells too.
    """
    return "".join(csv_lines(columns, rows))


def csv_lines(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    """`csv_text`, a part at a time."""
    yield _written(
        [columns],
        csv.QUOTE_ALL if any(mark in name for name in columns for mark in DELIMITERS[1:]) else csv.QUOTE_MINIMAL,
    )
    cells = ([csv_cell(cell) for cell in row] for row in rows)
    while part := list(itertools.islice(cells, _ROWS)):
        yield _written(part, csv.QUOTE_MINIMAL)


def _written(rows: Iterable[Sequence[str]], quoting: int) -> str:
    sink = io.StringIO(newline="")
    csv.writer(sink, lineterminator="\r\n", quoting=quoting).writerows(rows)  # pyright: ignore[reportArgumentType]
    return sink.getvalue()


def csv_cell(value: Any) -> str:
    """One cell as text, not quoted yet."""
    if value is None or (isinstance(value, float) and value != value):
        return ""
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, (list, dict)) else str(value)


def row_place(before: str) -> str:
    """Where in a CSV file a text ends: `row 3 (line 5)`, or the header."""
    with _large_cells():
        number = sum(1 for cells in csv.reader(io.StringIO(before + "?", newline="")) if cells) - 1
    line = len(re.findall(r"\r\n|\r|\n", before)) + 1
    return f"row {number} (line {line})" if number > 0 else f"header (line {line})"


_NAMES = {";": "semicolons", "\t": "tabs", "|": "bars"}


def _parse(text: TableText, where: str, dialect: _Dialect, *, notes: Sequence[str]) -> CsvRows:
    header, columns, lines, bad = _records(text, where, dialect)
    if len(header) > 1 and all(name.startswith(" ") for name in header[1:]) and not dialect.blanks:
        return _parse(text, where, dialect._replace(blanks=True), notes=notes)
    if bad is not None:
        raise bad.error(header, where, n_rows=len(lines))
    header, columns = _named([name.strip() for name in header], columns)
    return CsvRows(header, columns, lines, tuple(notes))


def _escapes(text: TableText) -> Counter[str]:
    """What stands behind backslashes, and how often; "" at the end of the text."""
    return Counter(match[1] for line in text.lines() if "\\" in line for match in _ESCAPE.finditer(line))


def _is_ours(text: TableText, where: str, dialect: _Dialect) -> bool:
    """Whether `csv_text` writes exactly this text, in which a backslash is a backslash."""
    found = _parse(text, where, dialect, notes=())
    return _digest(csv_lines(found.header, found.rows())) == _digest(text.lines())


def _digest(parts: Iterable[str]) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode("utf-8", "surrogatepass"))
    return digest.digest()


@dataclass
class _BadRows:
    """Rows with another number of cells than the header: the first one, and what is true of all rows."""

    row: list[str]
    number: int
    line: int
    n: int = 0
    n_one_more: int = 0
    n_with_last: int = 0

    def add(self, cells: list[str], n_columns: int) -> None:
        self.n += 1
        self.n_one_more += len(cells) == n_columns + 1
        self.n_with_last += bool(cells[-1].strip())

    def error(self, header: list[str], where: str, *, n_rows: int) -> DataError:
        if self.n_one_more == n_rows:
            advice = "the header lacks a name for the first column"
            if not self.n_with_last:
                advice = "remove the comma that ends every row, or name that column in the header"
        elif any("\r" in cell for cell in self.row) or len(self.row) < len(header):
            advice = "a cell that holds a line end, also a lone carriage return, stands in quotes"
        else:
            advice = "a cell that holds a comma stands in quotes"
        return DataError(
            f"{where}: row {self.number} (line {self.line}) has {len(self.row)} cells, the header has {len(header)}; {advice}"
        )


def _records(
    text: TableText, where: str, dialect: _Dialect
) -> tuple[list[str], list[list[str]], Sequence[int], _BadRows | None]:
    header: list[str] | None = None
    columns: list[Cells] = []
    lines, bad = array("q"), None
    begins = 1
    reader = _reader(text, dialect)
    try:
        with _large_cells():
            for cells in reader:
                if cells and header is None:
                    header, columns = cells, [Cells() for _ in cells]
                elif cells:
                    lines.append(begins)
                    if len(cells) != len(columns):
                        bad = bad or _BadRows(cells, len(lines), begins)
                        bad.add(cells, len(columns))
                    elif bad is None:
                        for column, cell in zip(columns, cells, strict=True):
                            column.append(cell)
                begins = reader.line_num + 1
    except csv.Error as error:
        place = "header" if header is None else f"row {len(lines) + 1}"
        advice = "close the quote" if "end of data" in str(error) else 'a quote inside a quoted cell is written ""'
        raise DataError(f"{where}: {place} (line {begins}): not CSV ({error}); {advice}") from None
    return header or [], [column.values for column in columns], lines, bad


def _named(header: list[str], columns: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """Header and columns; where several columns have no name, those that hold nothing are left out."""
    kept = [i for i, name in enumerate(header) if name or any(cell.strip() for cell in columns[i])]
    if len(kept) < len(header) and header.count("") > 1:
        header, columns = [header[i] for i in kept], [columns[i] for i in kept]
    return header, columns


def _reader(text: TableText, dialect: _Dialect, quoting: int = csv.QUOTE_MINIMAL) -> Any:
    return csv.reader(
        text.lines(),
        delimiter=dialect.delimiter,
        escapechar="\\" if dialect.escape else None,
        skipinitialspace=dialect.blanks,
        quoting=quoting,  # pyright: ignore[reportArgumentType]
        strict=True,
    )


def _stated_delimiter(text: TableText) -> tuple[TableText, str | None]:
    """Excel may write `sep=;` as the first line."""
    first = re.fullmatch(r"sep=([,;\t|])(?:\r\n|\r|\n)", next(text.lines(), ""))
    return (TableText(lambda: itertools.islice(text.lines(), 1, None)), first[1]) if first else (text, None)


def _delimiter(text: TableText, known: frozenset[str]) -> str:
    """The one that finds the most known names in the header, then the one that finds the most cells."""

    def found(delimiter: str) -> tuple[int, int]:
        try:
            header = next((cells for cells in _reader(text, _Dialect(delimiter)) if cells), [])
        except csv.Error:
            return 0, 0
        return len({name.strip().lower() for name in header} & known), len(header)

    return max(DELIMITERS, key=found)  # the first of equals: the comma


def _all_quoted(text: TableText, dialect: _Dialect) -> bool:
    if not text.begins_with('"'):
        return False
    try:  # whatever is not quoted is made a number, or an error
        with _large_cells():
            rows = _reader(text, dialect, csv.QUOTE_NONNUMERIC)
            return not any(isinstance(cell, float) for row in rows for cell in row)
    except (csv.Error, ValueError):
        return False


@contextlib.contextmanager
def _large_cells() -> Iterator[None]:
    limit = csv.field_size_limit(_LARGEST_CELL)
    try:
        yield
    finally:
        csv.field_size_limit(limit)
