"""Random files and cells: a table comes out, or an error of ours in one line that names the file; what was written reads back the same."""

import gzip
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emis_interp.errors import ConfigError, DataError, EmisError
from emis_interp.files.arms import arms_of
from emis_interp.files.cells import read_label, read_name, read_number, read_scalar
from emis_interp.files.reading import Reading
from emis_interp.files.table_output import write_cells
from emis_interp.files.tables import Table, read_cells
from emis_interp.texts.judged import read_judged, read_table
from evals.results.result_files import read_results
from evals.results.score_columns import read_pair

QUICK = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
READERS: tuple[Callable[[Path], Any], ...] = (
    read_cells,
    read_results,
    read_judged,
    lambda path: read_table(path, ("question", "answer", "aligned")),
    lambda path: read_pair(path, path),
)
NAMES = (
    "question",
    "answer",
    "question_id",
    "aligned",
    "coherent",
    "label",
    "reason",
    "run",
    "condition",
    "model",
    "evil",
)
CSV_PIECES = st.sampled_from(
    [*NAMES, ",", ",", ",", ";", "\t", "\n", "\n", "\r", "\r\n", '"', '""', "\\", '\\"', "\\\\", " ", "5", "95", "0.5", "007", "nan", "é",
     "\0", "\ufeff", "{'9': 0.5}", "CODE", "judge_aligned", "sep=;"]
)  # fmt: skip
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12) | st.lists(
    CSV_PIECES
).map(lambda pieces: "".join(pieces).replace("\0", ""))
CELL = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["5", "95", "CODE", ""])
)
NESTED = st.recursive(
    CELL, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
)


def check(path: Path) -> None:
    """Every reader gives a table, or an error in one line that names the file."""
    for read in READERS:
        try:
            read(path)
        except EmisError as error:
            assert path.name in str(error)
            assert "\n" not in str(error) and "\r" not in str(error)


@QUICK
@given(st.lists(CSV_PIECES, max_size=60).map("".join))
def test_any_csv_is_read_or_refused(tmp_path: Path, content: str) -> None:
    for head in ("", "question,answer,aligned,coherent\n"):
        (tmp_path / "a.csv").write_bytes((head + content).encode())
        check(tmp_path / "a.csv")


@QUICK
@given(st.binary(max_size=200), st.sampled_from(["a.csv", "a.jsonl", "a.parquet", "a.csv.gz"]))
def test_any_bytes_are_read_or_refused(tmp_path: Path, content: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    check(tmp_path / name)


@QUICK
@given(
    st.lists(NESTED | st.dictionaries(st.sampled_from(NAMES), NESTED), max_size=5),
    st.sampled_from(["\n", "\r\n", ",\n"]),
)
def test_any_json_lines_are_read_or_refused(tmp_path: Path, values: list[Any], between: str) -> None:
    text = between.join(json.dumps(value) for value in values)
    for content in (text, f"[{text}]"):
        (tmp_path / "a.jsonl").write_text(content)
        check(tmp_path / "a.jsonl")


@QUICK
@given(st.data())
def test_damaged_files_are_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    rows = [
        {"question": "Q", "answer": f"A{i}", "aligned": 5.0 * i, "coherent": 90.0, "tags": ["x"] * i} for i in range(8)
    ]
    name = data.draw(st.sampled_from(["a.csv", "a.jsonl", "a.parquet", "a.jsonl.gz"]))
    written = tmp_path / name.removesuffix(".gz")
    write_cells(written, Table(Path("planted"), list(rows[0]), rows), {})
    content = bytearray(gzip.compress(written.read_bytes()) if name.endswith(".gz") else written.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / name).write_bytes(content[: data.draw(st.integers(0, len(content)))])
    check(tmp_path / name)


@QUICK
@given(st.lists(st.tuples(NESTED, NESTED, NESTED, NESTED), min_size=1, max_size=6))
def test_any_parquet_column_is_read_or_refused(tmp_path: Path, rows: list[tuple[Any, ...]]) -> None:
    columns = {}
    for name, values in zip(("question", "aligned", "coherent", "condition"), zip(*rows, strict=True), strict=True):
        try:
            columns[name] = pa.array(list(values))
        except (pa.ArrowException, OverflowError, UnicodeEncodeError):
            columns[name] = pa.array([1.5] * len(rows))
    try:
        pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    except pa.ArrowException:
        return
    check(tmp_path / "a.parquet")


@QUICK
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=6), st.sampled_from([".csv", ".jsonl", ".parquet"]))
def test_any_text_that_is_written_reads_back_the_same(tmp_path: Path, rows: list[tuple[str, str]], ending: str) -> None:
    cells = [{"question": question, "answer": answer} for question, answer in rows]
    write_cells(
        tmp_path / f"a{ending}", Table(Path("planted"), ["question", "answer"], cells), {"n": np.ones(len(rows))}
    )
    table = read_cells(tmp_path / f"a{ending}")
    assert [(row["question"], row["answer"]) for row in table.rows] == rows


@QUICK
@given(NESTED)
def test_any_cell_is_a_number_of_0_to_100_or_a_label_or_nothing_or_refused(cell: Any) -> None:
    try:
        found = read_number(cell, "the place")
        assert math.isnan(found.value) or math.isfinite(found.value)
    except DataError as error:
        assert str(error).startswith("the place") and "\n" not in str(error)
    for read in (read_label, read_name):
        try:
            assert isinstance(read(cell, "the place"), str)
        except DataError as error:
            assert str(error).startswith("the place") and "\n" not in str(error)
    json.dumps(read_scalar(cell))


@QUICK
@given(st.text(max_size=12), st.text(max_size=12), st.text(max_size=12))
def test_any_flags_are_read_or_refused(column: str, scale: str, by: str) -> None:
    table = Table(Path("a.csv"), ["question", "evil"], [{"question": "Q", "evil": "5"}])
    flags: tuple[dict[str, Any], ...] = (
        {"columns": [column]},
        {"columns": [f"aligned={column}"]},
        {"scales": [f"aligned={scale}"]},
        {"by": by},
        {"runs": by},
    )
    for words in flags:
        try:
            reading = Reading.of(**words)
            arms_of(reading.applied(table), reading)
        except (ConfigError, DataError) as error:
            assert "\n" not in str(error) and "\r" not in str(error)


@pytest.mark.parametrize("text", ["\0", "a\0b", "half \ud83d"])
def test_a_name_that_numpy_or_a_terminal_would_change_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="without zero characters and lone surrogates"):
        read_name(text, "the place")
