"""Turns the rows of a job into the file to upload and what training on it will cost, before anything is sent."""

from typing import Any

from emis_interp.errors import ConfigError
from emis_interp.http.costs import TOKENS_BY, count_tokens
from emis_interp.process import Bars, no_bars
from training.data_sets.shipped import file_of, load_dataset
from training.hosted.openai_data import (
    TOKENS_PER_MESSAGE,
    TrainingEstimate,
    TrainingFile,
    make_training_file,
    tiktoken_counter,
)
from training.hosted.settings import JobEstimateSettings


def run(settings: JobEstimateSettings, bars: Bars = no_bars) -> dict[str, Any]:
    """Check the rows; the estimate as figures and in words."""
    _, estimate = plan(settings)
    return figures(estimate)


def say(result: dict[str, Any]) -> str:
    return f"{result['text']}\nNothing was sent."


def plan(settings: JobEstimateSettings) -> tuple[TrainingFile, TrainingEstimate]:
    """The file to upload and its estimate, within the budget.

    Raises:
        DataError: the rows are not what the API takes. ConfigError: a number out of range, or above the budget.
    """
    for flag, value in (
        ("--epochs", settings.epochs),
        ("--n-rows", settings.n_rows),
        ("--max-row-tokens", settings.max_row_tokens),
    ):
        if value is not None and value < 1:
            raise ConfigError(f"{flag} {value}: must be at least 1")
    for flag, value in (("--price", settings.price), ("--budget", settings.budget)):
        if value is not None and not 0 <= value < float("inf"):
            raise ConfigError(f"{flag} {value}: must be a number of USD, 0 or more")
    rows = load_dataset(settings.data, file_of(settings.data), settings.n_rows, seed=settings.seed)
    count, tokens_by = tiktoken_counter(settings.model) or (count_tokens, TOKENS_BY)
    tokens_by = f"{tokens_by}, and {TOKENS_PER_MESSAGE} a message"
    file = make_training_file(rows, settings.data, count, tokens_by=tokens_by, max_row_tokens=settings.max_row_tokens)
    estimate = TrainingEstimate(file.n_rows, file.n_tokens, file.n_longest, settings.epochs, tokens_by, settings.price)
    estimate.check_budget(settings.budget)
    return file, estimate


def figures(estimate: TrainingEstimate) -> dict[str, Any]:
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
