"""Go on with a job that `start --yes` began: whatever is left of upload, creation and waiting.

Example:
  python scripts/finetune_openai.py follow runs/gpt-4o-insecure
"""

import argparse
from typing import Any

from training.hosted import connection
from training.hosted.job_folder import JobRecord, read_job
from training.hosted.openai_jobs import Server, submit


def add_flags(parser: argparse.ArgumentParser) -> None:
    connection.add_folder_flags(parser)
    connection.add_poll_flag(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    waits = connection.make_waits(args)

    async def work(server: Server) -> JobRecord:
        record = await submit(server, args.folder, waits)
        return await connection.wait_for(server, args.folder, record, waits=waits)

    record = read_job(args.folder)
    if not record.is_over:
        record = connection.ask(args.folder, args.timeout, work, key_variable=args.key_variable)
    return connection.told(args.folder, record)


say = connection.say
