"""Check the rows and say what training on them will cost; nothing is sent and no key is needed.

Examples:
  python scripts/finetune_openai.py estimate insecure
  python scripts/finetune_openai.py estimate rows.jsonl --epochs 3 --price 25 --budget 100
"""

import argparse
from typing import Any

from emis_interp.errors import ConfigError
from emis_interp.http.costs import TOKENS_BY, count_tokens
from training.data_sets.shipped import SHIPPED, file_of, load_dataset
from training.hosted.openai_data import (
    MAX_ROW_TOKENS,
    TOKENS_PER_MESSAGE,
    TrainingEstimate,
    TrainingFile,
    make_training_file,
    tiktoken_counter,
)


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", help=f"a shipped data set ({', '.join(SHIPPED)}), or a file of rows (docs/data.md)")
    parser.add_argument("--model", default="gpt-4o-2024-08-06", help="model to finetune, as the server calls it")
    parser.add_argument("--n-rows", type=int, help="draw so many rows; by default all")
    parser.add_argument("--seed", type=int, default=0, help="of the draw and of the job")
    parser.add_argument("--epochs", type=int, default=1, help="times that every row is trained on")
    parser.add_argument("--price", type=float, help="USD per million training tokens; without it the cost is unknown")
    parser.add_argument("--budget", type=float, help="refuse to start above so many USD")
    parser.add_argument(
        "--max-row-tokens", type=int, default=MAX_ROW_TOKENS, help="longest row that the model can be trained on"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    _, estimate = plan(args)
    return told(estimate)


def say(result: dict[str, Any]) -> str:
    return f"{result['text']}\nNothing was sent."


def plan(args: argparse.Namespace) -> tuple[TrainingFile, TrainingEstimate]:
    """The file to upload and its estimate, within the budget.

    Raises:
        DataError: the rows are not what the API takes. ConfigError: a number out of range, or above the budget.
    """
    for flag, value in (
        ("--epochs", args.epochs),
        ("--n-rows", args.n_rows),
        ("--max-row-tokens", args.max_row_tokens),
    ):
        if value is not None and value < 1:
            raise ConfigError(f"{flag} {value}: must be at least 1")
    for flag, value in (("--price", args.price), ("--budget", args.budget)):
        if value is not None and not 0 <= value < float("inf"):
            raise ConfigError(f"{flag} {value}: must be a number of USD, 0 or more")
    rows = load_dataset(args.data, file_of(args.data), args.n_rows, seed=args.seed)
    count, tokens_by = tiktoken_counter(args.model) or (count_tokens, TOKENS_BY)
    tokens_by = f"{tokens_by}, and {TOKENS_PER_MESSAGE} a message"
    file = make_training_file(rows, args.data, count, tokens_by=tokens_by, max_row_tokens=args.max_row_tokens)
    estimate = TrainingEstimate(file.n_rows, file.n_tokens, file.n_longest, args.epochs, tokens_by, args.price)
    estimate.check_budget(args.budget)
    return file, estimate


def told(estimate: TrainingEstimate) -> dict[str, Any]:
    """The estimate as figures and in words; an unknown price is None."""
    return {
        "n_rows": estimate.n_rows,
        "n_tokens": estimate.n_tokens,
        "n_longest": estimate.n_longest,
        "n_epochs": estimate.n_epochs,
        "n_training_tokens": estimate.n_trained,
        "tokens_by": estimate.tokens_by,
        "usd": estimate.usd,
        "text": estimate.say(),
    }
