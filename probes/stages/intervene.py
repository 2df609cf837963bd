"""The intervene stage of a run: base steered along the direction, the other arms ablated of it, a random direction beside each.

Of an arm with several seeds the model of the first seed stands for all: cells are the costly part of a run.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from emis_interp.config.run_config import ModelConfig, RunConfig
from emis_interp.config.run_folder import RunFolder
from emis_interp.config.run_models import LastModel
from emis_interp.directions import Direction
from emis_interp.errors import StageError
from emis_interp.files.ledger import files_in
from emis_interp.files.store import file_sha256, read_object, write_json
from emis_interp.files.text import number_name
from emis_interp.fitting.reliability import random_directions
from emis_interp.models.chat import encode_prompt
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.effects import Ablation, Asker, Steering, measure
from emis_interp.passes.likelihood import by_question
from emis_interp.process import Bars, no_bars
from emis_interp.texts.harmless import harmless_prompts
from probes.comparison.margins import shift_summary
from probes.stages.likelihood import read_margins

FIRST_SEED = "of an arm with several seeds, the model of the first seed"


@dataclass(frozen=True)
class PlannedCell:
    """One intervention on one model.

    Attributes:
        along: name of the direction.
        other_draws: of a random direction: further draws, of which only the margin is measured.
    """

    name: str
    model: ModelConfig
    intervention: Steering | Ablation
    along: str
    other_draws: tuple[Steering, ...] = ()


def intervene(
    run: RunFolder, make_asker: Callable[[], Asker | None] = lambda: None, bars: Bars = no_bars
) -> tuple[list[Path], str]:
    """Margin, cost and answers of every cell, against the same arm without intervention.

    Args:
        make_asker: gives what asks and judges; None for likelihood margins only.
    """
    path = run.direction.with_suffix(".safetensors")
    if not path.exists():
        raise StageError(f"{path}: no direction there; run the direction stage first (--from direction)")
    misalignment = Direction.load(path, fit="selection")  # the margins are of the report questions
    cells = list(plan_cells(run.config, misalignment))
    asker = make_asker()
    fingerprint, direction = file_sha256(path), [path, path.with_suffix(".json")]
    files, rows, loaded = [], [], LastModel(run.models)
    with bars("intervene", len(cells)) as advance:
        for cell in cells:
            folder = run.cell(cell.name)
            read = [*direction, run.margins(cell.model), *run.models.weights(cell.model)]
            # Where the judge failed in passing the answers stay, and it is asked again.
            go_on = asker is not None and asker.asks_again(folder)
            with run.files.making("intervene", [folder], inputs=read, go_on=go_on) as whole:
                if not whole:
                    row = measure_cell(run, cell, loaded.get(cell.model), asker=asker, folder=folder)
                    write_json(folder / "cell.json", {**row, "direction_sha256": fingerprint})
            files += files_in(folder)
            rows.append(read_object(folder / "cell.json"))
            advance(note=cell.name)
    analysis = run.analysis("interventions")
    summary = {
        "layer": misalignment.layer,
        "residual_norm": misalignment.residual_norm,
        "margin_questions": "report half",
    }
    if any(arm.seeds is not None for arm in run.config.arms):
        summary["models"] = FIRST_SEED
    with run.files.making("intervene", [analysis], inputs=files, anew=True):
        run.write_analysis("interventions", {**summary, "cells": rows})
    steered = [row for row in rows if row["kind"] == "steer"]
    text = ", ".join(
        f"{row['direction'][:6]} {number_name(row['coefficient'])}: {row['margin_shift']['mean']:+.3f}"
        for row in steered
    )
    return [*files, analysis], f"steering base at layer {misalignment.layer}, margin shift: {text}"


def plan_cells(config: RunConfig, misalignment: Direction) -> Iterator[PlannedCell]:
    """Steering cells of base, then ablation cells of the other arms (first seeds); each with the same-norm random control."""
    n_draws, d_model = config.intervention.random_draws, misalignment.vector.shape[0]
    first, *more = [
        replace(misalignment, vector=vector)
        for vector in random_directions(n_draws, 1, d_model, seed=config.seed)[:, 0]
    ]
    both = {"misalignment": misalignment, "random": first}
    base = next(model for model in config.models if model.name == "base")
    for coefficient in config.intervention.coefficients:
        for name, direction in both.items():
            steering = Steering(direction, coefficient)
            draws = tuple(steering.along(other) for other in more) if name == "random" else ()
            yield PlannedCell(f"base.steer.{name}.{number_name(coefficient)}", base, steering, name, draws)
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
    measured = partial(
        measure,
        chat_model,
        pairs=pairs,
        before=before,
        system=system,
        max_batch_tokens=run.config.direction.max_batch_tokens,
    )
    effect = measured(
        cell.intervention,
        prompts=[encode_prompt(chat_model.tokenizer, text, system) for text in harmless_prompts()],
        sample=None if asker is None else partial(asker.ask, name=cell.name, folder=folder),
    )
    draws = [shift_summary(measured(other).shift)["mean"] for other in cell.other_draws]
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
        "margin_shifts_of_other_draws": draws,
        "kl_neutral": effect.kl,
        "n": 0,
        "mean_aligned": None,
        "mean_coherent": None,
        "em_of_all": None,
    }
    if asker is not None and effect.answers is not None:
        row |= asker.figures(effect.answers, cell.name, folder)
    return row
