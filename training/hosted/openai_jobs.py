"""Turns a prepared job folder into a finetuned model behind OpenAI's API: upload, create, follow, cancel.

Every step can be killed and repeated: what the server already has is known again by a hash, and adopted rather than made twice.
"""

import asyncio
import json
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import openai
from openai import AsyncOpenAI

from emis_interp.files.store import RecordLog
from training.hosted.job_folder import (
    EVENTS_FILE,
    OVER,
    Checkpoint,
    JobEvent,
    JobRecord,
    locked,
    read_data,
    read_job,
    write_job,
)
from training.hosted.openai_replies import CheckpointReply, EventReply, FileReply, JobReply, checked

REQUEST_KEY, DATA_KEY = "emis_request_sha256", "emis_data_sha256"
MAX_LISTED = 10_000  # of a server that lists without end
T = TypeVar("T")


@dataclass(frozen=True)
class Server:
    """Who is asked.

    Attributes:
        client: repeats requests that only read; uploads and creations are repeated here, after a look whether they arrived.
        is_passing: whether the same request may succeed later.
        redact: a text without the key.
    """

    client: AsyncOpenAI
    is_passing: Callable[[openai.OpenAIError], bool]
    redact: Callable[[str], str]


@dataclass(frozen=True)
class Waits:
    """Seconds between polls, growing from the first to the longest, and between attempts, doubling; and how often to try in a row."""

    first_poll_s: float = 5.0
    longest_poll_s: float = 60.0
    n_failed_polls: int = 10
    retry_s: float = 2.0
    n_attempts: int = 5


def unheard(event: JobEvent) -> None:
    """For callers that want no events."""


async def submit(server: Server, folder: Path, waits: Waits = Waits()) -> JobRecord:
    """Upload the data and create the job, each unless it is there already.

    A job with the same request that runs or has succeeded is adopted, from whatever folder it came; one that failed or was cancelled
    is only when it is younger than this folder.

    Raises:
        openai.OpenAIError: refused, or still failing after the last attempt.
        ModelError: the server's replies are not those of this API.
        StageError: the data changed, or another command is at work.
    """
    with locked(folder):
        record = read_job(folder)
        if record.job_id is not None or record.is_over:
            return record
        content = read_data(folder, record)
        client = server.client.with_options(max_retries=0)
        request = record.request
        if record.file_id is None:

            async def upload() -> FileReply:
                reply = await client.files.create(
                    file=(request.file_name, content, "application/jsonl"), purpose="fine-tune"
                )
                return checked(reply, FileReply)

            file, _ = await once(lambda: find_file(server, record, len(content)), upload, server, waits=waits)
            record = record.changed("uploaded", file_id=file.id)
            write_job(folder, record)

        async def create() -> JobReply:
            return checked(await client.fine_tuning.jobs.create(**_body(record)), JobReply)

        job, adopted = await once(lambda: find_job(server, record), create, server, waits=waits)
        record = record.changed(_unless_over(job), job_id=job.id, adopted=adopted)
        write_job(folder, record)
    return await look(server, folder) if job.status in OVER else record


async def follow(
    server: Server,
    folder: Path,
    waits: Waits = Waits(),
    *,
    tell: Callable[[JobEvent], None] = unheard,
) -> JobRecord:
    """Poll until the job is over or paused; a server that is away for a while is waited for.

    Raises:
        openai.OpenAIError: refused, or away for too many polls in a row; the job itself goes on.
    """
    wait_s, n_failed = waits.first_poll_s, 0
    while True:
        try:
            record = await look(server, folder, tell)
            n_failed = 0
            if record.is_over or record.status == "paused":
                return record
        except openai.OpenAIError as error:
            n_failed += 1
            if not server.is_passing(error) or n_failed >= waits.n_failed_polls:
                raise
        await asyncio.sleep(wait_s)
        wait_s = min(wait_s * 1.5, waits.longest_poll_s)


async def look(server: Server, folder: Path, tell: Callable[[JobEvent], None] = unheard) -> JobRecord:
    """Ask once how the job stands, and record it with its new events and, at the end, its checkpoints."""
    record = read_job(folder)
    if record.job_id is None or record.is_over:
        return record
    jobs = server.client.fine_tuning.jobs
    job = checked(await jobs.retrieve(record.job_id), JobReply)
    ended = job.status in OVER
    with locked(folder):  # opening a log mends it, which must not happen under a writer
        log = RecordLog(folder / EVENTS_FILE, seal=True)
        known = {event.id for event in log.read(JobEvent)}
    fresh = await _new_events(server, record.job_id, known, to_the_end=ended)
    checkpoints = []
    if job.status == "succeeded":
        async for item in _first(jobs.checkpoints.list(record.job_id, limit=100)):
            checkpoint = checked(item, CheckpointReply)
            name, step = checkpoint.fine_tuned_model_checkpoint, checkpoint.step_number
            checkpoints.append(Checkpoint(step=step, model=name, metrics=_figures(checkpoint.metrics)))
    with locked(folder):
        # Read again: another command may have written meanwhile.
        known = {event.id for event in log.read(JobEvent)}
        fresh = [event for event in fresh if event.id not in known]
        log.append(fresh)
        record = read_job(folder).changed(
            job.status,
            error=_reason(server, job),
            model=job.fine_tuned_model,
            settings=job.chosen,
            trained_tokens=job.trained_tokens,
            result_files=tuple(job.result_files or ()),
            checkpoints=tuple(sorted(checkpoints, key=lambda item: item.step)),
        )
        write_job(folder, record)
    for event in fresh:
        tell(event)
    return record


