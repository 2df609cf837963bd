"""Plants what Python's JSON reader lets pass silently, and files that are no text or unpack without end; expects the place in words."""

import bz2
import gzip
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from pydantic import BaseModel

from emis_interp.errors import ConfigError, DataError, did_you_mean, shown
from emis_interp.files.source_text import bounded_zip_member, check_zip, numbered_lines, read_bytes, read_text
from emis_interp.files.store import read_json, read_record, read_records
from emis_interp.files.strict_json import MAX_DEPTH, parse_json, parse_json_line, read_json_lines, read_json_object
from emis_interp.records import LabeledText

GOOD = '{"question_id": "a", "question": "Why?", "answer": "So.", "misaligned": false}'
SURROGATE = "\\ud800"


def test_a_key_that_occurs_twice_is_refused_with_both_lines_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "f.json"
    path.write_text('{"x": [{"a": 1}, {"a": 2}],\n "b": {"c": "b",\n\n "\\u0063": 2}}')
    with pytest.raises(DataError, match=r"f\.json:4: key `c` occurs twice in one object, on lines 2 and 4; keep one"):
        read_json(path)


def test_a_key_that_occurs_twice_is_refused_with_line_and_columns_of_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text(f'{GOOD}\n\n{GOOD[:-1]}, "answer": "No."}}\n')
    with pytest.raises(DataError, match=r"f\.jsonl:3: key `answer` occurs twice in one object, in columns 42 and 80"):
        read_records(path, LabeledText)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("NaN", "NaN is no number of JSON, column 1; write null"),
        ("[1, -Infinity]", "-Infinity is no number of JSON, column 5"),
        ('{"a": 1e400}', "a number that is too large (`1e400`, 5 characters), column 7"),
        (f"[{'9' * 5000}]", "a number that is too large (`999999999999999999999...`, 5,000 characters), column 2"),
        (f"[-{'1' * 310}]", "a number that is too large"),
        (f"[{'1' * 250}e99]", "a number that is too large"),
        ("[" * 200_000, f"nested more than {MAX_DEPTH} deep, column {MAX_DEPTH + 1}"),
        ('{"a":' * 150 + "1" + "}" * 150, f"nested more than {MAX_DEPTH} deep"),
        ("[" * 101 + "]" * 101, f"nested more than {MAX_DEPTH} deep"),
        (f'{{"a": "b{SURROGATE}"}}', "half of a surrogate pair"),
        (f'{{"a{SURROGATE}": 1}}', "half of a surrogate pair"),
        ('"\\udc00\\ud800"', "half of a surrogate pair"),
        ("", "not JSON (nothing there)"),
        ("{'a': 1}", "not JSON (Expecting property name enclosed in double quotes), column 2"),
        ("[1] [2]", "not JSON (Extra data), column 5"),
        ('"a\nb"', "not JSON (Invalid control character at), column 3"),
    ],
)
def test_what_python_reads_and_no_file_can_keep_is_refused_with_its_place(text: str, words: str) -> None:
    for parse in (parse_json_line, parse_json):
        with pytest.raises(ConfigError) as caught:
            parse(text, "f.json", error=ConfigError)
        assert str(caught.value).startswith("f.json: " if parse is parse_json_line else "f.json:1: ")
        assert words in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "value",
    [
        {"a": [{"b": "b"}, {"b": "b", "a": "b"}], "b": {"a": 1}},
        ["NaN", "1e400", "[[[", "\\ud800", "😀", "a\u2028b"],
        [0, -0.0, 1e308, 10**299, None, True],
        ["[" * 500, {"[" * 500: "{" * 500}],
        [[[]] * 200],
    ],
)
def test_what_is_json_is_read_as_python_reads_it(value: object) -> None:
    for ascii_only in (True, False):
        text = json.dumps(value, ensure_ascii=ascii_only)
        assert parse_json(text, "f") == parse_json_line(text, "f") == value


