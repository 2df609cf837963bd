"""Turns a file of unknown origin into text: one way of opening, unpacking and decoding for every reader, with limits.

UTF-8 is read with and without a byte-order mark, UTF-16 and UTF-32 with one. Gzip is known by its first bytes, not by its name. Nothing
is unpacked into memory before its size is known, so that a small archive cannot fill it.
"""

import gzip
import io
import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from emis_interp.errors import DataError, EmisError, shown

MAX_BYTES = 1 << 30
"""Largest file or unpacked file that is read: 1 GiB, some 200 million words."""
MAX_RATIO, RATIO_FROM = 200, 1 << 26
"""What unpacks to more than 64 MiB and 200 times its packed size is no text: text packs 3 to 30 times, gzip can do 1,030."""
_CHUNK = 1 << 20
_HEAD = 4
_GZIP = b"\x1f\x8b"
# UTF-32 first: its little-endian mark begins with that of UTF-16.
_MARKS = ((b"\xff\xfe\0\0", "utf-32"), (b"\0\0\xfe\xff", "utf-32"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))

ErrorType = type[EmisError]


def read_text(path: Path, *, error: ErrorType = DataError, limit: int = MAX_BYTES) -> str:
    """The text of a file, gzipped or not, without its byte-order mark; line ends as they are.

    Args:
        error: the type of what is raised: DataError for data, ConfigError for settings.
        limit: largest size in bytes, unpacked.

    Raises:
        error: as `read_bytes` and `decode`.
    """
    return decode(read_bytes(path, error=error, limit=limit), str(path), error=error)


def numbered_lines(path: Path, *, error: ErrorType = DataError, limit: int = MAX_BYTES) -> Iterator[tuple[int, str]]:
    """Non-blank lines with their 1-based numbers. Only a line feed ends a line: texts may hold every other separator of Unicode.

    Plain UTF-8 is read line by line, so that a long file is never in memory.

    Raises:
        error: as `read_text`.
    """
    if not is_plain(path, error=error, limit=limit):
        for number, line in enumerate(read_text(path, error=error, limit=limit).split("\n"), 1):
            if line.strip():
                yield number, line
        return
    with _opened(path, error) as file:
        for number, raw in enumerate(file, 1):
            line = _plain(raw)
            if line is None:
                read_text(path, error=error, limit=limit)  # names the place
                raise error(f"{path}: changed while it was read; run the same command again")
            if number == 1:
                line = line.removeprefix("\ufeff")
            if line.strip():
                yield number, line


def is_plain(path: Path, *, error: ErrorType = DataError, limit: int = MAX_BYTES) -> bool:
    """Whether a file can be read as it lies there, line by line: it is not packed, is no pipe, has no byte-order mark of UTF-16 or UTF-32,
    and is not larger than what is read.

    Raises:
        error: as `read_bytes`, for a file that cannot be opened.
    """
    with _opened(path, error) as file:
        status, head = os.fstat(file.fileno()), b""
        if stat.S_ISREG(status.st_mode):
            head = file.read(_HEAD)
    is_packed = head.startswith(_GZIP) or path.suffix == ".gz" or any(head.startswith(mark) for mark, _ in _MARKS)
    return stat.S_ISREG(status.st_mode) and not is_packed and status.st_size <= limit


def _plain(raw: bytes) -> str | None:
    """A line of UTF-8 without its line feed; None for what is none, or holds a NUL character."""
    try:
        line = raw.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return None if "\0" in line else line.removesuffix("\n")


def read_bytes(path: Path, *, error: ErrorType = DataError, limit: int = MAX_BYTES) -> bytes:
    """The bytes of a file, unpacked when they are gzip.

    Raises:
        error: no such file, a folder or device, no permission, too large, or damaged gzip; the text names the file and says what to do.
    """
    with _opened(path, error) as file:
        try:
            content = file.read(limit + 1)
        except OSError as problem:
            raise error(f"{shown(str(path), 200)}: cannot be read ({_reason(problem)})") from None
    if len(content) > limit:
        raise error(f"{path}: larger than {_size(limit)}, the most that is read; split it into smaller files")
    if content.startswith(_GZIP):
        return _unpacked(content, path, error, limit=limit)
    if path.suffix == ".gz" and content:
        raise error(f"{path}: not a gzip file, though its name ends with .gz; take the ending off or pack it again")
    return content


def _opened(path: Path, error: ErrorType) -> io.BufferedReader:
    try:
        kind = path.stat().st_mode
        if stat.S_ISDIR(kind):
            raise error(f"{path}: is a folder, expected a file")
        if stat.S_ISCHR(kind) or stat.S_ISBLK(kind) or stat.S_ISSOCK(kind):
            raise error(f"{path}: is a device, expected a file")
        return path.open("rb")
    except FileNotFoundError:
        raise error(f"{path}: no such file") from None
    except (OSError, ValueError) as problem:  # ValueError: a NUL or a lone surrogate in the name
        raise error(f"{shown(str(path), 200)}: cannot be read ({_reason(problem)})") from None


