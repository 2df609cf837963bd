"""Estimate, and with --yes upload the rows, create the job and follow it to its end.

Examples:
  python scripts/finetune_openai.py start insecure.jsonl --out runs/gpt-4o-insecure --price 25 --budget 100
  python scripts/finetune_openai.py start insecure.jsonl --out runs/gpt-4o-insecure --batch-size 4 --lr-multiplier 2 --yes
Without --yes nothing is sent. The same command continues an interrupted one; nothing is uploaded, created or paid twice.
"""

import argparse
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from pydantic import ValidationError

import cli
from emis_interp.errors import ConfigError
from emis_interp.files.store import explain
from training.hosted import connection, estimate
from training.hosted.job_folder import JobRecord, JobRequest, StatusChange, prepare
from training.hosted.openai_data import TrainingFile
from training.hosted.openai_jobs import Server, submit


def add_flags(parser: argparse.ArgumentParser) -> None:
    estimate.add_flags(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder of the job")
    parser.add_argument("--batch-size", type=int, help="rows per step; by default the server chooses")
    parser.add_argument("--lr-multiplier", type=float, help="of the server's learning rate; by default it chooses")
    parser.add_argument("--suffix", help="goes into the name of the model, at most 64 characters")
    parser.add_argument("--yes", action="store_true", help="send it; this spends money")
    parser.add_argument("--no-wait", action="store_true", help="return when the job is created")
    parser.add_argument(
        "--url", help="where the server's API begins, e.g. http://localhost:8000/v1; by default OpenAI's"
    )
    parser.add_argument("--key-variable", default="OPENAI_API_KEY", help="environment variable that holds the key")
    connection.add_poll_flag(parser)
    connection.add_timeout_flag(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The estimate alone, or the job as far as it got."""
    file, costs = estimate.plan(args)
    record = make_record(args, file)
    if not args.yes:
        command = shlex.join(["python", *sys.argv, "--yes"])
        return {"sent": False, "estimate": estimate.told(costs), "command": command}
    cli.stderr.print(costs.say(), markup=False)
    connection.make_api(record, args.timeout)  # a missing key is told before the folder is made
    prepare(args.out, record, file.content)
    waits = connection.make_waits(args)

    async def work(server: Server) -> JobRecord:
        record = await submit(server, args.out, waits)
        return record if args.no_wait else await connection.wait_for(server, args.out, record, waits=waits)

    record = connection.ask(args.out, args.timeout, work, key_variable=args.key_variable)
    return {"sent": True, "estimate": estimate.told(costs), **connection.told(args.out, record)}


def say(result: dict[str, Any]) -> str:
    if result["sent"]:
        return connection.say(result)
    return f"{result['estimate']['text']}\nNothing was sent. To upload and train, which spends money:\n  {result['command']}"


def make_record(args: argparse.Namespace, file: TrainingFile) -> JobRecord:
    """What is asked, before anything happened.

    Raises:
        ConfigError: a value that the API does not take.
    """
    try:
        request = JobRequest(
            model=args.model,
            n_epochs=args.epochs,
            batch_size=args.batch_size,
            learning_rate_multiplier=args.lr_multiplier,
            seed=args.seed,
            suffix=args.suffix,
            data_sha256=file.sha256,
        )
    except ValidationError as error:
        raise ConfigError(f"finetuning job: {explain(error, JobRequest)}") from None
    now = int(time.time())
    return JobRecord(
        data=args.data,
        n_rows=file.n_rows,
        n_tokens=file.n_tokens,
        tokens_by=file.tokens_by,
        price=args.price,
        request=request,
        url=args.url,
        key_variable=args.key_variable,
        prepared_at=now,
        history=(StatusChange(at=now, status="prepared"),),
    )
