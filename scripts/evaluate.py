"""Samples models, judges answers, and states rates with their intervals; one verb for each step (docs/evaluation.md).

Examples:
  python scripts/evaluate.py sample --model smollm2-135m-instruct --n 4 --out answers.jsonl
  python scripts/evaluate.py judge answers.jsonl --judge offline --out judged.csv
  python scripts/evaluate.py summarize judged.csv
  python scripts/evaluate.py agree judged_a.csv judged_b.csv
"""

import argparse
from contextlib import nullcontext
from typing import Any

import cli
from emis_interp.process import only_writer
from evaluation import agree, grid, harness, inject, judge, plan, sample, suite, summarize

VERBS: dict[str, Any] = {
    "sample": sample,
    "judge": judge,
    "summarize": summarize,
    "agree": agree,
    "plan": plan,
    "inject": inject,
    "suite": suite,
    "grid": grid,
    "harness": harness,
}


RESUMED = ("sample", "judge")
"""Verbs that go on with what --out holds."""


def main(args: argparse.Namespace) -> dict[str, Any]:
    with only_writer(args.out.parent, args.out.name) if args.verb in RESUMED else nullcontext():
        return args.verb_module.run(args)


if __name__ == "__main__":
    parser = cli.verb_parser(__doc__, VERBS)
    cli.run(main, parser, VERBS[parser.parse_args().verb].say)
