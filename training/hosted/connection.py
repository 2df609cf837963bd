"""Turns a job's record into a connection to its server, errors of the server into advice, and its events into messages."""

import logging
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import openai

from emis_interp.errors import ModelError
from emis_interp.http import blocking
from emis_interp.http.chat_api import ChatApi, Role, is_passing
from training.hosted.job_folder import JobEvent, JobRecord, follow_command, key_variable_of, read_job
from training.hosted.openai_jobs import Server, Waits, follow
from training.hosted.settings import PollSettings

log = logging.getLogger(__name__)

SERVICE = Role("finetuning service", "--url", "train an open model here (scripts/run_pipeline.py)", ModelError)


def make_waits(settings: PollSettings) -> Waits:
    return Waits(first_poll_s=min(5.0, settings.poll_seconds), longest_poll_s=settings.poll_seconds)


def make_api(record: JobRecord, timeout_s: float) -> ChatApi:
    """Checks URL and key; the record's variable is taken as it is.

    Raises:
        ModelError: no key for OpenAI, a malformed key or URL.
    """
    variable = record.key_variable
    key = os.environ.get(variable)
    return ChatApi(record.request.model, key, record.url, timeout_s=timeout_s, key_variable=variable, role=SERVICE)


def ask(
    folder: Path, timeout_s: float, work: Callable[[Server], Awaitable[JobRecord]], *, key_variable: str | None = None
) -> JobRecord:
    """What `work` makes of the job in `folder`.

    Args:
        key_variable: as the user gives it; None for the record's.

    Raises:
        DataError: the record names a variable that a folder may not choose.
        ModelError: the server refused or is away, in one line that says what to do.
    """
    record = read_job(folder)
    variable = key_variable or key_variable_of(folder, record)
    api = make_api(record.model_copy(update={"key_variable": variable}), timeout_s)

    async def connected() -> JobRecord:
        async with api.connect() as client:
            return await work(Server(client, lambda error: is_passing(error) and not api.refusal(error), api.redact))

    try:
        return blocking.wait_for(connected())
    except openai.OpenAIError as error:
        raise ModelError(advice(api, error, read_job(folder), folder=folder)) from None


def advice(api: ChatApi, error: openai.OpenAIError, record: JobRecord, *, folder: Path) -> str:
    """What went wrong and how to go on; whether the job exists is said."""
    said = f"{SERVICE.name} at {api.host}: {api.say(error)}"
    status = error.status_code if isinstance(error, openai.APIStatusError) else None
    if status == 404 and record.job_id:
        return f"{said}; is the key in {record.key_variable} of the account that made {record.job_id}?"
    if status in (403, 404):
        said = api.refusal(error, "files and fine_tuning/jobs") or said
    elif refusal := api.refusal(error):
        said = refusal
    elif status is None and isinstance(error, openai.APIConnectionError):
        said += "; is the server running, and its URL right?"
    if not is_passing(error):
        return said
    state = f"{record.job_id} goes on at the server" if record.job_id else "what was done is kept"
    return f"{said}; {state}; to go on: {follow_command(folder)}"


async def wait_for(server: Server, folder: Path, record: JobRecord, *, waits: Waits) -> JobRecord:
    """The job at its end; its events are logged."""
    if not record.is_over:
        log.info("waiting for %s; Ctrl-C ends the waiting, not the job", record.job_id)
    return await follow(server, folder, waits, tell=tell)


def tell(event: JobEvent) -> None:
    """Log one event."""
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event.at))
    level = "" if event.level == "info" else f"{event.level}: "
    log.info("  %s  %s%s", at, level, event.message)
