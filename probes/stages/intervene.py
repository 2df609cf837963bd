"""The intervene stage of a run: base steered along the direction, the other arms ablated of it, control directions beside each.

Of an arm with several seeds the model of the first seed stands for all: cells are the costly part of a run.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from emis_interp.config.run_config import ModelConfig, RunConfig
from emis_interp.config.run_folder import RunFolder
from emis_interp.config.run_models import LastModel
from emis_interp.directions import Direction
from emis_interp.errors import StageError
from emis_interp.files.ledger import files_in
from emis_interp.files.store import file_sha256, read_object, write_json
from emis_interp.files.tensors import load_tensors
from emis_interp.files.text import number_name
from emis_interp.fitting.labeled import LabeledActivations
from emis_interp.fitting.reliability import control_directions, random_directions
from emis_interp.models.chat import encode_prompt
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.effects import Ablation, Asker, Steering, measure
from emis_interp.passes.likelihood import by_question
from emis_interp.process import Bars, each, no_bars
from emis_interp.texts.contrast import at_most, labeled_texts
from emis_interp.texts.harmless import harmless_prompts
from probes.comparison.margins import shift_summary
from probes.effects.draws import drawn_effects, interaction
from probes.stages.likelihood import read_margins

MISALIGNMENT = "misalignment"
KINDS = ("random", "orthogonal")
"""Of controls: isotropic, and as large a part of natural variation as texts have (usage-matched; `control_directions`)."""
DRAW_PAIRS = 2
"""Pairs of each report question on which the direction and its controls are set against each other."""
FIRST_SEED = "of an arm with several seeds, the model of the first seed"


@dataclass(frozen=True)
class PlannedCell:
    """One intervention on one model.

    Attributes:
        along: name of the direction; beside the one called `misalignment` control directions are measured (`probes.effects.draws`).
    """

    name: str
    model: ModelConfig
    intervention: Steering | Ablation
    along: str


def intervene(
    run: RunFolder, make_asker: Callable[[], AbstractContextManager[Asker | None]] = nullcontext, bars: Bars = no_bars
) -> tuple[list[Path], str]:
    """Margin, cost and answers of every cell, against the same arm without intervention.

    Args:
        make_asker: gives what asks and judges, for as long as it is needed; None for likelihood margins only.
    """
    path = run.direction.with_suffix(".safetensors")
    if not path.exists():
        raise StageError(f"{path}: no direction there; run the direction stage first (--from direction)")
    misalignment = Direction.load(path, fit="selection")  # the margins are of the report questions
    cells, files, rows = list(plan_cells(run.config, misalignment)), [], []
    with make_asker() as asker:
        for folder in measured_cells(run, misalignment, cells, asker=asker, bars=bars):
            files += files_in(folder)
            rows.append(read_object(folder / "cell.json"))
    analysis = run.analysis("interventions")
    summary = {
        "layer": misalignment.layer,
        "residual_norm": misalignment.residual_norm,
        "margin_questions": "report half",
    }
    if any(arm.seeds is not None for arm in run.config.arms):
        summary["models"] = FIRST_SEED
    with run.files.making("intervene", [analysis], inputs=files, anew=True):
        run.write_analysis("interventions", {**summary, "interactions": interactions(run.config, rows), "cells": rows})
    steered = [row for row in rows if row["kind"] == "steer"]
    text = ", ".join(
        f"{row['direction']} {number_name(row['coefficient'])}: {row['margin_shift']['mean']:+.3f}" for row in steered
    )
    return [*files, analysis], f"steering base at layer {misalignment.layer}, margin shift: {text}"


def measured_cells(
    run: RunFolder, misalignment: Direction, cells: Sequence[PlannedCell], *, asker: Asker | None, bars: Bars
) -> Iterator[Path]:
    """The folder of every cell, once it is measured."""
    controls, loaded = control_vectors(run, misalignment), LastModel(run.models)
    path = run.direction.with_suffix(".safetensors")
    fingerprint = file_sha256(path)
    direction = [path, path.with_suffix(".json"), run.activations(base_of(run.config), "contrast")]
    for cell in each(bars, "cell", cells):
        folder = run.cell(cell.name)
        read = [*direction, run.margins(cell.model), *run.models.weights(cell.model)]
        # Where the judge failed in passing the answers stay, and it is asked again.
        go_on = asker is not None and asker.asks_again(folder)
        with run.files.making("intervene", [folder], inputs=read, go_on=go_on) as whole:
            if not whole:
                row = measure_cell(run, cell, loaded.get(cell.model), asker=asker, folder=folder)
                if cell.along == MISALIGNMENT:
                    row["draws"] = drawn_effects(
                        loaded.get(cell.model),
                        cell.intervention,
                        controls,
                        pairs=at_most(run.half("report"), DRAW_PAIRS),
                        system=run.config.system_prompt,
                        max_batch_tokens=run.config.direction.max_batch_tokens,
                    )
                write_json(folder / "cell.json", {**row, "direction_sha256": fingerprint})
        yield folder


def base_of(config: RunConfig) -> ModelConfig:
    """The untouched model that every configuration has."""
    return next(model for model in config.models if model.name == "base")


def control_vectors(run: RunFolder, misalignment: Direction) -> dict[str, Tensor]:
    """`random_draws` unit vectors of each kind, from base's activations on the questions that the direction was fitted on."""
    labels = labeled_texts(run.pairs)
    data = LabeledActivations(
        load_tensors(run.activations(base_of(run.config), "contrast"))[0]["x"],
        np.array([text.misaligned for text in labels]),
        tuple(text.question_id for text in labels),
    )
    seen = data.only({pair.question_id for pair in run.half("selection")}).at([misalignment.layer])
    found = control_directions(seen, misalignment.vector, run.config.intervention.random_draws, seed=run.config.seed)
    return {kind: found[kind] for kind in KINDS if kind in found}


