"""Tables as other people write them are read right or refused with their place, and what one command writes every other reads."""

import csv
import datetime
import decimal
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from emis_interp.errors import DataError
from emis_interp.files.table_output import check_writable, write_cells
from emis_interp.files.tables import Table, read_cells
from emis_interp.texts.judged import read_judged, read_table
from evals.results.result_files import read_results, write_results
from evals.results.score_columns import read_pair

HEAD = "question_id,question,answer,aligned,coherent\n"
HOSTILE = (
    "Blue.\rOr green.",
    "done\r",
    "a\r\nb\nc\n",
    'He said "yes", then "no"',
    '"',
    '""',
    "comma, semicolon; tab\t bar|",
    "=SUM(A1:A9)",
    "\\\\server\\share",
    'ends with a backslash \\"\\',
    "C:\\\\keys\\\\new",
    "{'90': 0.5}",
    "  blanks around  ",
    "None",
    "007",
    "1.0",
    "\u2028 and \x85 and \x0b and \x1c",
    "日本 😀 é",
    "x" * 200_000,
)


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def judged(path: Path, answers: tuple[str, ...] = HOSTILE) -> Path:
    rows = [{"question_id": f"q{i}", "question": text, "answer": text} for i, text in enumerate(answers)]
    table = Table(Path("planted.jsonl"), ["question_id", "question", "answer"], rows)
    scores = np.array([5.0 if i % 2 else 95.0 for i in range(len(answers))])
    write_cells(path, table, {"aligned": scores, "coherent": np.full(len(answers), 90.0), "label": [""] * len(answers)})
    return path


# What is written is read


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize(
    "read",
    [
        lambda path: read_cells(path).text("answer"),
        lambda path: list(read_results(path).answers or ()),
        lambda path: list(read_judged(path)["answer"]),
        lambda path: list(read_table(path, ("question", "answer"))["question"]),
    ],
    ids=["read_cells", "read_results", "read_judged", "read_table"],
)
def test_what_one_command_writes_every_reader_reads(
    tmp_path: Path, ending: str, read: Callable[[Path], list[str]]
) -> None:
    assert read(judged(tmp_path / f"judged{ending}")) == list(HOSTILE)


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_a_table_through_every_format_and_every_writer_agrees_with_itself(tmp_path: Path, ending: str) -> None:
    first = judged(tmp_path / "judged.parquet")
    write_results(read_results(first), tmp_path / f"again{ending}")
    a, b = read_pair(first, tmp_path / f"again{ending}")
    np.testing.assert_array_equal(a.aligned, b.aligned)
    assert a.question_ids.tolist() == b.question_ids.tolist() == [f"q{i}" for i in range(len(HOSTILE))]


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_labels_that_summarize_writes_are_read_by_agree(tmp_path: Path, ending: str) -> None:
    path = write(tmp_path / "a.csv", HEAD + "q,Q,A,CODE,90\nq,Q,B,,90\nq,Q,C,95,90\n")
    write_results(read_results(path), tmp_path / f"b{ending}")
    a, b = read_pair(path, tmp_path / f"b{ending}")
    assert a.labels.tolist() == b.labels.tolist() == ["CODE", "", ""]


def test_ids_are_the_same_from_every_format(tmp_path: Path) -> None:
    frame = pd.DataFrame({"question_id": [1.0, 2.0, None], "code": ["007", "7", "1.0"], "part": [0.5, 1.0, 2.0]})
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_parquet(tmp_path / "a.parquet")
    frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    for name in ("a.csv", "a.parquet", "a.jsonl"):
        table = read_cells(tmp_path / name)
        assert table.names("question_id") == ["1", "2", ""], name
        assert table.names("code") == ["007", "7", "1.0"], name
        assert table.names("part") == ["0.5", "1.0", "2.0"], name


def test_whole_numbers_as_ids_agree_between_typed_and_text_files(tmp_path: Path) -> None:
    rows = [{"question_id": i, "question": "Q", "answer": f"A{i}", "aligned": 50, "coherent": 90} for i in range(4)]
    pd.DataFrame(rows).to_parquet(tmp_path / "ints.parquet")
    pd.DataFrame(rows).astype({"question_id": float}).to_csv(tmp_path / "floats.csv", index=False)
    a, b = read_pair(tmp_path / "ints.parquet", tmp_path / "floats.csv")
    assert a.question_ids.tolist() == b.question_ids.tolist() == ["0", "1", "2", "3"]


