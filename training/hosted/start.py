"""Turns rows into a job at the server, followed to its end; without `yes` into the estimate alone."""

import logging
import time
from typing import Any

from pydantic import ValidationError

from emis_interp.errors import ConfigError
from emis_interp.files.store import explain
from emis_interp.process import Bars, no_bars
from training.hosted import connection, estimate, job_words
from training.hosted.job_folder import JobRecord, JobRequest, StatusChange, prepare
from training.hosted.openai_data import TrainingFile
from training.hosted.openai_jobs import Server, submit
from training.hosted.settings import JobStartSettings

log = logging.getLogger(__name__)


def run(
    settings: JobStartSettings, bars: Bars = no_bars, *, command: str = "the same call with yes=True"
) -> dict[str, Any]:
    """The estimate alone, or the job as far as it got.

    Args:
        command: what sends it, for the words of an estimate.
    """
    file, costs = estimate.plan(settings)
    record = make_record(settings, file)
    if not settings.yes:
        return {"sent": False, "estimate": estimate.figures(costs), "command": command}
    log.info(costs.say())
    connection.make_api(record, settings.timeout)  # a missing key is told before the folder is made
    prepare(settings.out, record, file.content)
    waits = connection.make_waits(settings)

    async def work(server: Server) -> JobRecord:
        record = await submit(server, settings.out, waits)
        return record if settings.no_wait else await connection.wait_for(server, settings.out, record, waits=waits)

    record = connection.ask(settings.out, settings.timeout, work, key_variable=settings.key_variable)
    return {"sent": True, "estimate": estimate.figures(costs), **job_words.told(settings.out, record)}


def say(result: dict[str, Any]) -> str:
    if result["sent"]:
        return job_words.say(result)
    return f"{result['estimate']['text']}\nNothing was sent. To upload and train, which spends money:\n  {result['command']}"


def make_record(settings: JobStartSettings, file: TrainingFile) -> JobRecord:
    """What is asked, before anything happened.

    Raises:
        ConfigError: a value that the API does not take.
    """
    try:
        request = JobRequest(
            model=settings.model,
            n_epochs=settings.epochs,
            batch_size=settings.batch_size,
            learning_rate_multiplier=settings.lr_multiplier,
            seed=settings.seed,
            suffix=settings.suffix,
            data_sha256=file.sha256,
        )
    except ValidationError as error:
        raise ConfigError(f"finetuning job: {explain(error, JobRequest)}") from None
    now = int(time.time())
    return JobRecord(
        data=settings.data,
        n_rows=file.n_rows,
        n_tokens=file.n_tokens,
        tokens_by=file.tokens_by,
        price=settings.price,
        request=request,
        url=settings.url,
        key_variable=settings.key_variable,
        prepared_at=now,
        history=(StatusChange(at=now, status="prepared"),),
    )
