"""Turns one question to the server into a folder that says how its job stands."""

from typing import Any

from emis_interp.process import Bars, no_bars
from training.hosted import connection, job_words
from training.hosted.job_folder import read_job
from training.hosted.openai_jobs import look
from training.hosted.settings import JobStatusSettings

say = job_words.say


def run(settings: JobStatusSettings, bars: Bars = no_bars) -> dict[str, Any]:
    """Ask once; a finished job is read from its folder."""
    record = read_job(settings.folder)
    if record.job_id is not None and not record.is_over:
        record = connection.ask(
            settings.folder,
            settings.timeout,
            lambda server: look(server, settings.folder, connection.tell),
            key_variable=settings.key_variable,
        )
    return job_words.told(settings.folder, record)