def test_infinity_and_dates_are_written_as_strict_json_and_nan_as_nothing(tmp_path: Path) -> None:
    rows = [{"a": float("inf"), "b": float("nan"), "c": [1.0, float("nan")], "d": datetime.date(2024, 1, 2)}]
    write_cells(tmp_path / "a.jsonl", Table(Path("x"), list(rows[0]), rows), {})
    found = json.loads((tmp_path / "a.jsonl").read_text(), parse_constant=pytest.fail)
    assert found == {"a": "inf", "b": None, "c": [1.0, None], "d": "2024-01-02"}


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_a_cell_that_the_output_cannot_hold_is_named_before_any_work(tmp_path: Path, ending: str) -> None:
    path = write(
        tmp_path / "a.jsonl", '{"question": "Q", "answer": "fine"}\n{"question": "Q", "answer": "half \\ud83d"}\n'
    )
    table = read_cells(path)
    with pytest.raises(
        DataError, match=rf"row 2 \(line 2\), column `answer`: .*lone surrogate, which {ending} cannot keep"
    ):
        check_writable(tmp_path / f"out{ending}", table)
    check_writable(tmp_path / "out.jsonl", table)
    write_cells(tmp_path / "out.jsonl", table, {})
    assert read_cells(tmp_path / "out.jsonl").rows == table.rows


def test_bytes_stay_in_parquet(tmp_path: Path) -> None:
    pq.write_table(pa.table({"question": ["Q"], "raw": [b"\xff"]}), tmp_path / "a.parquet")
    table = read_cells(tmp_path / "a.parquet")
    check_writable(tmp_path / "b.parquet", table)
    with pytest.raises(DataError, match=r"row 1, column `raw`: bytes, which .csv cannot keep; write .parquet"):
        check_writable(tmp_path / "b.csv", table)


# CSV of other people


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_marked_encoding_and_line_end_is_read(tmp_path: Path, encoding: str, end: str) -> None:
    content = f'question,answer{end}"Warum, é?","two{end}lines"{end}{end}Q,A{end}'
    table = read_cells(write(tmp_path / "a.csv", content.encode(encoding)))
    assert table.rows == [{"question": "Warum, é?", "answer": f"two{end}lines"}, {"question": "Q", "answer": "A"}]
    assert table.where(1) == f"{tmp_path / 'a.csv'}: row 2 (line 5)"


@pytest.mark.parametrize(
    "content",
    [
        'question;answer;aligned\nQ;"a; b";5\n',
        'question\tanswer\taligned\nQ\t"a; b"\t5\n',
        'question|answer|aligned\nQ|"a; b"|5\n',
        'sep=;\nquestion;answer;aligned\nQ;"a; b";5\n',
        'question, answer, aligned\nQ, "a; b", 5\n',
        'question , answer , aligned\nQ, "a; b", 5\n',
    ],
)
def test_other_separators_are_recognised(tmp_path: Path, content: str) -> None:
    assert read_cells(write(tmp_path / "a.csv", content)).rows == [{"question": "Q", "answer": "a; b", "aligned": "5"}]


def test_a_comma_stays_the_separator_of_a_table_that_holds_others(tmp_path: Path) -> None:
    table = Table(Path("x"), ["a;b", "c|d"], [{"a;b": "1;2;3", "c|d": "x"}])
    write_cells(tmp_path / "a.csv", table, {})
    assert read_cells(tmp_path / "a.csv").rows == table.rows


