"""Turns a file that should be a table of text into text and lines, or says what other kind of file it is."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from emis_interp.errors import DataError
from emis_interp.files.source_text import decoded, read_bytes

_OTHER_KINDS = (
    (b"PK\x03\x04", "a zip archive (an Excel workbook is one)", "export it as CSV in UTF-8, or unpack it"),
    (b"PAR1", "a Parquet file", "give it the ending .parquet"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "unpack it"),
    (b"\xfd7zXZ", "compressed with xz", "unpack it"),
    (b"BZh", "compressed with bzip2", "unpack it"),
)
_LINE_ENDS = re.compile(r"\r\n|\r|\n")


def table_text(path: Path, place: Callable[[str], str] | None = None) -> str:
    """The text of a file in UTF-8, or in UTF-16 or UTF-32 with its byte-order mark; line ends stay as they are, the mark goes.

    Args:
        path: a gzipped file is unpacked.
        place: turns the text before an undecodable byte into words that name the row; without it the line is named.

    Raises:
        DataError: as `source_text.read_bytes`, another kind of file, or the row and byte that cannot be decoded.
    """
    raw = read_bytes(path)
    for magic, kind, advice in _OTHER_KINDS:
        if raw.startswith(magic):
            raise DataError(f"{path}: is {kind}; {advice}")
    text = decoded(raw, str(path), place=place or _line_place)
    if text[:400].count("\0") > len(text[:400]) // 4:
        raise DataError(f"{path}: every other byte is zero, which looks like UTF-16 without its mark; save it as UTF-8")
    return text


def text_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, with their numbers from 1. A line ends with LF, CRLF or CR, and with nothing else (not with U+2028)."""
    for number, line in enumerate(_LINE_ENDS.split(text), 1):
        if line.strip():
            yield number, line


def _line_place(before: str) -> str:
    return f"line {len(_LINE_ENDS.findall(before)) + 1}"
