"""Ask once how a job stands, and record it with its new events; a finished job is read from its folder.

Example:
  python scripts/finetune_openai.py status runs/gpt-4o-insecure
"""

import argparse
from typing import Any

from training.hosted import connection
from training.hosted.job_folder import read_job
from training.hosted.openai_jobs import look


def add_flags(parser: argparse.ArgumentParser) -> None:
    connection.add_folder_flags(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    record = read_job(args.folder)
    if record.job_id is not None and not record.is_over:
        record = connection.ask(
            args.folder,
            args.timeout,
            lambda server: look(server, args.folder, connection.tell),
            key_variable=args.key_variable,
        )
    return connection.told(args.folder, record)


say = connection.say