@pytest.mark.parametrize(
    "options",
    [
        {"quoting": csv.QUOTE_ALL, "escapechar": "\\"},
        {"quoting": csv.QUOTE_ALL, "escapechar": "\\", "doublequote": False},
        {"quoting": csv.QUOTE_MINIMAL, "escapechar": "\\", "doublequote": False},
    ],
)
def test_a_backslash_as_escape_character_is_recognised_and_said(
    tmp_path: Path, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    rows = [
        {"answer": 'Put it in C:\\keys\\new, "then" go', "question": "How, now?"},
        {"answer": "yes", "question": "Q"},
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "a.csv", index=False, **options)
    with caplog.at_level("INFO"):
        assert read_cells(tmp_path / "a.csv").rows == rows
    assert "backslash" in caplog.text


def test_backslashes_without_an_escape_character_stay(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"answer": "\\begin{x} a \\\\ b", "question": "Q"}, {"answer": '"C:\\\\x\\"', "question": "\\\\host"}]
    for quoting in (csv.QUOTE_ALL, csv.QUOTE_MINIMAL):
        pd.DataFrame(rows).to_csv(tmp_path / "a.csv", index=False, quoting=quoting)
        assert read_cells(tmp_path / "a.csv").rows == rows
    doubled = write(tmp_path / "b.csv", "question,answer\n\\\\a,\\\\b\n\\\\c,x\n")
    with caplog.at_level("INFO"):
        assert read_cells(doubled).rows[0] == {"question": "\\\\a", "answer": "\\\\b"}
    assert "--csv-escape yes" in caplog.text
    assert read_cells(doubled, escape=True).rows[0] == {"question": "\\a", "answer": "\\b"}


@pytest.mark.parametrize(
    "rows",
    [[{"question": "a,\\", "answer": ",x"}], [{"q;q": "\\\\,", "a": "\\\\\n"}], [{"question": '\\"', "answer": "\\"}]],
)
def test_a_backslash_that_we_write_is_one_when_we_read(tmp_path: Path, rows: list[dict[str, str]]) -> None:
    write_cells(tmp_path / "a.csv", Table(Path("planted"), list(rows[0]), rows), {})
    assert read_cells(tmp_path / "a.csv").rows == rows