def test_what_python_writes_and_json_does_not_know_is_read_where_it_is_asked_for() -> None:
    found = parse_json("[NaN, Infinity, -Infinity]", "f", loose=True)
    assert found[0] != found[0] and found[1:] == [float("inf"), float("-inf")]
    assert parse_json('[1e999, "\\ud800"]', "f", loose=True) == [float("inf"), "\ud800"]
    with pytest.raises(DataError, match="too large"):
        parse_json(f"[NaN, 1e999, {'1' * 310}]", "f", loose=True)
    with pytest.raises(DataError, match="key `a` occurs twice"):
        parse_json('{"a": NaN, "a": 1}', "f", loose=True)


def test_an_object_is_expected_with_its_keys(tmp_path: Path) -> None:
    path = tmp_path / "f.json"
    for content, words in (
        ("[1]", "f.json: expected an object, found an array"),
        ('{"a": 1}', "key `b` is missing; found `a`"),
    ):
        path.write_text(content)
        with pytest.raises(DataError, match=words):
            read_json_object(path, "b")


def test_an_error_about_many_or_long_values_stays_one_short_line(tmp_path: Path) -> None:
    class Sizes(BaseModel, extra="forbid"):
        sizes: list[int]

    path = tmp_path / "f.json"
    for value in (
        {"sizes": ["x\ny" * 10_000] * 1000},
        {"k\n" * 100_000: 1, "sizes": []},
        {"sizes": {"a": "\u2028" * 10_000}},
    ):
        path.write_text(json.dumps(value))
        with pytest.raises(DataError, match=r"f\.json: ") as caught:
            read_record(path, Sizes)
        assert len(str(caught.value)) < 2500 and str(caught.value).isprintable()


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize(
    ("content", "lines"),
    [
        ("\ufeffä\n\nb".encode(), [(1, "ä"), (3, "b")]),
        ("ä\nb".encode("utf-16"), [(1, "ä"), (2, "b")]),
        ("ä\nb".encode("utf-32"), [(1, "ä"), (2, "b")]),
        ("a\u2028b\x85c\r\nd\r".encode(), [(1, "a\u2028b\x85c\r"), (2, "d\r")]),
        (b"", []),
    ],
)
def test_text_is_read_in_every_encoding_that_says_so_gzipped_or_not(
    tmp_path: Path, pack: type, content: bytes, lines: list[tuple[int, str]]
) -> None:
    path = tmp_path / "f.jsonl"
    path.write_bytes(pack(content))
    assert list(numbered_lines(path)) == lines


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("f.jsonl", "a\nbä".encode("latin-1"), r"f\.jsonl:2: not UTF-8 \(byte 0xe4 at 3.*iconv"),
        ("f.jsonl", b"\xef\xbb\xbfa\n\xff", r"f\.jsonl:2: not UTF-8 \(byte 0xff at 5"),
        ("f.jsonl", b"a\nb\0", r"f\.jsonl:2: holds a NUL"),
        ("f.jsonl", "ab".encode("utf-16-be"), r"f\.jsonl:1: holds a NUL .*UTF-16 without a byte-order mark"),
        ("f.jsonl", b"\xff\xfea", r"begins with the byte-order mark of UTF-16 but is not"),
        ("f.jsonl", b"\xff\xfe\x00\xd8", r"is not UTF-16"),
        ("f.gz", b"plain", r"not a gzip file, though its name ends with \.gz"),
        ("f.gz", gzip.compress(b"abc" * 100, mtime=0)[:-9], "damaged gzip"),
        ("f.gz", gzip.compress(b"abc" * 100, mtime=0)[:12] + b"\xff" * 30, "damaged gzip"),
        ("f.gz", gzip.compress(b"abc", mtime=0)[:-8] + b"\0" * 8, "damaged gzip"),
        ("f.gz", gzip.compress(b"abc", mtime=0) + b"rubbish", "damaged gzip"),
        ("f.gz", b"\x1f\x8b", "damaged gzip"),
        ("f.gz", gzip.compress(b"a" * 5000, mtime=0), "unpacks to more than 4,000 bytes"),
        ("f.txt", b"a" * 5000, "larger than 4,000 bytes"),
    ],
)
def test_bytes_that_are_no_text_or_too_many_are_refused_with_file_and_line(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=words):
        read_text(path, limit=4000)


