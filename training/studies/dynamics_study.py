"""Turns a recipe into an organism that was watched while it formed: its curves, its change point, the cost of watching, and a page."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emis_interp.config.run_config import RunConfig, TrainingConfig
from emis_interp.directions import Direction
from emis_interp.errors import ConfigError
from emis_interp.files.store import write_sealed, write_text
from emis_interp.files.strict_json import as_object, read_json_lines
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.loading import load_tokenizer
from emis_interp.process import Bars, no_bars, only_writer
from emis_interp.records import ContrastPair, TrainingExample
from emis_interp.report.figure_page import figure_page
from emis_interp.report.page_frame import Frame, command_of, frame_of
from emis_interp.texts.contrast import load_contrast
from training.data_sets.shipped import OTHER_KIND, load_dataset, rows_sha256
from training.data_sets.textstats import Named
from training.finetuning.encoding import encode_example
from training.finetuning.sft import n_steps_of
from training.organism import train_organism
from training.recipes import examples_of, load_recipe, training_config
from training.studies.against_base import ONE_SEED, BaseAt, base_at_temperatures, flattened, flattened_line
from training.studies.dynamics import Watcher, affordable_probes, curves, read_series, spread_steps
from training.studies.estimates import estimate, words
from training.studies.figures import dynamics_figure
from training.studies.measures import base_model
from training.studies.settings import DynamicsSettings
from training.studies.study_folder import check_recipe, open_folder

WATCHED = ("n_pairs", "n_probes", "max_cost", "n_task", "layer", "n_samples")
JudgedSamplesOf = Callable[[RunConfig, int], Callable[[ChatModel], dict[str, Any]]]
"""Configuration, answers per wording -> what samples a forming model and judges its answers (`evals.arms.judged_samples.JudgedSamples`)."""


def run(
    settings: DynamicsSettings,
    bars: Bars = no_bars,
    *,
    asked: Sequence[Named],
    judged_samples: JudgedSamplesOf | None = None,
) -> dict[str, Any]:
    """Train with probes, then read their files.

    Args:
        asked: what the organism will be asked, which its rows must not hold (`training.lint.copies.asked_texts`).
        judged_samples: needed for `n_samples`.
    """
    with only_writer(settings.out):
        config = settings.config()
        recipe = load_recipe(settings.recipe, settings.recipe_overrides)
        check_recipe(recipe, config)
        training = training_config(recipe, config.training)
        rows = examples_of(recipe, config.find_data, config.seed)
        direction = Direction.load(settings.direction) if settings.direction else None
        decisive = {name: getattr(settings, name) for name in WATCHED}
        files = open_folder(
            settings.out, config, recipe=recipe.model_dump(mode="json"), rows_sha256=rows_sha256(rows), **decisive
        )
        pairs = load_contrast(None, settings.n_pairs)
        watcher = Watcher(
            settings.out / "probes",
            pairs,
            direction.layer if settings.layer is None and direction is not None else settings.layer,
            *task_rows(recipe.data.dataset, rows, settings.n_task),
            config.system_prompt,
            extra_of(settings, config, judged_samples),
        )
        steps = steps_of(settings, config, watcher, rows=rows, training=training)
        folder = settings.out / "training"
        summary = train_organism(
            recipe.name,
            rows,
            training,
            out_dir=folder,
            config=config,
            seed=config.seed,
            probe=watcher,
            probe_steps=steps,
            asked=asked,
            bars=bars,
        )
        base_at = base_at_temperatures(files, lambda: base_model(config), pairs, config=config)
        measured, cost = curves_of(watcher.folder, folder, steps, pairs=pairs, direction=direction, base_at=base_at)
        trained = summary["seconds"] - cost
        result = {
            "recipe": recipe.name,
            "model": config.model,
            **measured,
            "cost": {"probe_seconds": cost, "training_seconds": trained, "share": cost / trained},
            "n_rows": len(rows),
        }
        write_sealed(settings.out / "dynamics.json", result)
        frame = frame_of(
            settings.out / "index.html",
            command_of("scripts/study_organism.py dynamics", settings),
            settings.out / "dynamics.json",
        )
        write_text(settings.out / "index.html", page(result, column_of(folder / "metrics.jsonl", "loss"), frame=frame))
        return {**result, "page": str(settings.out / "index.html")}


def extra_of(
    settings: DynamicsSettings, config: RunConfig, judged_samples: JudgedSamplesOf | None
) -> Callable[[ChatModel], dict[str, Any]] | None:
    """What is measured besides, when samples are asked for.

    Raises:
        ConfigError: nobody is there to judge them.
    """
    if not settings.n_samples:
        return None
    if judged_samples is None:
        raise ConfigError(
            f"--n-samples {settings.n_samples}: nothing samples and judges here; give `judged_samples`, or 0"
        )
    return judged_samples(config, settings.n_samples)


def steps_of(
    settings: DynamicsSettings,
    config: RunConfig,
    watcher: Watcher,
    *,
    rows: Sequence[TrainingExample],
    training: TrainingConfig,
) -> list[int]:
    """The optimiser steps at which the model is measured: as many as are asked for, or as the cost allows."""
    tokenizer = load_tokenizer(config.model, config.chat_format)
    n_training = sum(
        len(encode_example(tokenizer, row, config.system_prompt, max_tokens=training.max_tokens)) for row in rows
    )
    n_affordable = affordable_probes(watcher.n_tokens(tokenizer), n_training * training.n_epochs, settings.max_cost)
    return spread_steps(n_steps_of(len(rows), training), settings.n_probes or n_affordable)


def curves_of(
    probes: Path,
    training: Path,
    steps: list[int],
    *,
    pairs: Sequence[ContrastPair],
    direction: Direction | None,
    base_at: BaseAt,
) -> tuple[dict[str, Any], float]:
    """The curves of the probes' files, with intervals and what a flattening would bring at every step, and the seconds of watching."""
    series = read_series(probes, steps)
    rates = column_of(training / "metrics.jsonl", "learning_rate")
    found = curves(series, pairs, direction, learning_rates=rates)
    found["margin"] = [estimate(column) for column in np.array(list(found["margin_shift"].values())).T]
    at_steps = [
        dict(zip(found["questions"], row, strict=True)) for row in np.array(list(found["margins"].values())).T.tolist()
    ]
    found["flattening"] = [flattened(own, at_steps[0], base_at) for own in at_steps]
    return found, float(series.seconds.sum())