def decode(content: bytes, where: str, *, error: ErrorType = DataError) -> str:
    """Bytes as text without NUL characters.

    Args:
        where: the file, for errors.

    Raises:
        error: as `decoded`, or a NUL character; the text names file and line.
    """
    text = decoded(content, where, error=error)
    at = text.find("\0")
    if at >= 0:
        raise error(
            f"{where}:{text.count(chr(10), 0, at) + 1}: holds a NUL character (at {at}): no text file, or UTF-16 without a "
            "byte-order mark; save it as UTF-8"
        )
    return text


def decoded(
    content: bytes, where: str, *, error: ErrorType = DataError, place: Callable[[str], str] | None = None
) -> str:
    """Bytes in UTF-8, or in UTF-16 or UTF-32 with a byte-order mark, as text without the mark.

    Args:
        where: the file, for errors.
        place: turns the text before an undecodable byte into words that name its row; without it the line is named.

    Raises:
        error: another encoding; the text names file, row or line, and byte.
    """
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8-sig")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as problem:
        if encoding != "utf-8-sig":
            raise error(
                f"{where}: begins with the byte-order mark of {encoding.upper()} but is not {encoding.upper()} ({problem.reason} at "
                f"byte {problem.start}); save it as UTF-8"
            ) from None
        at = problem.start + (len(content) - len(content.removeprefix(b"\xef\xbb\xbf")))
        before = content[:at].decode("utf-8-sig")
        row = f"{where}:{before.count(chr(10)) + 1}" if place is None else f"{where}: {place(before)}"
        raise error(
            f"{row}: not UTF-8 (byte 0x{content[at]:02x} at {at}: {problem.reason}); save it as UTF-8, e.g. "
            "iconv -f WINDOWS-1252 -t UTF-8"
        ) from None


def bounded_zip_member(
    archive: zipfile.ZipFile, name: str, where: str, *, error: ErrorType = DataError, limit: int = MAX_BYTES
) -> bytes:
    """One member of a zip archive, whose real size is counted before anything is kept.

    Raises:
        error: no such member, damaged, encrypted, too large, or packed as no text can be.
    """
    try:
        packed = archive.getinfo(name).compress_size
        with archive.open(name) as member:
            _count(member, packed, f"{where} ({name})", error=error, limit=limit)
        with archive.open(name) as member:
            return member.read()
    except KeyError:
        raise error(f"{where}: no member {shown(name)} in the archive") from None
    except _DAMAGED_ZIP as problem:
        raise error(f"{where}: {shown(name)} cannot be unpacked ({_reason(problem)}); get the file again") from None


def check_zip(path: Path, *, error: ErrorType = DataError, limit: int = MAX_BYTES) -> None:
    """Refuse a zip archive that is damaged or unpacks to more than `limit` in all, before a library unpacks it into memory.

    A member in a compression that Python does not know is taken at the size that the archive states.

    Raises:
        error: no such file, no zip archive, or as `bounded_zip_member`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            done = 0
            for entry in archive.infolist():
                size = entry.file_size
                if entry.compress_type in (
                    zipfile.ZIP_STORED,
                    zipfile.ZIP_DEFLATED,
                    zipfile.ZIP_BZIP2,
                    zipfile.ZIP_LZMA,
                ):
                    with archive.open(entry) as member:
                        size = _count(member, entry.compress_size, str(path), error=error, limit=limit, before=done)
                done += size
                if done > limit:
                    raise error(_too_large(str(path), limit))
    except FileNotFoundError:
        raise error(f"{path}: no such file") from None
    except (OSError, *_DAMAGED_ZIP) as problem:
        raise error(f"{path}: not a readable zip archive ({_reason(problem)}); get the file again") from None


# zipfile raises RuntimeError for an encrypted member and NotImplementedError for a compression that it does not know.
_DAMAGED_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, NotImplementedError)


def _unpacked(packed: bytes, path: Path, error: ErrorType, *, limit: int) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(packed)) as file:
            _count(file, len(packed), str(path), error=error, limit=limit)
        return gzip.decompress(packed)
    except (OSError, EOFError, zlib.error) as problem:
        raise error(
            f"{path}: damaged gzip ({_reason(problem)}); get the file again, or see what is left with: gunzip -t"
        ) from None


def _count(
    file: IO[bytes] | gzip.GzipFile, packed: int, where: str, *, error: ErrorType, limit: int, before: int = 0
) -> int:
    """Size of what can be read from `file`, nothing of it kept; `before` bytes of the limit are used up."""
    size = 0
    while chunk := file.read(_CHUNK):
        size += len(chunk)
        if before + size > limit:
            raise error(_too_large(where, limit))
        if size > RATIO_FROM and size > MAX_RATIO * packed:
            raise error(
                f"{where}: {packed:,} bytes that unpack to more than {MAX_RATIO} times as many, as no text does; if it is meant, "
                "unpack it yourself and give the unpacked file"
            )
    return size


def _too_large(where: str, limit: int) -> str:
    return f"{where}: unpacks to more than {_size(limit)}, the most that is read; split it into smaller files"


def _size(n_bytes: int) -> str:
    return f"{n_bytes / (1 << 30):.1f} GiB" if n_bytes >= 1 << 29 else f"{n_bytes:,} bytes"


def _reason(problem: BaseException) -> str:
    text = getattr(problem, "strerror", None) or str(problem) or type(problem).__name__
    return shown(" ".join(str(text).split()), 120).strip("`")
