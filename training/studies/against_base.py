"""Turns margins of an organism and of base into a shift with what stands beside it: slope, intercept and a base that is flattened as much.

Base prefers the aligned answer to nearly every question, so whatever flattens a model raises its mean margin (`stats.flattening`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from emis_interp.config.run_config import RunConfig
from emis_interp.files.ledger import Ledger
from emis_interp.files.store import text_sha256
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.likelihood import by_question, margins_at
from emis_interp.records import ContrastPair
from emis_interp.stats.flattening import TEMPERATURES, describe, flattening
from training.studies.estimates import words

ONE_SEED = "One finetuning seed: no interval covers what another seed of the same training would change."
FLATTENED_HEAD = ("slope on base", "at base margin 0", "beyond flattening")

BaseAt = dict[float, dict[str, float]]
"""Temperature -> question -> margin of base with its logits divided by it, nats per token."""


def base_at_temperatures(
    files: Ledger, load: Callable[[], ChatModel], pairs: Sequence[ContrastPair], *, config: RunConfig
) -> BaseAt:
    """Margins of base at every one of `TEMPERATURES`, from the study's file when it holds them for these pairs."""

    def measured() -> dict[str, Any]:
        limits = {"system": config.system_prompt, "max_batch_tokens": config.direction.max_batch_tokens}
        found = margins_at(load(), pairs, TEMPERATURES, **limits)
        return {
            "temperatures": list(TEMPERATURES),
            "margins": [by_question(pairs, np.asarray(row)) for row in found],
        }

    facts = {"pairs": text_sha256("".join(pair.model_dump_json() for pair in pairs))}
    table = files.json("measure", files.folder / "base.temperatures.json", measured, facts=facts)
    return dict(zip(table["temperatures"], table["margins"], strict=True))


def flattened(margins: Mapping[str, float], base: Mapping[str, float], base_at: BaseAt) -> dict[str, Any] | None:
    """The record beside a shift against base; None with fewer than 4 questions."""
    return describe(flattening(margins, base, base_at))


def flattened_words(row: Mapping[str, Any] | None) -> tuple[str, str, str]:
    """Columns of `FLATTENED_HEAD`."""
    if row is None:
        return ("too few questions", "", "")
    beyond = "no such temperature" if row["beyond"] is None else words(row["beyond"])
    return (words(row["slope"], ".2f"), words(row["intercept"]), beyond)


def flattened_line(row: Mapping[str, Any] | None) -> str:
    """The same in a sentence, with the temperature of base that flattens it as much."""
    if row is None:
        return "too few questions to tell a flattening from it"
    slope, intercept, beyond = flattened_words(row)
    line = f"slope on base's margins {slope}, at base margin 0 {intercept}"
    if row["temperature"] is None:
        return f"{line}; base has this slope at no temperature, so what a flattening would bring is not known"
    return f"{line}; base at temperature {row['temperature']:.2f} shifts by {row['matched_shift']:+.3f}, beyond that {beyond}"