def interactions(config: RunConfig, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For every arm with a control, both ablated: does the direction matter more in the arm (`probes.effects.draws.interaction`)?"""
    drawn = {row["arm"]: row["draws"]["by_question"] for row in rows if row["kind"] == "ablate" and row.get("draws")}
    return [
        {"arm": arm.name, "reference": arm.contrast, **interaction(drawn[arm.name], drawn[arm.contrast], "random")}
        for arm in config.organisms
        if arm.contrast in drawn and arm.name in drawn
    ]


def plan_cells(config: RunConfig, misalignment: Direction) -> Iterator[PlannedCell]:
    """Steering cells of base, then ablation cells of the other arms (first seeds); each with the same-norm random control."""
    vector = random_directions(1, 1, misalignment.vector.shape[0], seed=config.seed)[0, 0]
    both = {MISALIGNMENT: misalignment, "random": replace(misalignment, vector=vector)}
    base = base_of(config)
    for coefficient in config.intervention.coefficients:
        for name, direction in both.items():
            steering = Steering(direction, coefficient)
            yield PlannedCell(f"base.steer.{name}.{number_name(coefficient)}", base, steering, name)
    chosen = config.intervention.ablate_arms
    for arm in config.organisms:
        if chosen is None or arm.name in chosen:
            model = config.models_of(arm)[0]
            for name, direction in both.items():
                yield PlannedCell(f"{model.name}.ablate.{name}", model, Ablation(direction), name)


def measure_cell(
    run: RunFolder, cell: PlannedCell, chat_model: ChatModel, *, asker: Asker | None, folder: Path
) -> dict[str, Any]:
    """What cell.json holds of a cell."""
    pairs, system = run.half("report"), run.config.system_prompt
    before = by_question(pairs, read_margins(run, cell.model)[[pair.half == "report" for pair in run.pairs]])
    effect = measure(
        chat_model,
        cell.intervention,
        pairs,
        before=before,
        system=system,
        max_batch_tokens=run.config.direction.max_batch_tokens,
        prompts=[encode_prompt(chat_model.tokenizer, text, system) for text in harmless_prompts()],
        sample=None if asker is None else partial(asker.ask, name=cell.name, folder=folder, under=cell.intervention),
    )
    added = cell.intervention if isinstance(cell.intervention, Steering) else None
    row = {
        "cell": cell.name,
        "arm": cell.model.arm.name,
        **({} if cell.model.arm.seeds is None else {"seed": cell.model.seed}),
        "kind": "ablate" if added is None else "steer",
        "direction": cell.along,
        "coefficient": None if added is None else added.coefficient,
        "raw_norm": None if added is None else added.raw_norm,
        "margin_shift": shift_summary(effect.shift),
        "kl_neutral": effect.kl,
        "n": 0,
        "mean_aligned": None,
        "mean_coherent": None,
        "em_of_all": None,
    }
    if asker is not None and effect.answers is not None:
        row |= asker.figures(effect.answers, cell.name, folder)
    return row