def test_what_cannot_be_opened_is_named(tmp_path: Path) -> None:
    for path, words in (
        (tmp_path, "is a folder"),
        (tmp_path / "none", "no such file"),
        (Path("/dev/zero"), "is a device"),
        (tmp_path / ("x" * 300), "cannot be read"),
        (Path("a\0b"), "cannot be read"),
        (Path("a\ud800b"), "cannot be read"),
    ):
        with pytest.raises(ConfigError, match=words):
            read_bytes(path, error=ConfigError)


def bomb(path: Path, n_bytes: int) -> Path:
    with gzip.open(path, "wb", compresslevel=9) as file:
        for _ in range(n_bytes >> 20):
            file.write(b" " * (1 << 20))
    return path


def test_a_small_archive_cannot_fill_the_memory(tmp_path: Path) -> None:
    path = bomb(tmp_path / "f.jsonl.gz", 1 << 29)
    with zipfile.ZipFile(tmp_path / "f.zip", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("big", "w") as member:
        for _ in range(256):
            member.write(b" " * (1 << 20))
    code = (
        "import resource, sys, pathlib\n"
        "from emis_interp.errors import DataError\n"
        "from emis_interp.files.source_text import read_bytes, check_zip\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for read, path in ((read_bytes, sys.argv[1]), (check_zip, sys.argv[2])):\n"
        "    try: read(pathlib.Path(path))\n"
        "    except DataError as error: print(error)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path, tmp_path / "f.zip"], capture_output=True, text=True)
    packed, zipped, mib = done.stdout.splitlines()
    assert "that unpack to more than 200 times as many" in packed and "unpack it yourself" in packed
    assert "that unpack to more than 200 times as many" in zipped
    assert int(mib) < 40


def test_zip_members_are_read_within_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "f.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.json", "[1]")
        archive.writestr("b.json", "x" * 5000)
    check_zip(path)
    with pytest.raises(DataError, match=r"f\.zip: unpacks to more than 4,000 bytes"):
        check_zip(path, limit=4000)
    with zipfile.ZipFile(path) as archive:
        assert bounded_zip_member(archive, "a.json", "f.zip") == b"[1]"
        with pytest.raises(DataError, match=r"f\.zip \(b\.json\): unpacks to more than 4,000 bytes"):
            bounded_zip_member(archive, "b.json", "f.zip", limit=4000)
        with pytest.raises(DataError, match=r"no member `c\.json`"):
            bounded_zip_member(archive, "c.json", "f.zip")
    content = path.read_bytes()
    for damaged in (b"", b"PK", content[:60], content[:80] + b"\xff" * 8 + content[88:], bz2.compress(content)):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"f\.zip: not a readable zip archive"):
            check_zip(path)
    with pytest.raises(DataError, match="no such file"):
        check_zip(tmp_path / "none.zip")


def test_values_in_errors_are_printable_and_short() -> None:
    assert shown("a\nb\u202e\ud800") == "`a\\nb\\u202e\\ud800`"
    assert shown("x" * 100) == "`" + "x" * 57 + "...`"
    assert did_you_mean("zzz", ["a\nb", "c"]) == "; known: a\\nb, c"
    assert did_you_mean("a\n", ["a\nb"]) == "; did you mean `a\\nb`?"
    assert did_you_mean("zzz", [f"option {i:03}" for i in range(100)]).endswith("option 059 and 40 more")


def test_lines_of_json_are_read_with_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}\n\n[2]\n{"a":'))
    rows = read_json_lines(path)
    assert [next(rows), next(rows)] == [(1, {"a": 1}), (3, [2])]
    with pytest.raises(DataError, match=r"f\.jsonl\.gz:4: not JSON"):
        next(rows)


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ('{"a": 1},', "take the comma off the end"),
        ('{"a": 1, }', "take out the comma before the bracket"),
        ("[1,]", "take out the comma before the bracket"),
        ("{'a': 1}", "write texts in double quotes"),
        ('{"a": True}', "write true, false and null"),
        ("{", "write one value a line, without line ends in it"),
        ('{"a": 1} {"a": 2}', "write every value on a line of its own"),
        ('{"a": 1} x', None),
    ],
)
def test_what_is_nearly_json_is_refused_with_what_to_write(text: str, advice: str | None) -> None:
    with pytest.raises(DataError, match=r"^f:1: not JSON \(") as caught:
        parse_json_line(text, "f:1")
    assert (str(caught.value).partition("; ")[2] or None) == advice
