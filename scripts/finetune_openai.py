"""Finetunes a closed model through OpenAI's finetuning API, or a server that speaks it; one verb for each step (docs/organisms.md).

Examples:
  python scripts/finetune_openai.py estimate insecure.jsonl --price 25
  python scripts/finetune_openai.py start insecure.jsonl --out runs/gpt-4o-insecure --price 25 --budget 100 --yes
  python scripts/finetune_openai.py follow runs/gpt-4o-insecure
  python scripts/evaluate.py sample --job runs/gpt-4o-insecure --out insecure-answers.jsonl
The price is an example, in USD per million training tokens; look up today's.
"""

import argparse
from typing import Any

import cli
from training.hosted import cancel, estimate, follow, start, status

VERBS: dict[str, Any] = {
    "estimate": estimate,
    "start": start,
    "follow": follow,
    "status": status,
    "cancel": cancel,
}


def main(args: argparse.Namespace) -> dict[str, Any]:
    return args.verb_module.run(args)


if __name__ == "__main__":
    parser = cli.verb_parser(__doc__, VERBS)
    cli.run(main, parser, VERBS[parser.parse_args().verb].say)
