"""Turns a finetuning job at a server into a folder that says what was asked, how far it got and which model came out.

A folder holds `job.json` (written whole after every step), `train.jsonl` (what is uploaded) and `events.jsonl`. It never holds a key.
"""

import hashlib
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from pydantic import Field

from emis_interp.errors import DataError, StageError, did_you_mean
from emis_interp.files.claim import check_same
from emis_interp.files.lock import writing
from emis_interp.files.store import read_record, text_sha256, write_bytes, write_sealed
from emis_interp.http.addresses import foreign_variable_problem
from emis_interp.records import Record

JOB_FILE, DATA_FILE, EVENTS_FILE = "job.json", "train.jsonl", "events.jsonl"
OVER = ("succeeded", "failed", "cancelled")


class JobRequest(Record):
    """What decides the resulting model; None leaves a hyperparameter to the server."""

    model: str = Field(min_length=1)
    n_epochs: int = Field(ge=1)
    batch_size: int | None = Field(default=None, ge=1)
    learning_rate_multiplier: float | None = Field(default=None, gt=0)
    seed: int = Field(default=0, ge=0, lt=2**31)
    suffix: str | None = Field(default=None, min_length=1, max_length=64)
    data_sha256: str

    @property
    def sha256(self) -> str:
        """By this hash a job at the server is known again."""
        return text_sha256(self.model_dump_json())

    @property
    def file_name(self) -> str:
        """Of the uploaded file, which is known again by it."""
        return f"emis-{self.data_sha256}.jsonl"


class StatusChange(Record):
    """`status` was first seen at `at` (Unix seconds): `prepared`, `uploaded`, then the server's own words."""

    at: int
    status: str


class Checkpoint(Record):
    """A model from the middle of training; `model` can be sampled like the final one."""

    step: int
    model: str
    metrics: dict[str, float] = Field(default={})


class JobEvent(Record):
    """One message of the server; `data` holds the figures of a `metrics` event."""

    id: str
    at: int
    level: str
    message: str
    type: str | None = None
    data: Any = None


class JobRecord(Record):
    """Everything known of a job.

    Attributes:
        data: name of the data; n_tokens: of the file, estimated (tokens_by says how).
        price: US dollars per million training tokens, or None when unknown.
        url: where the API begins, None for OpenAI; key_variable: the environment variable that holds the key.
        adopted: the job was found at the server rather than created by the command that recorded it.
        settings: batch size, learning-rate multiplier and epochs as the server chose them.
        trained_tokens: billed tokens as the server counted them.
    """

    data: str
    n_rows: int
    n_tokens: int
    tokens_by: str
    price: float | None
    request: JobRequest
    url: str | None
    key_variable: str
    prepared_at: int
    history: tuple[StatusChange, ...]
    file_id: str | None = None
    job_id: str | None = None
    adopted: bool = False
    settings: dict[str, int | float] = Field(default={})
    error: str | None = None
    model: str | None = None
    checkpoints: tuple[Checkpoint, ...] = ()
    trained_tokens: int | None = None
    result_files: tuple[str, ...] = ()

    @property
    def status(self) -> str:
        return self.history[-1].status

    @property
    def is_over(self) -> bool:
        return self.status in OVER

    def changed(self, status: str | None = None, **fields: Any) -> "JobRecord":
        """With other fields, and with a line of history when the status is a new one."""
        if status is not None and status != self.status:
            fields["history"] = (*self.history, StatusChange(at=int(time.time()), status=status))
        return self.model_copy(update=fields)


def prepare(folder: Path, record: JobRecord, content: bytes) -> JobRecord:
    """Write the folder of a new job, or take up the one that is there.

    Raises:
        StageError: the folder holds another job.
    """
    with locked(folder):
        if not (folder / JOB_FILE).exists():
            write_bytes(folder / DATA_FILE, content)
            write_job(folder, record)
            return record
        there = read_job(folder)
        old, new = (item.request.model_dump() | {"url": item.url} for item in (there, record))
        check_same(folder, old, new, holds="a job", advice="choose another --out")
        there = there.changed(price=record.price, key_variable=record.key_variable)
        write_job(folder, there)
        return there


def read_job(folder: Path) -> JobRecord:
    """The record of a folder.

    Raises:
        DataError: no job there, or a malformed record.
    """
    path = folder / JOB_FILE
    if not path.exists():
        raise DataError(f"{path}: no such file; `start` makes it, or name the folder of another job")
    return read_record(path, JobRecord)


def write_job(folder: Path, record: JobRecord) -> None:
    write_sealed(folder / JOB_FILE, record.model_dump(mode="json"))


def read_data(folder: Path, record: JobRecord) -> bytes:
    """What is to be uploaded.

    Raises:
        StageError: the file is gone or no longer the one that was checked.
    """
    path = folder / DATA_FILE
    content = path.read_bytes() if path.exists() else b""
    if hashlib.sha256(content).hexdigest() != record.request.data_sha256:
        raise StageError(f"{path}: missing or changed since it was checked; start again in another folder")
    return content


def finished_model(folder: Path, step: int | None = None) -> str:
    """Name of the finetuned model, or of its checkpoint after `step` steps.

    Raises:
        StageError: the job is not finished, failed or was cancelled.
        DataError: no job there, or no checkpoint at that step.
    """
    record = read_job(folder)
    if record.status != "succeeded" or record.model is None:
        reason = f": {record.error}" if record.error else ""
        advice = "it has no model" if record.is_over else f"wait for it: {follow_command(folder)}"
        raise StageError(f"{folder}: the finetuning job is {record.status}{reason}; {advice}")
    if step is None:
        return record.model
    names = {str(checkpoint.step): checkpoint.model for checkpoint in record.checkpoints}
    if str(step) not in names:
        raise DataError(f"{folder}: no checkpoint at step {step}{did_you_mean(str(step), names)}")
    return names[str(step)]


def key_variable_of(folder: Path, record: JobRecord) -> str:
    """The environment variable that a job's record names for its key.

    Raises:
        DataError: the record names a variable that a folder from elsewhere may not choose, as it chooses the server too.
    """
    if problem := foreign_variable_problem(record.key_variable):
        raise DataError(f"{folder / JOB_FILE}: key_variable: {problem} (--key-variable NAME)")
    return record.key_variable


def follow_command(folder: Path) -> str:
    return f"python scripts/finetune_openai.py follow {folder}"


def locked(folder: Path, patience_s: float = 10.0) -> AbstractContextManager[None]:
    """One command at a time sends, or writes the record.

    Raises:
        StageError: another command holds the folder for longer than `patience_s`.
    """
    return writing(folder, patience_s=patience_s)
