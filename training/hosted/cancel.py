"""Turns a job that is wanted no longer into a cancelled one."""

from typing import Any

from emis_interp.process import Bars, no_bars
from training.hosted import connection, job_words
from training.hosted.job_folder import read_job
from training.hosted.openai_jobs import cancel
from training.hosted.settings import JobCancelSettings

say = job_words.say


def run(settings: JobCancelSettings, bars: Bars = no_bars) -> dict[str, Any]:
    """Stop the job at the server; one that is over stays as it is."""
    record = read_job(settings.folder)
    if not record.is_over:
        record = connection.ask(
            settings.folder,
            settings.timeout,
            lambda server: cancel(server, settings.folder),
            key_variable=settings.key_variable,
        )
    return job_words.told(settings.folder, record)
