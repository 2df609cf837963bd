"""Stop a job at the server; what was trained until then may be billed.

Example:
  python scripts/finetune_openai.py cancel runs/gpt-4o-insecure
"""

import argparse
from typing import Any

from training.hosted import connection
from training.hosted.job_folder import read_job
from training.hosted.openai_jobs import cancel


def add_flags(parser: argparse.ArgumentParser) -> None:
    connection.add_folder_flags(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    record = read_job(args.folder)
    if not record.is_over:
        record = connection.ask(
            args.folder, args.timeout, lambda server: cancel(server, args.folder), key_variable=args.key_variable
        )
    return connection.told(args.folder, record)


say = connection.say
