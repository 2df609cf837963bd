"""Turns a file that should be a table of text into text and lines, or says what other kind of file it is."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from emis_interp.errors import DataError
from emis_interp.files.source_text import decoded, is_plain, read_bytes

_OTHER_KINDS = (
    (b"PK\x03\x04", "a zip archive (an Excel workbook is one)", "export it as CSV in UTF-8, or unpack it"),
    (b"PAR1", "a Parquet file", "give it the ending .parquet"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "unpack it"),
    (b"\xfd7zXZ", "compressed with xz", "unpack it"),
    (b"BZh", "compressed with bzip2", "unpack it"),
)
_LINE_ENDS = re.compile(r"\r\n|\r|\n")
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_HEAD = 400


class TableText:
    """The text of a table, walked through as often as is asked; plain UTF-8 is read from disk each time, and never in memory as a whole."""

    def __init__(self, lines: Callable[[], Iterator[str]]) -> None:
        self._lines = lines

    @classmethod
    def of(cls, text: str) -> "TableText":
        return cls(lambda: (match.group() for match in _LINE.finditer(text)))

    @classmethod
    def read(cls, path: Path, place: Callable[[str], str] | None = None) -> "TableText":
        """Of a file.

        Args:
            place: as for `table_text`.

        Raises:
            DataError: as `table_text`; a byte that cannot be decoded when it is come to.
        """
        if not is_plain(path):
            return cls.of(table_text(path, place))
        with path.open("rb") as file:
            head = file.read(_HEAD)
        _check_kind(path, head)
        _check_zeros(path, head.decode("utf-8", "replace"))

        def lines() -> Iterator[str]:
            try:
                with path.open(encoding="utf-8-sig", newline="") as file:
                    yield from file
            except UnicodeDecodeError:
                table_text(path, place)  # names the place
                raise DataError(f"{path}: changed while it was read; run the same command again") from None

        return cls(lines)

    def lines(self) -> Iterator[str]:
        """With their ends: LF, CRLF or CR, and nothing else (not U+2028)."""
        return self._lines()

    def numbered(self) -> Iterator[tuple[int, str]]:
        """Lines that are not blank, without their ends, with their numbers from 1."""
        for number, line in enumerate(self.lines(), 1):
            if line.strip():
                yield number, line.rstrip("\r\n")

    def begins_with(self, mark: str) -> bool:
        """Whether it does, behind blanks."""
        return next((line.lstrip() for line in self.lines() if line.strip()), "").startswith(mark)

    def whole(self) -> str:
        return "".join(self.lines())


def table_text(path: Path, place: Callable[[str], str] | None = None) -> str:
    """The text of a file in UTF-8, or in UTF-16 or UTF-32 with its byte-order mark; line ends stay as they are, the mark goes.

    Args:
        path: a gzipped file is unpacked.
        place: turns the text before an undecodable byte into words that name the row; without it the line is named.

    Raises:
        DataError: as `source_text.read_bytes`, another kind of file, or the row and byte that cannot be decoded.
    """
    raw = read_bytes(path)
    _check_kind(path, raw)
    text = decoded(raw, str(path), place=place or _line_place)
    _check_zeros(path, text)
    return text


def text_lines(text: str) -> Iterator[tuple[int, str]]:
    """`TableText.numbered` of a text."""
    return TableText.of(text).numbered()


def _check_kind(path: Path, raw: bytes) -> None:
    for magic, kind, advice in _OTHER_KINDS:
        if raw.startswith(magic):
            raise DataError(f"{path}: is {kind}; {advice}")


def _check_zeros(path: Path, text: str) -> None:
    if text[:_HEAD].count("\0") > len(text[:_HEAD]) // 4:
        raise DataError(f"{path}: every other byte is zero, which looks like UTF-16 without its mark; save it as UTF-8")


def _line_place(before: str) -> str:
    return f"line {len(_LINE_ENDS.findall(before)) + 1}"
