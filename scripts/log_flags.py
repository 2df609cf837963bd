"""Turns the flags that say what of an Inspect log is read into a `LogChoice`."""

import argparse

from evals.results.inspect_logs import LogChoice
from evals.results.inspect_scorers import BOTH


def add_log_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--scorer",
        metavar="NAME",
        help=f"Inspect log: whose scores, where several scorers give aligned and coherent ({BOTH}: two scorers of these names)",
    )
    parser.add_argument(
        "--unfinished", action="store_true", help="Inspect log: also one that failed or was cancelled, as far as it got"
    )


def log_choice(args: argparse.Namespace) -> LogChoice:
    return LogChoice(args.scorer, args.unfinished)