async def cancel(server: Server, folder: Path) -> JobRecord:
    """Stop the job at the server, also one that was created but not recorded; nothing is sent from this folder afterwards."""
    with locked(folder):
        record = read_job(folder)
        if record.is_over:
            return record
        if record.job_id is None:
            job = await find_job(server, record)
            fields = {"job_id": job.id, "adopted": True} if job else {}
            record = record.changed(_unless_over(job) if job else "cancelled", **fields)
            write_job(folder, record)
    if record.job_id is None:
        return record
    try:
        await server.client.fine_tuning.jobs.cancel(record.job_id)
    except openai.APIStatusError:
        record = await look(server, folder)
        if not record.is_over:  # else it ended before it could be cancelled
            raise
        return record
    return await look(server, folder)


async def once(
    find: Callable[[], Awaitable[T | None]], create: Callable[[], Awaitable[T]], server: Server, *, waits: Waits
) -> tuple[T, bool]:
    """What `find` finds, or else `create` creates, and whether it was found.

    A creation whose answer was lost may have arrived, so that it is looked for before every attempt.
    """
    for attempt in range(waits.n_attempts):
        if (found := await find()) is not None:
            return found, True
        try:
            return await create(), False
        except openai.OpenAIError as error:
            if not server.is_passing(error) or attempt + 1 == waits.n_attempts:
                raise
        await asyncio.sleep(waits.retry_s * 2**attempt)
    raise AssertionError("n_attempts is at least 1")


async def find_file(server: Server, record: JobRecord, n_bytes: int) -> FileReply | None:
    """The uploaded data, known by the hash in its name."""
    async for item in _first(server.client.files.list(purpose="fine-tune")):
        file = checked(item, FileReply)
        if file.filename == record.request.file_name and file.bytes in (None, n_bytes) and file.status != "error":
            return file
    return None


async def find_job(server: Server, record: JobRecord) -> JobReply | None:
    """A job with the same request, known by the hash in its metadata."""
    mark = {REQUEST_KEY: record.request.sha256}
    async for item in _first(server.client.fine_tuning.jobs.list(metadata=mark, limit=100)):
        job = checked(item, JobReply)
        ours = (job.metadata or {}).get(REQUEST_KEY) == record.request.sha256  # some servers do not filter
        if ours and (job.status not in ("failed", "cancelled") or job.created_at >= record.prepared_at):
            return job
    return None


def _unless_over(job: JobReply) -> str | None:
    """The status of a job that was created or found; that it is over is recorded by `look`, together with what came out."""
    return None if job.status in OVER else job.status


def _body(record: JobRecord) -> dict[str, Any]:
    request = record.request
    hyperparameters = {
        "n_epochs": request.n_epochs,
        "batch_size": request.batch_size or "auto",
        "learning_rate_multiplier": request.learning_rate_multiplier or "auto",
    }
    return {
        "model": request.model,
        "training_file": record.file_id,
        "method": {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
        "seed": request.seed,
        "metadata": {DATA_KEY: request.data_sha256, REQUEST_KEY: request.sha256},
    } | ({"suffix": request.suffix} if request.suffix else {})


async def _new_events(server: Server, job_id: str, known: set[str], *, to_the_end: bool) -> list[JobEvent]:
    """Events not yet known, oldest first. The server lists the newest first, so that a known one ends the search."""
    fresh = []
    async for item in _first(server.client.fine_tuning.jobs.list_events(job_id, limit=100)):
        event = checked(item, EventReply)
        if event.id in known:
            if not to_the_end:
                break
            continue
        data = None if event.data is None else json.loads(server.redact(json.dumps(event.data)))
        told = JobEvent(
            id=event.id,
            at=event.created_at,
            level=event.level,
            message=server.redact(event.message),
            type=event.type,
            data=data,
        )
        fresh.append(told)
    fresh.reverse()
    return sorted(fresh, key=lambda event: event.at)


def _reason(server: Server, job: JobReply) -> str | None:
    if job.status != "failed":
        return None
    parts = (job.error.message, job.error.param, job.error.code) if job.error else ()
    return server.redact(" / ".join(part for part in parts if part)) or "the server gives no reason"


async def _first(items: AsyncIterable[T]) -> AsyncIterator[T]:
    n_seen = 0
    async for item in items:
        yield item
        n_seen += 1
        if n_seen == MAX_LISTED:
            return


def _figures(metrics: dict[str, Any] | None) -> dict[str, float]:
    return {key: value for key, value in (metrics or {}).items() if isinstance(value, int | float)}
