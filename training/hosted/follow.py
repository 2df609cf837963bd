"""Turns a job that was begun into a finished one: whatever is left of upload, creation and waiting."""

from typing import Any

from emis_interp.process import Bars, no_bars
from training.hosted import connection, job_words
from training.hosted.job_folder import JobRecord, read_job
from training.hosted.openai_jobs import Server, submit
from training.hosted.settings import JobFollowSettings

say = job_words.say


def run(settings: JobFollowSettings, bars: Bars = no_bars) -> dict[str, Any]:
    """Go on with the job to its end."""
    waits = connection.make_waits(settings)

    async def work(server: Server) -> JobRecord:
        record = await submit(server, settings.folder, waits)
        return await connection.wait_for(server, settings.folder, record, waits=waits)

    record = read_job(settings.folder)
    if not record.is_over:
        record = connection.ask(settings.folder, settings.timeout, work, key_variable=settings.key_variable)
    return job_words.told(settings.folder, record)