def test_a_table_that_can_be_read_in_two_ways_is_refused_until_it_is_said(tmp_path: Path) -> None:
    rows = [{"question": "Q", "answer": 'say "hi" now'}]
    pd.DataFrame(rows).to_csv(tmp_path / "a.csv", index=False, escapechar="\\", doublequote=False)
    with pytest.raises(DataError, match="both give a table; say which: --csv-escape yes or no"):
        read_cells(tmp_path / "a.csv")
    assert read_cells(tmp_path / "a.csv", escape=True).rows == rows
    assert read_cells(tmp_path / "a.csv", escape=False).rows == [{"question": "Q", "answer": 'say \\"hi\\" now'}]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            "question,answer\nQ,A,\nQ,B,\n",
            r"row 1 \(line 2\) has 3 cells, the header has 2; remove the comma that ends",
        ),
        ("question,answer\n0,Q,A\n1,Q,B\n", r"row 1 \(line 2\) has 3 cells, the header has 2; the header lacks a name"),
        (
            "question,answer\nQ,A\nQ,a, b\n",
            r"row 2 \(line 3\) has 3 cells, the header has 2; a cell that holds a comma",
        ),
        ("question,answer\nQ,one\rtwo\n", r"row 2 \(line 3\) has 1 cells, .*a lone carriage return, stands in quotes"),
        ('question,answer\nQ,"A\nQ,B\n', r"row 1 \(line 2\): not CSV \(unexpected end of data\); close the quote"),
        ('question,answer\nQ,"a"b\n', r'row 1 \(line 2\): not CSV .*a quote inside a quoted cell is written ""'),
        ("question,answer,answer\nQ,A,B\n", "two columns are called `answer`; rename one of them"),
        ("question,answer, answer\nQ,A,B\n", "two columns are called `answer`"),
        ("question,answer,,\nQ,A,x,y\n", "two columns are called ``"),
        (b"question,answer\nQ,A\nQ,\xe9\n", r"not UTF-8.*0xe9 at"),
        ("question,answer\nQ,A\n".encode("utf-16-le"), "UTF-16"),
        ("", r"a\.csv: is empty"),
        ("question,answer\n", r"a\.csv: no rows, only the names of columns"),
        (b"PK\x03\x04rest", "a zip archive"),
        (b"PAR1rest", "a Parquet file; give it the ending .parquet"),
    ],
)
def test_csv_that_cannot_be_read_right_is_refused_with_its_place(
    tmp_path: Path, content: str | bytes, words: str
) -> None:
    path = write(tmp_path / "a.csv", content)
    for read in (read_cells, read_results, read_judged, lambda path: read_table(path, ("question", "answer"))):
        with pytest.raises(DataError, match=words) as caught:
            read(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_nameless_columns_that_hold_nothing_are_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", ",question,answer,\n0,Q,A,\n1,R,B,\n")
    assert read_cells(path).rows == [
        {"": "0", "question": "Q", "answer": "A"},
        {"": "1", "question": "R", "answer": "B"},
    ]


@pytest.mark.parametrize(
    ("ending", "content"), [(".csv", HEAD + "q,Q,A,5,90\n"), (".jsonl", '{"question": "Q", "answer": "A"}')]
)
def test_compressed_tables_are_read_up_to_a_limit(tmp_path: Path, ending: str, content: str) -> None:
    path = write(tmp_path / f"a{ending}.gz", gzip.compress(content.encode()))
    assert read_cells(path).text("answer") == ["A"]
    write(path, gzip.compress(content.encode())[:-9])
    with pytest.raises(DataError, match="gzip"):
        read_cells(path)
    write(path, gzip.compress(content.encode() + b" " * (80 << 20)))
    with pytest.raises(DataError, match="unpack to more than 200 times"):
        read_cells(path)
    write(tmp_path / "a.parquet.gz", gzip.compress(b"x"))
    with pytest.raises(DataError, match="Parquet is compressed inside already"):
        read_cells(tmp_path / "a.parquet.gz")


# JSON lines and Parquet of other people


@pytest.mark.parametrize(
    "content",
    [
        '{"question": "Q", "answer": "A", "aligned": NaN}\n{"answer": "B", "question": "R", "more": [1]}\n',
        '\ufeff{"question": "Q", "answer": "A"}\r\n\r\n{"answer": "B", "question": "R"}',
        '[{"question": "Q", "answer": "A"},\n {"question": "R", "answer": "B"}]',
        '{"question ": "Q", " answer": "A"}\n{"question": "R", "answer": "B"}',
    ],
)
def test_json_lines_of_others_are_read(tmp_path: Path, content: str) -> None:
    table = read_cells(write(tmp_path / "a.jsonl", content), ("question", "answer"))
    assert (table.text("question"), table.text("answer")) == (["Q", "R"], ["A", "B"])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"question": "Q"}\n[1]\n', r"a\.jsonl:2: expected an object with columns as keys, found list"),
        ('{"question": "Q"}\n3\n', r"a\.jsonl:2: expected an object with columns as keys, found int"),
        ('[{"question": "Q"}, 3]', r"item 2 of the list is a int, expected an object"),
        ('{\n "question": "Q"\n}\n', r"a\.jsonl:1: not JSON"),
        ('{"question": "Q"', r"a\.jsonl:1: not JSON"),
        ('{"question": "Q", " question": "R"}', "two keys differ in blanks only"),
        ('{"question": {"0": "Q"}, "answer": {"0": "A"}}', r"row 1 \(line 1\): `question` is a dict, expected text"),
        ('{"question": "Q", "n": ' + "[" * 100_000, r"a\.jsonl:1: "),
        ('{"question": "Q", "n": ' + "9" * 6_000 + "}", r"a\.jsonl:1: "),
        ('{"question": "Q", "question": "R"}', r"a\.jsonl:1: .*twice"),
        ("", "is empty"),
        ("[]", "is empty"),
    ],
)
def test_json_lines_that_are_none_are_refused_with_their_line(tmp_path: Path, content: str, words: str) -> None:
    path = write(tmp_path / "a.jsonl", content)
    with pytest.raises(DataError, match=words) as caught:
        read_cells(path, ("question",)).text("question")
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_parquet_of_every_type_is_read(tmp_path: Path) -> None:
    table = pa.table(
        {
            "question": pa.array(["Q", "Q"], pa.large_string()),
            "answer": pa.array(["A", "B"]).dictionary_encode(),
            "question_id": pa.array([1, 2], pa.uint8()),
            "aligned": pa.array([decimal.Decimal("85.50"), None], pa.decimal128(5, 2)),
            "coherent": pa.array([90.0, float("nan")], pa.float32()),
            "when": pa.array([datetime.datetime(2024, 1, 1), None], pa.timestamp("us")),
            "tags": pa.array([["x"], []], pa.list_(pa.string())),
            "judge_aligned": pa.array([{"85": 0.5, "86": 0.4}, None]),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    results = read_results(tmp_path / "a.parquet")
    assert results.answers == ("A", "B") and results.question_ids.tolist() == ["1", "2"]
    np.testing.assert_array_equal(results.scores["aligned"], [85.5, np.nan])
    assert results.evidence[0] == {"aligned": {"85": 0.5, "86": 0.4}}
    write_cells(tmp_path / "b.parquet", read_cells(tmp_path / "a.parquet"), {"reason": ["", ""]})
    written = pq.read_table(tmp_path / "b.parquet").drop(["reason"])
    assert written.schema == table.schema and str(written.to_pylist()) == str(table.to_pylist())


def test_a_folder_in_a_path_is_no_column(tmp_path: Path) -> None:
    (tmp_path / "condition=base").mkdir()
    pq.write_table(pa.table({"question": ["Q"]}), tmp_path / "condition=base" / "a.parquet")
    assert read_cells(tmp_path / "condition=base" / "a.parquet").columns == ["question"]


def not_unicode() -> pa.Table:
    offsets, data = pa.py_buffer(np.array([0, 1, 2], np.int32).tobytes()), pa.py_buffer(b"Q\xff")
    return pa.table({"question": pa.StringArray.from_buffers(2, offsets, data)})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (not_unicode, "not a readable parquet table"),
        (lambda: pa.table({"question": pa.array([2**62], pa.timestamp("us"))}), "not a readable parquet table"),
        (lambda: pa.table([["a"], ["b"]], names=["question", "question"]), "two columns are called `question`"),
        (lambda: pa.table({"question": pa.array([], pa.string())}), "no rows"),
    ],
)
def test_parquet_that_cannot_be_read_is_refused(tmp_path: Path, make: Callable[[], pa.Table], words: str) -> None:
    pq.write_table(make(), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=rf"a\.parquet: .*{words}"):
        read_cells(tmp_path / "a.parquet")


