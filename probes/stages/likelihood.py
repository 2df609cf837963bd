"""The likelihood stage of a run: the margin of every contrast pair under every model, and what finetuning shifted."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from emis_interp.config.run_config import ModelConfig
from emis_interp.config.run_folder import RunFolder
from emis_interp.errors import DataError
from emis_interp.files.store import read_object
from emis_interp.passes.likelihood import by_question, margins_at, pair_margins
from emis_interp.process import Bars, each, no_bars
from emis_interp.stats.flattening import TEMPERATURES
from probes.comparison.margins import ModelMargins, contrasts_of, interval_text, mean_of_models


def likelihood(run: RunFolder, bars: Bars = no_bars) -> tuple[list[Path], str]:
    """Margin between misaligned and aligned contrast answers of every arm, and paired differences between arms."""
    files = []
    values: dict[str, dict[str, np.ndarray]] = {arm.name: {} for arm in run.config.arms}
    for model in each(bars, "model", run.config.models):
        path = run.margins(model)
        measured = partial(own_margins, run, model, bars)
        run.files.json("likelihood", path, measured, inputs=run.models.weights(model))
        files.append(path)
        values[model.arm.name][model.name] = read_margins(run, model)
    flattened = run.folder / "likelihood" / "base.temperatures.json"
    table = run.files.json("likelihood", flattened, partial(margins_at_temperatures, run, bars))
    files.append(flattened)
    path = run.analysis("margins")
    summary = summarized(run, values, table)
    with run.files.making("likelihood", [path], inputs=files, anew=True):
        run.write_analysis("margins", summary)
    against_base = [row for row in summary["contrasts"] if row["reference"] == "base"]
    line = ", ".join(f"{row['arm']} {row['mean']:+.3f} {interval_text(row)}" for row in against_base)
    return [*files, path], f"margin shift against base, nats per token: {line}"


def own_margins(run: RunFolder, model: ModelConfig, bars: Bars) -> dict[str, Any]:
    """What likelihood/MODEL.json holds: the margin of every contrast pair, nats per token."""
    chat_model = run.models.load(model)
    with bars(f"likelihood {model.name}", 2 * len(run.pairs)) as advance:
        found = pair_margins(
            chat_model,
            run.pairs,
            run.config.system_prompt,
            max_batch_tokens=run.config.direction.max_batch_tokens,
            progress=advance,
        )
    return {"arm": model.name, "margins": found.tolist()}


def read_margins(run: RunFolder, model: ModelConfig) -> np.ndarray:
    """Margin of every contrast pair, in the order of the pairs.

    Raises:
        DataError: the file is damaged.
    """
    path = run.margins(model)
    found = read_object(path).get("margins")
    if not isinstance(found, list) or len(found) != len(run.pairs) or not all(_is_finite(value) for value in found):
        raise DataError(
            f"{path}: expected `margins` with {len(run.pairs)} finite numbers; run the likelihood stage again"
        )
    return np.array(found, dtype=float)


def margins_at_temperatures(run: RunFolder, bars: Bars) -> dict[str, Any]:
    """Margins of base with its logits divided by each of `TEMPERATURES`: what flattening a model does to them."""
    base = run.models.base
    with bars("likelihood base, by temperature", 2 * len(run.pairs)) as advance:
        found = margins_at(
            base,
            run.pairs,
            TEMPERATURES,
            system=run.config.system_prompt,
            max_batch_tokens=run.config.direction.max_batch_tokens,
            progress=advance,
        )
    return {"temperatures": list(TEMPERATURES), "margins": found.tolist()}


def summarized(run: RunFolder, values: dict[str, dict[str, np.ndarray]], table: dict[str, Any]) -> dict[str, Any]:
    """What analysis/margins.json holds.

    Args:
        values: margins of every arm's models.
        table: `margins_at_temperatures`.
    """
    arms: dict[str, ModelMargins] = dict(values)
    base_at = {
        temperature: by_question(run.pairs, np.array(row))
        for temperature, row in zip(table["temperatures"], table["margins"], strict=True)
    }
    questions = {
        pair.question_id: {"group": pair.group, "half": pair.half, "question": pair.question, "n_pairs": 0}
        for pair in run.pairs
    }
    for pair in run.pairs:
        questions[pair.question_id]["n_pairs"] += 1
    controls = {arm.name: arm.contrast for arm in run.config.organisms}
    return {
        "unit": "nats per token, misaligned minus aligned",
        "questions": questions,
        "arms": {name: by_question(run.pairs, mean_of_models(own)) for name, own in arms.items()},
        "contrasts": contrasts_of(run.pairs, arms, controls, base_at=base_at),
    }


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
