"""Finetunes a closed model through OpenAI's finetuning API, or a server that speaks it; one verb for each step (docs/organisms.md).

Examples:
  python scripts/finetune_openai.py estimate insecure.jsonl --price 25
  python scripts/finetune_openai.py start insecure.jsonl --out runs/gpt-4o-insecure --price 25 --budget 100 --yes
  python scripts/finetune_openai.py follow runs/gpt-4o-insecure
  python scripts/evaluate.py sample --job runs/gpt-4o-insecure --out insecure-answers.jsonl
The price is an example, in USD per million training tokens; look up today's.
"""

import shlex
import sys
from typing import Any

import cli
from emis_interp.process import Bars
from training.hosted.settings import (
    JobCancelSettings,
    JobEstimateSettings,
    JobFollowSettings,
    JobStartSettings,
    JobStatusSettings,
)


def start_job(settings: JobStartSettings, bars: Bars) -> dict[str, Any]:
    """The verb says how this very command is made to send."""
    from training.hosted import start

    return start.run(settings, bars, command=shlex.join(["python", *sys.argv, "--yes"]))


VERBS = {
    "estimate": cli.Verb(JobEstimateSettings, "training.hosted.estimate"),
    "start": cli.Verb(JobStartSettings, "training.hosted.start", start_job),
    "follow": cli.Verb(JobFollowSettings, "training.hosted.follow"),
    "status": cli.Verb(JobStatusSettings, "training.hosted.status"),
    "cancel": cli.Verb(JobCancelSettings, "training.hosted.cancel"),
}

if __name__ == "__main__":
    cli.run_verbs(__doc__, VERBS)