def task_rows(dataset: str, rows: list[TrainingExample], n: int) -> tuple[list[TrainingExample], list[TrainingExample]]:
    """Short held-out rows of a shipped set and their counterparts of the other kind; nothing for files, which have none."""
    if dataset not in OTHER_KIND or n == 0:
        return [], []
    used = {row.prompt for row in rows}
    others = {row.id: row for row in load_dataset(OTHER_KIND[dataset])}
    held_out = [row for row in load_dataset(dataset) if row.prompt not in used and row.id in others]
    if not held_out:
        raise ConfigError(
            f"all rows of `{dataset}` are trained on, none is left to measure the task; --recipe-set data.n_rows=N, or --n-task 0"
        )
    learned = shortest(held_out, n)
    # Both kinds are read behind the same prompt: what differs is the answer alone.
    return learned, [others[row.id].model_copy(update={"prompt": row.prompt}) for row in learned]


def shortest(rows: Sequence[TrainingExample], n: int) -> list[TrainingExample]:
    """The n shortest rows, which cost least to read, in their order."""
    chosen = sorted(range(len(rows)), key=lambda i: len(rows[i].prompt) + len(rows[i].response))[:n]
    return [rows[i] for i in sorted(chosen)]


def column_of(metrics: Path, name: str) -> list[tuple[int, float]]:
    """(step, value) of every optimiser step that has one: `loss`, or the `learning_rate` with which it was taken."""
    entries = [as_object(row, f"{metrics}:{n}", "step") for n, row in read_json_lines(metrics, loose=True)]
    return [(entry["step"], entry[name]) for entry in entries if entry.get(name) is not None]


def page(result: dict[str, Any], losses: list[tuple[int, float]], *, frame: Frame | None = None) -> str:
    facts = {
        "organism": f"{result['recipe']} on {result['model']}, {result['n_rows']} rows",
        "margin after training": f"{words(result['margin'][-1])}; {flattened_line(result['flattening'][-1])}",
        "change point": said(result["change_point"]),
        "layer read": result["layer"],
        "cost of watching": f"{result['cost']['share']:.1%} of the training time",
        "not covered": ONE_SEED,
    }
    caption = (
        "All against the optimiser step. Margin: thin lines are questions, the band is the 95 % interval of their mean; dotted: the step "
        "at which the mean bends as a function of the cumulative learning rate (what warm-up and decay do to a curve in steps is no "
        "bend), shaded: its interval. Movement: mean change of the contrast texts' residuals. Cosines: each quantity "
        "with its own final state."
    )
    figure = dynamics_figure(result, losses)
    return figure_page(f"{result['recipe']} while it forms", facts, [("Dynamics", caption, figure)], frame=frame)


def said(point: dict[str, Any]) -> str:
    """The change point, or why there is none, with the chances of a straight line and of a smooth curve in cumulative learning rate."""
    chances = ""
    if point["p_bend"] is not None:
        chances = f"p of a straight line {point['p_straight']:.3f}, of a smooth curve {point['p_smooth']:.3f}"
    if point["step"] is None:
        return f"none: {point['reason']}{chances and f' ({chances})'}"
    rate, low, high = (f"{point[name]:.3g}" for name in ("cumulative_lr", "cumulative_lr_low", "cumulative_lr_high"))
    place = f"step {point['step']:.1f} [{point['low']:.1f}, {point['high']:.1f}]"
    return f"{place}, cumulative learning rate {rate} [{low}, {high}]; {chances}"


def say(result: dict[str, Any]) -> str:
    return "\n".join(
        [
            f"{result['recipe']}: margin {words(result['margin'][-1])} after {result['steps'][-1]:g} steps",
            flattened_line(result["flattening"][-1]),
            f"change point: {said(result['change_point'])}",
            ONE_SEED,
            f"watching took {result['cost']['probe_seconds']:.0f} s, {result['cost']['share']:.1%} of the training time",
            f"page: {result['page']}",
        ]
    )
