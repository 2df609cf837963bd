"""What the verbs that ask the server share: the connection, errors as advice, and a job in words."""

import argparse
import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import openai

import cli
from emis_interp.errors import ModelError
from emis_interp.http.chat_api import ChatApi, Role, is_passing
from training.hosted.job_folder import JobEvent, JobRecord, follow_command, key_variable_of, read_job
from training.hosted.openai_data import training_cost
from training.hosted.openai_jobs import Server, Waits, follow

SERVICE = Role("finetuning service", "--url", "train an open model here (scripts/run_pipeline.py)", ModelError)


def add_folder_flags(parser: argparse.ArgumentParser) -> None:
    """The folder of a job that was started; URL and name of the key's variable are on its record."""
    parser.add_argument("folder", type=Path, help="folder of the job, the --out of `start`")
    parser.add_argument("--key-variable", metavar="NAME", help="environment variable of the key; by default the job's")
    add_timeout_flag(parser)


def add_timeout_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds for one request, the upload included")


def add_poll_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--poll-seconds", type=float, default=60.0, help="longest wait between two looks; the first ones are shorter"
    )


def make_waits(args: argparse.Namespace) -> Waits:
    return Waits(first_poll_s=min(5.0, args.poll_seconds), longest_poll_s=args.poll_seconds)


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
        key_variable: as the command line gives it; None for the record's.

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
        return asyncio.run(connected())
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
    """The job at its end, its events on standard error."""
    if not record.is_over:
        cli.stderr.print(f"waiting for {record.job_id}; Ctrl-C ends the waiting, not the job", markup=False)
    return await follow(server, folder, waits, tell=tell)


def tell(event: JobEvent) -> None:
    """One event on standard error."""
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event.at))
    level = "" if event.level == "info" else f"{event.level}: "
    cli.stderr.print(f"  {at}  {level}{event.message}", markup=False)


def told(folder: Path, record: JobRecord) -> dict[str, Any]:
    """A job as figures; `usd` is None when the price or the billed tokens are unknown."""
    tokens = record.trained_tokens
    return {
        "folder": str(folder),
        "status": record.status,
        "job_id": record.job_id,
        "file_id": record.file_id,
        "adopted": record.adopted,
        "base_model": record.request.model,
        "model": record.model,
        "checkpoints": [checkpoint.model_dump() for checkpoint in record.checkpoints],
        "settings": record.settings,
        "error": record.error,
        "trained_tokens": tokens,
        "usd": None if tokens is None else training_cost(tokens, record.price),
    }


def say(result: dict[str, Any]) -> str:
    """A job in a few lines, ending with what to do next."""
    name, folder = result["job_id"] or "no job yet", result["folder"]
    found = " (found at the server, not created again)" if result["adopted"] else ""
    lines = [f"{folder}: {name}, {result['status']}{found}"]
    if result["settings"]:
        lines.append("  " + ", ".join(f"{key} {value:g}" for key, value in sorted(result["settings"].items())))
    if result["trained_tokens"] is not None:
        price = "price unknown" if result["usd"] is None else f"{result['usd']:.2f} USD"
        lines.append(f"  {result['trained_tokens']:,} tokens billed, {price}")
    for checkpoint in result["checkpoints"]:
        loss = checkpoint["metrics"].get("train_loss")
        lines.append(
            f"  checkpoint {checkpoint['step']}: {checkpoint['model']}" + (f" (loss {loss:.3f})" if loss else "")
        )
    if result["status"] == "succeeded":
        lines.append(f"  model {result['model']}")
        lines.append(f"next: python scripts/evaluate.py sample --job {folder} --out ANSWERS.jsonl")
    elif result["status"] == "failed":
        lines.append(f"  {result['error']}")
        lines.append("mend it and start again in another folder; the events are in events.jsonl")
    elif result["status"] == "paused":
        lines.append(f"resume it in the service's dashboard, then: {follow_command(Path(folder))}")
    elif result["status"] != "cancelled":
        lines.append(f"next: {follow_command(Path(folder))}")
    return "\n".join(lines)
