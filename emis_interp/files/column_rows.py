"""Turns rows into columns of cells and back: a million rows as dicts or lists take gigabytes beside their texts, columns do not."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, overload

ABSENT: Any = type("Absent", (), {"__repr__": lambda self: "ABSENT"})()
"""In a column, where a row has no such cell."""
_SHORT, _MOST = 64, 1 << 16


class Cells:
    """One column. Equal short texts and whole numbers are one object, as long as there are not too many of them."""

    def __init__(self, n_absent: int = 0) -> None:
        self.values: list[Any] = [ABSENT] * n_absent
        self._seen: dict[Any, Any] = {}

    def append(self, cell: Any) -> None:
        kind = type(cell)
        if (kind is str and len(cell) <= _SHORT) or kind is int:
            # True and 1.0 are equal to 1, so that nothing but these two kinds is looked up.
            found = self._seen.get(cell)
            if found is None and len(self._seen) < _MOST:
                self._seen[cell] = cell
            cell = cell if found is None else found
        self.values.append(cell)


class ColumnRows(Sequence[dict[str, Any]]):
    """Rows by the names of their cells; a row is made when it is asked for, with its cells in the order of the columns."""

    def __init__(self, columns: Mapping[str, list[Any]], n: int) -> None:
        self.columns, self._n = dict(columns), n

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> "ColumnRows":
        """Of rows that come one at a time, which may lack cells."""
        columns: dict[str, Cells] = {}
        n = 0
        for row in rows:
            for name, cell in row.items():
                if name not in columns:
                    columns[name] = Cells(n)
                columns[name].append(cell)
            n += 1
            if len(row) < len(columns):
                for cells in columns.values():
                    if len(cells.values) < n:
                        cells.values.append(ABSENT)
        return cls({name: cells.values for name, cells in columns.items()}, n)

    def __len__(self) -> int:
        return self._n

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> "ColumnRows": ...
    def __getitem__(self, index: int | slice) -> "dict[str, Any] | ColumnRows":
        if isinstance(index, slice):
            return self.take(range(self._n)[index])
        return {name: cells[index] for name, cells in self.columns.items() if cells[index] is not ABSENT}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[i] for i in range(self._n))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(dict.__eq__, self, other))

    def column(self, name: str) -> list[Any]:
        """None where a row has no such cell."""
        return [None if cell is ABSENT else cell for cell in self.columns.get(name, [None] * self._n)]

    def take(self, places: Sequence[int]) -> "ColumnRows":
        return ColumnRows({name: [cells[i] for i in places] for name, cells in self.columns.items()}, len(places))
