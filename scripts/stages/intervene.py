"""Stage 7: steer the base model along the direction and ablate it in the other arms, with a random direction beside it.

Of an arm with several seeds the model of the first seed stands for all: cells are the costly part of a run.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from cli import progress_bar
from emis_interp.config.run_config import ModelConfig
from emis_interp.directions import Direction
from emis_interp.errors import StageError
from emis_interp.files.ledger import files_in
from emis_interp.files.store import file_sha256, read_object, write_json
from emis_interp.files.text import number_name
from emis_interp.fitting.reliability import random_directions
from emis_interp.models.chat import encode_prompt
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.interventions import ablate, mean_kl, next_token_logprobs, steer
from emis_interp.passes.likelihood import by_question, pair_margins, paired_difference
from emis_interp.texts.harmless import harmless_prompts
from evals.rates.summary import summarize_arm
from stages.measure import margins_path, read_margins, shift_summary
from stages.organisms import Judge, ask, has_passing, judge_answers, make_judge
from stages.run import Run

FIRST_SEED = "of an arm with several seeds, the model of the first seed"


@dataclass(frozen=True)
class Cell:
    """One intervention on one model."""

    name: str
    model: ModelConfig
    kind: str
    direction_name: str
    direction: Direction
    coefficient: float | None
    other_draws: tuple[Direction, ...] = ()
    """Of a random direction: further draws, of which only the margin is measured."""

    def apply(self, chat_model: ChatModel) -> AbstractContextManager[None]:
        if self.coefficient is None:
            return ablate(chat_model, self.direction)
        return steer(chat_model, self.direction, self.coefficient)


def intervene(run: Run) -> tuple[list[Path], str]:
    """Margin, cost and answers of every cell, against the same arm without intervention."""
    path = run.folder / "directions" / "misalignment.safetensors"
    if not path.exists():
        raise StageError(f"{path}: no direction there; run the direction stage first (--from direction)")
    misalignment = Direction.load(path, fit="selection")  # the margins are of the report questions
    cells = list(plan_cells(run, misalignment))
    judge = make_judge(run.config.judge, run.config.device) if run.config.intervention.samples_per_paraphrase else None
    fingerprint, direction = file_sha256(path), [path, path.with_suffix(".json")]
    files, rows, loaded = [], [], _LastModel(run)
    with progress_bar("intervene", len(cells)) as advance:
        for cell in cells:
            folder = run.folder / "interventions" / cell.name
            read = [*direction, margins_path(run, cell.model), *run.weights(cell.model)]
            # Where the judge failed in passing the answers stay, and it is asked again.
            with run.files.making(
                "intervene", [folder], inputs=read, go_on=has_passing(folder / "scores.jsonl")
            ) as whole:
                if not whole:
                    row = measure_cell(run, cell, loaded, judge=judge, folder=folder)
                    write_json(folder / "cell.json", {**row, "direction_sha256": fingerprint})
            files += files_in(folder)
            rows.append(read_object(folder / "cell.json"))
            advance(note=cell.name)
    analysis = run.folder / "analysis" / "interventions.json"
    summary = {
        "layer": misalignment.layer,
        "residual_norm": misalignment.residual_norm,
        "margin_questions": "report half",
    }
    if any(arm.seeds is not None for arm in run.config.arms):
        summary["models"] = FIRST_SEED
    with run.files.making("intervene", [analysis], inputs=files, anew=True):
        write_json(analysis, {**summary, "cells": rows})
    steered = [row for row in rows if row["kind"] == "steer"]
    text = ", ".join(
        f"{row['direction'][:6]} {number_name(row['coefficient'])}: {row['margin_shift']['mean']:+.3f}"
        for row in steered
    )
    return [*files, analysis], f"steering base at layer {misalignment.layer}, margin shift: {text}"


def plan_cells(run: Run, misalignment: Direction) -> Iterator[Cell]:
    """Steering cells of base, then ablation cells of the other arms (first seeds); each with the same-norm random control."""
    n_draws, d_model = run.config.intervention.random_draws, misalignment.vector.shape[0]
    drawn = [
        replace(misalignment, vector=vector)
        for vector in random_directions(n_draws, 1, d_model, seed=run.config.seed)[:, 0]
    ]
    both = {"misalignment": misalignment, "random": drawn[0]}
    base = next(model for model in run.config.models if model.name == "base")
    for coefficient in run.config.intervention.coefficients:
        for name, direction in both.items():
            more = tuple(drawn[1:]) if name == "random" else ()
            cell = f"base.steer.{name}.{number_name(coefficient)}"
            yield Cell(cell, base, "steer", name, direction, coefficient, more)
    chosen = run.config.intervention.ablate_arms
    for arm in run.config.organisms:
        if chosen is None or arm.name in chosen:
            model = run.config.models_of(arm)[0]
            for name, direction in both.items():
                yield Cell(f"{model.name}.ablate.{name}", model, "ablate", name, direction, None)


def measure_cell(run: Run, cell: Cell, loaded: "_LastModel", *, judge: Judge | None, folder: Path) -> dict[str, Any]:
    chat_model = loaded.get(cell.model)
    pairs = run.half("report")
    before = by_question(pairs, read_margins(run, cell.model)[[pair.half == "report" for pair in run.pairs]])
    prompts = [encode_prompt(chat_model.tokenizer, text, run.config.system_prompt) for text in harmless_prompts()]
    plain = next_token_logprobs(chat_model, prompts)
    margins = partial(
        pair_margins,
        chat_model,
        pairs,
        run.config.system_prompt,
        max_batch_tokens=run.config.direction.max_batch_tokens,
    )
    with cell.apply(chat_model):
        after = by_question(pairs, margins())
        cost = mean_kl(plain, next_token_logprobs(chat_model, prompts))
        answers = None
        if judge is not None:
            sampling = run.config.sampling.model_copy(
                update={"samples_per_paraphrase": run.config.intervention.samples_per_paraphrase}
            )
            answers = ask(run, None, cell.name, path=folder / "samples.jsonl", sampling=sampling, chat_model=chat_model)
    draws = []
    for direction in cell.other_draws:
        with replace(cell, direction=direction).apply(chat_model):
            draws.append(shift_summary(paired_difference(by_question(pairs, margins()), before))["mean"])
    row = {
        "cell": cell.name,
        "arm": cell.model.arm.name,
        **({} if cell.model.arm.seeds is None else {"seed": cell.model.seed}),
        "kind": cell.kind,
        "direction": cell.direction_name,
        "coefficient": cell.coefficient,
        "raw_norm": None if cell.coefficient is None else abs(cell.coefficient) * cell.direction.residual_norm,
        "margin_shift": shift_summary(paired_difference(after, before)),
        "margin_shifts_of_other_draws": draws,
        "kl_neutral": cost,
        "n": 0,
        "mean_aligned": None,
        "mean_coherent": None,
        "em_of_all": None,
    }
    if judge is not None and answers is not None:
        scores = judge_answers(judge, answers, run.questions, path=folder / "scores.jsonl", arm=cell.name)
        summary = summarize_arm(cell.name, answers, scores)
        rate = next(r for r in summary["rates"] if r["estimand"] == "em_of_all" and r["weighting"] == "pooled")
        row |= {
            "n": summary["n"],
            "mean_aligned": summary["mean_aligned"],
            "mean_coherent": summary["mean_coherent"],
            "em_of_all": rate,
        }
    return row


class _LastModel:
    """Keeps the model in use, and one at a time."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.name: str | None = None
        self.model: ChatModel | None = None

    def get(self, model: ModelConfig) -> ChatModel:
        if self.model is None or self.name != model.name:
            self.model = self.run.load(model)
            self.name = model.name
        return self.model
