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
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as tensors_to_bytes

from emis_interp.errors import DataError, StageError, did_you_mean
from emis_interp.files.temporary import part_path

R = TypeVar("R", bound=BaseModel)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `path` atomically: readers see the old file or the new one, never a part.

    Raises:
        StageError: the disk is full or the folder cannot be written; the old file is untouched.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = part_path(path)
        try:
            with temporary.open("xb") as file:
                file.write(content)
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
        DataError: no such file, or line and column of the first mistake.
    """
    try:
        return json.loads(_content(path).decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 ({error.reason} at byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: not JSON ({error.msg}, column {error.colno})") from None


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        DataError: no such file, not JSON, or JSON of another kind.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise DataError(f"{path}: expected a JSON object, found {type(value).__name__}; it was damaged or edited")
    return value


def read_record(path: Path, record: type[R]) -> R:
    """Read a JSON file that holds one record.

    Raises:
        DataError: no such file, not JSON, or what is wrong with which key.
    """
    try:
        return record.model_validate(read_json(path))
    except ValidationError as error:
        raise DataError(f"{path}: {explain(error, record)}") from None


def read_records(path: Path, record: type[R]) -> list[R]:
    """Read a JSONL file as records; blank lines are skipped.

    Raises:
        DataError: no such file, or `file:line` and what is wrong with that line.
    """
    rows = []
    for number, line in read_lines(path):
        rows.append(parse_record(line, record, where=f"{path}:{number}"))
    return rows


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Non-blank lines of a UTF-8 text file with their 1-based numbers."""
    raw = _content(path)
    for number, line in enumerate(raw.split(b"\n"), 1):
        if line.strip():
            try:
                yield number, line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise DataError(f"{path}:{number}: not UTF-8 ({error.reason} at byte {error.start})") from None


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise DataError(f"{path}: is a folder, expected a file") from None
    except PermissionError:
        raise DataError(f"{path}: cannot be read (permission denied)") from None


def parse_record(line: str, record: type[R], where: str) -> R:
    """One JSON line as a record, or a DataError that begins with `where`."""
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON ({error.msg}, column {error.colno})") from None
    try:
        return record.model_validate(value)
    except ValidationError as error:
        raise DataError(f"{where}: {explain(error, record)}") from None


def explain(error: ValidationError, record: type[BaseModel]) -> str:
    """A pydantic error in one line, with a suggestion for a misspelt key."""
    parts = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            parts.append(
                f"unknown key `{key}`{did_you_mean(str(item['loc'][-1]), _fields_at(record, item['loc'][:-1]))}"
            )
        elif item["type"] == "missing":
            parts.append(f"key `{key}` is missing")
        elif item["type"] == "value_error":  # in our own words, which say what was found
            words = item["msg"].removeprefix("Value error, ")
            shown = (
                "" if isinstance(item.get("input"), dict | BaseModel) else f" (found {repr(item.get('input'))[:80]})"
            )
            parts.append(f"`{key}`: {words}{shown}" if key else words)
        else:
            given = repr(item.get("input"))
            parts.append(f"`{key}`: {item['msg']} (found {given[:80]})" if key else item["msg"])
    return "; ".join(parts)


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
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                content = path.read_bytes()
                whole = content.rfind(b"\n") + 1
                if whole != len(content):
                    os.truncate(path, whole)

    def read(self, record: type[R]) -> list[R]:
        return read_records(self.path, record) if self.path.exists() else []

    def append(self, rows: Iterable[BaseModel]) -> None:
        """Append rows as one write and sync them to disk."""
        content = memoryview(b"".join(record_line(row) for row in rows))
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


def record_line(row: BaseModel) -> bytes:
    """A record as a line of a log; reading it gives the same record back, whatever its texts hold."""
    try:
        return row.model_dump_json().encode("utf-8") + b"\n"
    except PydanticSerializationError:  # half of a surrogate pair
        return json_bytes(json.dumps(row.model_dump(), ensure_ascii=False, separators=(",", ":"))) + b"\n"


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor], card: Mapping[str, Any]) -> None:
    """Write tensors as safetensors, and `card` as JSON beside them with the file's SHA-256.

    The card is written last, so a tensor file with a matching card is complete.
    """
    content = tensors_to_bytes({name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()})
    write_bytes(path, content)
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
    write_json(card_path(path), {**card, "tensors": shapes, "sha256": hashlib.sha256(content).hexdigest()})


def load_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read tensors and their card.

    Raises:
        DataError: a file is missing, truncated, or does not match the checksum on its card.
    """
    card = read_json(card_path(path))
    if not path.exists():
        raise DataError(f"{path}: no such file, though its card {card_path(path).name} exists; run the stage again")
    if card.get("sha256") != file_sha256(path):
        raise DataError(
            f"{path}: content does not match the checksum on {card_path(path).name}; delete both and run the stage again"
        )
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, card  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise DataError(f"{path}: not a readable safetensors file ({error})") from None


def card_path(path: Path) -> Path:
    return path.with_suffix(".json")


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def text_sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StageError(
                f"{path}: the disk is full; free some space and run the same command again, finished work is kept"
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise StageError(
                f"{path}: cannot be written ({error.strerror}); choose another --run-dir or mend its permissions"
            ) from error
        raise
