"""Rows kept by column come back as they were: kinds of cells, cells that are not there, and their number."""

from emis_interp.files.column_rows import ColumnRows

ROWS = [{"a": 1, "b": "x"}, {"a": True, "c": None}, {}, {"a": 1.0, "b": "x", "c": ["x"]}, {"a": 300, "b": "y" * 99}]


def test_rows_come_back_with_the_kinds_of_their_cells_and_without_those_that_they_lack() -> None:
    rows = ColumnRows.of(ROWS)
    assert list(rows) == ROWS and rows == ROWS and len(rows) == 5
    assert [type(row["a"]) for row in rows if "a" in row] == [int, bool, float, int]
    assert rows.column("b") == ["x", None, None, "x", "y" * 99] and rows.column("none") == [None] * 5
    assert list(rows[1:4]) == ROWS[1:4] and list(rows.take([4, 0])) == [ROWS[4], ROWS[0]]
    assert rows != ROWS[:4] and rows != [*ROWS[:4], {"a": 301, "b": "y" * 99}]


def test_equal_short_texts_and_numbers_are_one_object() -> None:
    cells = ColumnRows.of({"name": "".join(["q", "uick"]), "n": int("1000")} for _ in range(3)).columns
    assert all(len({id(cell) for cell in column}) == 1 for column in cells.values())
