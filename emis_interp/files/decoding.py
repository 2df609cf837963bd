"""Turns a file's bytes into text, whatever marks them (a byte order mark, gzip), or says at which line and byte they are no text."""

import codecs
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from emis_interp.errors import DataError
from emis_interp.files.source_text import read_bytes

_MARKS = (  # the mark of UTF-32 begins with that of UTF-16
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_OTHER_KINDS = (
    (b"PK\x03\x04", "a zip archive (an Excel workbook is one)", "export it as CSV in UTF-8, or unpack it"),
    (b"PAR1", "a Parquet file", "give it the ending .parquet"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "unpack it"),
    (b"\xfd7zXZ", "compressed with xz", "unpack it"),
    (b"BZh", "compressed with bzip2", "unpack it"),
)


def read_text(path: Path, place: Callable[[str], str] | None = None) -> str:
    """The text of a file in UTF-8, or in UTF-16 or UTF-32 with its byte order mark; line ends stay as they are, the mark goes.

    Args:
        path: a gzipped file is unpacked.
        place: turns the text before an undecodable byte into words that name the row; without it the line is named.

    Raises:
        DataError: no such file, not readable, another kind of file, or the line and byte that cannot be decoded.
    """
    raw = read_raw(path)
    mark, encoding = next(((mark, name) for mark, name in _MARKS if raw.startswith(mark)), (b"", "utf-8"))
    if not mark and raw[:400].count(0) > len(raw[:400]) // 4:
        raise DataError(f"{path}: every other byte is zero, which looks like UTF-16 without its mark; save it as UTF-8")
    body = raw[len(mark) :]
    try:
        return body.decode(encoding)
    except UnicodeDecodeError as error:
        before = body[: error.start].decode(encoding)
        where = place(before) if place is not None else f"line {len(_LINE_ENDS.findall(before)) + 1}"
        advice = "; save the file as UTF-8 (it may be Latin-1 or Windows-1252)" if encoding == "utf-8" else ""
        found = f"{error.reason}, 0x{body[error.start]:02x} at byte {len(mark) + error.start}"
        raise DataError(f"{path}: {where}: not {encoding.upper()} ({found}){advice}") from None


def read_raw(path: Path) -> bytes:
    """The bytes of a file, unpacked when they are gzip.

    Raises:
        DataError: as `source_text.read_bytes`, or another kind of file.
    """
    raw = read_bytes(path)
    for magic, kind, advice in _OTHER_KINDS:
        if raw.startswith(magic):
            raise DataError(f"{path}: is {kind}; {advice}")
    return raw


def numbered_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, with their numbers from 1. A line ends with LF, CRLF or CR, and with nothing else (not with U+2028)."""
    for number, line in enumerate(_LINE_ENDS.split(text), 1):
        if line.strip():
            yield number, line


_LINE_ENDS = re.compile(r"\r\n|\r|\n")