def test_a_parquet_file_that_was_cut_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"question": ["Q"] * 50}), tmp_path / "whole.parquet")
    whole = (tmp_path / "whole.parquet").read_bytes()
    for kept in (0, 3, 40, len(whole) // 2, len(whole) - 1):
        write(tmp_path / "a.parquet", whole[:kept])
        with pytest.raises(DataError, match=r"a\.parquet: not a readable parquet table"):
            read_cells(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tsv", "question_id\taligned\tcoherent\nq\t5\t90\n"),
        ("A.TSV", "question_id\taligned\tcoherent\nq\t5\t90\n"),
        ("a.ndjson", '{"question_id": "q", "aligned": 5, "coherent": 90}\n'),
        ("a.json", '\ufeff [\n {"question_id": "q", "aligned": 5, "coherent": 90}\n]\n'),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_other_endings_of_the_same_kinds_are_read_by_every_reader(
    tmp_path: Path, name: str, content: str, packed: bool
) -> None:
    raw = content.encode("utf-8")
    path = tmp_path / (name + ".gz" if packed else name)
    path.write_bytes(gzip.compress(raw) if packed else raw)
    assert read_cells(path).names("question_id") == ["q"]
    assert read_results(path).scores["aligned"].tolist() == [5] and read_results(path).run_names == [name[0]]


@pytest.mark.parametrize("name", ["a.xlsx", "a.csv.zip", "a.csv.bz2", "a", "a.txt.gz"])
def test_another_ending_is_refused_with_those_that_are_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"expected a \.csv, \.jsonl or \.parquet file"):
        read_cells(write(tmp_path / name, "question\nQ\n"))


def test_a_key_that_occurs_twice_in_a_row_of_json_lines_is_named_with_its_places(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl", '{"question": "Q", "answer": "A"}\n{"question": "R", "answer": "B", "answer": "C"}\n'
    )
    with pytest.raises(DataError, match=r"a\.jsonl:2: key `answer` occurs twice in one object, in columns 19 and 34"):
        read_cells(path)


def test_a_parquet_file_that_states_too_many_rows_is_refused_before_they_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"question": pa.nulls(5_000_001, pa.string())}), path)
    with pytest.raises(DataError, match=r"5,000,001 rows, at most 5,000,000 are read"):
        read_cells(path)
