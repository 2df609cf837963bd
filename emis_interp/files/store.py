"""Turns results into files that survive a crash, and files back into results, naming what is broken.

Whole files are written to a temporary name, synced and renamed. Logs are appended line by line and synced; a line that a
killed process left half written is cut off when the log is opened again. Tensors are safetensors with a JSON card beside them.
"""

import contextlib
import errno
import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError

from emis_interp.errors import DataError, StageError, did_you_mean, printable, shown
from emis_interp.files import strict_json
from emis_interp.files.sealed import sealed, unsealed
from emis_interp.files.source_text import numbered_lines
from emis_interp.files.temporary import part_path

_MOST_PARTS = 10
_BLOCK = 1 << 16
_NO_PERMISSION = (errno.EACCES, errno.EROFS, errno.EPERM)
DISK_FULL = ("No space left", "PytorchStreamWriter failed", "inline_container.cc")
PATH_FAULTS = (*_NO_PERMISSION, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)
"""What is wrong with a path that somebody gave, as the operating system numbers it."""
_VANISHED = (errno.ENOENT, errno.ESTALE)
_PASSWORD = re.compile(r"//[^/\s]*@")
"""What stands between the slashes and the host of a URL."""

R = TypeVar("R", bound=BaseModel)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `path` atomically: readers see the old file or the new one, never a part.

    Raises:
        StageError: the disk is full or the folder cannot be written; the old file is untouched.
    """
    write_parts(path, [content])


def write_parts(path: Path, parts: Iterable[bytes]) -> None:
    """`write_bytes` of content that comes in parts, which may be made from the old file."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = part_path(path)
        try:
            with temporary.open("xb") as file:
                file.writelines(parts)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_text(path: Path, content: str) -> None:
    write_bytes(path, content.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write strict JSON.

    Raises:
        DataError: NaN or infinity, with its place; nothing is written. A missing number must be None.
    """
    try:
        content = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    except ValueError:
        if (place := _not_finite(value)) is None:
            raise
        raise DataError(
            f"{path}: not written, `{place}` is not a finite number; the model or its data broke down"
        ) from None
    write_bytes(path, json_bytes(content + "\n"))


def write_sealed(path: Path, value: Mapping[str, Any]) -> None:
    """`write_json` of an object with a checksum of its content (`files.sealed`), which `read_record` looks at."""
    write_json(path, sealed(json.loads(json.dumps(value))))


def json_bytes(content: str) -> bytes:
    """JSON text as UTF-8. Half of a surrogate pair, which JSON can spell and UTF-8 cannot hold, becomes its JSON escape (`\\ud83d`), so
    that reading gives the same text back."""
    return content.encode("utf-8", "backslashreplace")


def _not_finite(value: Any, where: str = "") -> str | None:
    """Dotted place of the first NaN or infinity in nested values, with the number."""
    if isinstance(value, float):
        return None if math.isfinite(value) else f"{where or 'value'}: {value}"
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list | tuple) else ()
    places = (_not_finite(item, f"{where}.{key}" if where else str(key)) for key, item in items)
    return next((place for place in places if place is not None), None)


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        DataError: no such file, or line and column of the first mistake (`files.strict_json`: also keys that occur twice).
            Half of a surrogate pair, which `write_json` can write, is read back.
    """
    return strict_json.read_json(path, halves=True)


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        DataError: no such file, not JSON, or JSON of another kind.
    """
    return strict_json.as_object(read_json(path), str(path))


def read_sealed(path: Path) -> dict[str, Any]:
    """What `write_sealed` wrote, without its checksum; an object of an older version has none.

    Raises:
        DataError: no such file, no object of JSON, or not what was written.
    """
    return unsealed(read_object(path), str(path))


def read_records(path: Path, record: type[R]) -> list[R]:
    """Read a JSONL file as records; blank lines are skipped.

    Raises:
        DataError: no such file, or `file:line` and what is wrong with that line.
    """
    return list(iter_records(path, record))


def iter_records(path: Path, record: type[R]) -> Iterator[R]:
    """As `read_records`, one record at a time.

    Raises:
        DataError: as `read_records`, when it comes to that line.
    """
    for number, line in read_lines(path):
        yield parse_record(line, record, where=f"{path}:{number}")


def located_records(path: Path, record: type[R]) -> Iterator[tuple[int, R]]:
    """As `iter_records`, each with the byte at which its line begins (`records_at`).

    Raises:
        DataError: as `iter_records`, or a line that is not UTF-8.
    """
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield offset, record_of_line(line, record, f"{path}:{number}")
            offset += len(line)


def records_at(path: Path, record: type[R], offsets: Iterable[int]) -> Iterator[R]:
    """The records whose lines begin at these bytes of a file, in their order.

    Raises:
        DataError: there is no such line any more.
    """
    with path.open("rb") as file:
        for offset in offsets:
            file.seek(offset)
            yield record_of_line(file.readline(), record, f"{path}: changed while it was read, byte {offset}")


def record_of_line(line: bytes, record: type[R], where: str) -> R:
    """As `parse_record`, of the bytes of a line."""
    try:
        return parse_record(line.decode("utf-8").rstrip("\n"), record, where)
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 ({error.reason} at byte {error.start} of the line)") from None


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Non-blank lines of a UTF-8 text file with their 1-based numbers."""
    return numbered_lines(path)


def parse_record(line: str, record: type[R], where: str) -> R:
    """One JSON line as a record, or a DataError that begins with `where`."""
    return as_record(strict_json.parse_json_line(line, where, halves=True), record, where)


def read_record(path: Path, record: type[R]) -> R:
    """A JSON file that holds one record.

    Raises:
        DataError: as `read_json`, or what is wrong with the record.
    """
    return as_record(read_json(path), record, str(path))


def as_record(value: Any, record: type[R], where: str) -> R:
    """A value of JSON as a record, or a DataError that begins with `where`; a checksum beside it must be that of its content."""
    if isinstance(value, dict):
        value = unsealed(value, where)
    try:
        return record.model_validate(value)
    except ValidationError as error:
        raise DataError(f"{where}: {explain(error, record)}") from None


def explain(error: ValidationError, record: type[BaseModel]) -> str:
    """A pydantic error in one line, with a suggestion for a misspelt key; of many parts the first ten."""
    items = error.errors(include_url=False, include_context=False)
    more = f"; and {len(items) - _MOST_PARTS} more" if len(items) > _MOST_PARTS else ""
    return "; ".join(explain_item(item, record) for item in items[:_MOST_PARTS]) + more


def explain_item(item: Mapping[str, Any], record: type[BaseModel]) -> str:
    """One entry of `ValidationError.errors()` in words."""
    key = shown(".".join(str(part) for part in item["loc"]), 80)
    if item["type"] == "extra_forbidden":
        return f"unknown key {key}{did_you_mean(str(item['loc'][-1]), _fields_at(record, item['loc'][:-1]))}"
    if item["type"] == "missing":
        return f"key {key} is missing"
    said = printable(" ".join(item["msg"].removeprefix("Value error, ").split()), 300)
    if not item["loc"]:
        return said
    if item["type"] == "value_error" and isinstance(item.get("input"), dict | BaseModel):
        return f"{key}: {said}"  # our own words, which say what was found
    found = _PASSWORD.sub("//...@", repr(item.get("input")))
    return f"{key}: {said} (found {printable(found, 80)})"


def _fields_at(record: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """Names of the fields of the model that `path` leads to inside `record`."""
    model: Any = record
    for part in path:
        if isinstance(part, int):
            continue
        field = getattr(model, "model_fields", {}).get(part)
        if field is None:
            return []
        model = field.annotation
        for inner in getattr(model, "__args__", ()):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                model = inner
    return list(getattr(model, "model_fields", {}))


class RecordLog:
    """An append-only JSONL file of records: append, sync, resume.

    Opening cuts off a last line without its newline, the trace of a killed writer, and nothing else.

    Args:
        seal: write a checksum into every line, which whoever reads it looks at.
    """

    def __init__(self, path: Path, *, seal: bool = False) -> None:
        self.path, self.seal = path, seal
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                with path.open("rb") as file:
                    size = file.seek(0, os.SEEK_END)
                    whole = _end_of_lines(file, size)
                if whole != size:
                    os.truncate(path, whole)

    def read(self, record: type[R]) -> list[R]:
        return list(self.rows(record))

    def rows(self, record: type[R]) -> Iterator[R]:
        """As `read`, one at a time."""
        return iter_records(self.path, record) if self.path.exists() else iter(())

    def append(self, rows: Iterable[BaseModel]) -> None:
        """Append rows as one write and sync them to disk."""
        content = memoryview(b"".join(record_line(row, seal=self.seal) for row in rows))
        # Unbuffered: a buffer would write its remainder after the truncation, when the file is closed.
        with disk_errors(self.path), self.path.open("ab", buffering=0) as file:
            start = file.tell()
            try:
                while content:
                    content = content[file.write(content) :]
                os.fsync(file.fileno())
            except BaseException:
                os.truncate(self.path, start)
                raise


def _end_of_lines(file: BinaryIO, size: int) -> int:
    """The byte behind the last line feed; 0 where there is none."""
    end = size
    while end:
        begin = max(0, end - _BLOCK)
        file.seek(begin)
        if (at := file.read(end - begin).rfind(b"\n")) >= 0:
            return begin + at + 1
        end = begin
    return 0


def record_line(row: BaseModel, *, seal: bool = False) -> bytes:
    """A record as a line of a log; reading it gives the same record back, whatever its texts hold."""
    try:
        line = row.model_dump_json()
    except PydanticSerializationError:  # half of a surrogate pair in a value
        line = None
    if line is None or "\ufffd" in line:  # which pydantic writes for such a half in a key
        line = json.dumps(row.model_dump(), ensure_ascii=False, separators=(",", ":"))
    if seal:
        line = json.dumps(sealed(json.loads(line)), ensure_ascii=False, separators=(",", ":"))
    return json_bytes(line) + b"\n"


def card_path(path: Path) -> Path:
    return path.with_suffix(".json")


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def text_sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Around writes to `path`: what the operating system refuses (a full disk, a limit, no permission, a folder that is gone, a file where
    a folder should be, a name that is too long) is a StageError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StageError(
                f"{path}: the disk is full; free some space and run the same command again, finished work is kept"
            ) from error
        if error.errno == errno.EFBIG:
            raise StageError(
                f"{path}: larger than this disk or the limit of this shell takes (ulimit -f); raise it and run the same command again, "
                "finished work is kept"
            ) from error
        if error.errno in _VANISHED:
            raise StageError(
                f"{path}: its folder vanished while it was written to ({error.strerror}); put it back, or run the command again with "
                "another folder"
            ) from error
        if error.errno in PATH_FAULTS:
            advice = "mend its permissions, or write elsewhere" if error.errno in _NO_PERMISSION else "write elsewhere"
            raise StageError(f"{path}: cannot be written ({error.strerror}); {advice}") from error
        raise


def is_disk_full(error: BaseException) -> bool:
    """Whether a write failed for lack of space; safetensors and torch raise errors of their own for it."""
    seen: BaseException | None = error
    while seen is not None:
        if getattr(seen, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or any(
            text in str(seen) for text in DISK_FULL
        ):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
