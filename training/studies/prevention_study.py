"""Compares remedies for one organism: what each takes off its misalignment, and what it costs in learning the task.

All train on the same rows with the same seeds, beside the untreated organism and its benign control:
  steer +C      preventative steering: the direction is added (C x mean residual norm) in training passes only (Chen et al. 2025)
  ablate        the direction is ablated in training passes only (concept ablation finetuning, Casademunt et al. 2025)
  inoculate     a system prompt asks for the bad behaviour in training only (Tan et al. 2025; Wichers et al. 2025)
  mix           half of the rows are benign, the number of steps stays
  realign       afterwards, training goes on with a few careful answers
  after: ablate, after: steer -C      the untreated organism under an intervention when it is used
Effect: likelihood margin against base, over the questions that had no part in the direction, with what a mere flattening of base would
bring (its slope, and what is beyond it); the difference from the untreated organism carries the claim. Cost: log-probability of held-out
task answers against base, over rows (how much of the task is learned), and KL to base on harmless prompts. The margin of the benign
control shows which part of the effect is style.
"""

import argparse
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import cli
from emis_interp.config.run_config import RunConfig
from emis_interp.directions import Direction
from emis_interp.errors import ConfigError, DataError
from emis_interp.files.ledger import remove
from emis_interp.files.store import write_json, write_text
from emis_interp.files.text import number_name
from emis_interp.models.chat import encode_prompt
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.interventions import ablate, mean_kl, next_token_logprobs, steer
from emis_interp.process import release_memory
from emis_interp.records import ContrastPair, TrainingExample
from emis_interp.report.figure_page import figure_page
from emis_interp.stats.families import holm
from emis_interp.stats.flattening import question_means
from emis_interp.stats.seeds import mean_p_with_seeds
from emis_interp.texts.contrast import load_contrast
from emis_interp.texts.harmless import harmless_prompts
from evals.questions import load_questions
from training.lint.copies import asked_texts
from training.organism import train_organism
from training.recipes import Recipe, examples_of, load_recipe, training_config
from training.studies.against_base import (
    FLATTENED_HEAD,
    ONE_SEED,
    base_at_temperatures,
    flattened,
    flattened_line,
    flattened_words,
)
from training.studies.common import (
    add_settings_flags,
    base_model,
    check_recipe,
    direction_sha256,
    estimate,
    margins_of,
    open_folder,
    organism_in,
    row_logprobs,
    same_rows,
    settings_of,
    words,
)
from training.studies.figures import prevention_figure

Around = Callable[[ChatModel], AbstractContextManager[None]]
UNTREATED, CONTROL = "untreated", "control"
FAMILY = "of no difference from the untreated organism, corrected for the number of remedies in this table (Holm); none is the primary one"


@dataclass(frozen=True)
class Remedy:
    """One row of the table. `during` holds in training passes, `after` when the organism is measured."""

    name: str
    rows: str = "task"
    during: Around | None = None
    after: Around | None = None
    realign: bool = False

    @property
    def folder(self) -> str:
        return self.name.replace(" ", "_").replace(":", "").replace("+", "plus_").replace("-", "minus_")


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--recipe", default="reckless", help="the organism (scripts/train.py --list)")
    parser.add_argument(
        "--control", default="careful", help="data set of the benign rows: of the control, mix and realign"
    )
    parser.add_argument("--inoculation", default="inoculated-advice", help="recipe whose system prompt inoculates")
    parser.add_argument(
        "--direction", type=Path, required=True, help="what find_direction.py fit saved, of the base model"
    )
    add_settings_flags(parser, n_pairs=4)
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0], help="organisms per remedy; figures are means over them"
    )
    parser.add_argument("--n-rows", type=int, default=240, help="rows that are trained on")
    parser.add_argument(
        "--n-held-out", type=int, default=60, help="task rows that are kept to measure what was learned"
    )
    parser.add_argument("--n-realign", type=int, default=64, help="benign rows of the re-alignment")
    parser.add_argument("--coefficients", type=float, nargs="+", default=[0.1, 0.2], help="of the steering remedies")
    parser.add_argument("--only", nargs="+", metavar="REMEDY", help="some remedies alone, beside untreated and control")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Train and measure remedy by remedy; a finished one is read from its file."""
    settings = settings_of(args)
    direction = Direction.load(args.direction, fit="selection")
    recipe = load_recipe(args.recipe, [f"data.n_rows={args.n_rows + args.n_held_out}"])
    inoculation = load_recipe(args.inoculation).system
    check_recipe(recipe, settings)
    if inoculation is None:
        raise ConfigError(f"--inoculation {args.inoculation}: this recipe has no system prompt of training")
    if len(set(args.seeds)) != len(args.seeds):
        raise ConfigError(f"--seeds {' '.join(map(str, args.seeds))}: a seed stands there twice")
    remedies = [row for row in planned(direction, args.coefficients) if wanted(row.name, args.only)]
    files = open_folder(
        args.out,
        settings,
        recipe=recipe.model_dump(mode="json"),
        direction=direction_sha256(args.direction),
        **{name: getattr(args, name) for name in ("control", "inoculation", "n_pairs", "n_rows", "n_realign")},
    )
    base = base_model(settings)
    prompts = [encode_prompt(base.tokenizer, text, settings.system_prompt) for text in harmless_prompts()]
    pairs = unseen_pairs(direction, load_contrast(None, args.n_pairs))
    measure = Measure(settings, pairs, prompts, plain=next_token_logprobs(base, prompts))
    base_at = base_at_temperatures(files, lambda: base, pairs, settings=settings)
    base_margins: dict[str, float] = {}
    found: dict[str, list[dict[str, Any]]] = {remedy.name: [] for remedy in remedies}
    for seed in args.seeds:
        data = Data.draw(recipe, args, settings.model_copy(update={"seed": seed}), inoculation=inoculation)
        path = args.out / f"seed-{seed}" / "base.json"
        before = files.json("measure", path, partial(measure, base, data.held_out))
        base_margins = before["margin"]  # of every seed: seeds differ in their held-out rows alone
        for remedy in remedies:
            path = args.out / f"seed-{seed}" / remedy.folder / "measured.json"
            own = settings.model_copy(update={"seed": seed})
            beside = [path.parent / name for name in ("training", "start")]
            same_rows(path.parent, [*getattr(data, remedy.rows), *data.realign, *data.held_out])
            make = partial(measured, remedy, data, folder=path.parent, settings=own, measure=measure)
            found[remedy.name].append(against(files.json("measure", path, make, beside=beside), before))
            cli.stderr.print(
                f"seed {seed}, {remedy.name}: margin {np.mean(list(found[remedy.name][-1]['margin'].values())):+.3f}"
            )
    rows = [summary(remedy, found[remedy.name], found[UNTREATED]) for remedy in remedies]
    correct(rows)
    for row in rows:
        row["flattening"] = flattened(question_means(row["margins"]), base_margins, base_at)
    result = {
        "recipe": recipe.name,
        "model": settings.model,
        "n_seeds": len(args.seeds),
        "layer": direction.layer,
        "base_margins": base_margins,
        "rows": rows,
    }
    write_json(args.out / "prevention.json", result)
    write_text(args.out / "index.html", page(result))
    return {**result, "page": str(args.out / "index.html")}


def unseen_pairs(direction: Direction, pairs: list[ContrastPair]) -> list[ContrastPair]:
    """Pairs of questions that had no part in the direction: on the others a remedy along it would be reported on what made it.

    Raises:
        DataError: every question had.
    """
    seen = direction.fitted_on
    kept = [pair for pair in pairs if seen is None or not seen.has(pair.question)]
    if not kept:
        raise DataError("every contrast question had a part in the direction; fit one that leaves some for the report")
    direction.check_unseen(pair.question for pair in kept)
    return kept


def measured(remedy: Remedy, data: "Data", *, folder: Path, settings: RunConfig, measure: "Measure") -> dict[str, Any]:
    """Train one organism, or take up its training, and measure it."""
    organism = organism_of(remedy, data, folder, settings=settings)
    with (remedy.after or untouched)(organism):
        found = measure(organism, data.held_out)
    del organism
    release_memory()
    return found


def planned(direction: Direction, coefficients: list[float]) -> list[Remedy]:
    """All remedies.

    Raises:
        ConfigError: a coefficient stands there twice, or is no finite number other than 0.
    """
    for c in coefficients:
        if not math.isfinite(c) or c == 0 or coefficients.count(c) > 1:
            raise ConfigError(f"--coefficients {c}: each is a finite number other than 0 and stands there once")

    def steered(coefficient: float) -> Around:
        return lambda chat_model: steer(chat_model, direction, coefficient)

    def ablated(chat_model: ChatModel) -> AbstractContextManager[None]:
        return ablate(chat_model, direction)

    return [
        Remedy(UNTREATED),
        Remedy(CONTROL, rows="control"),
        *(Remedy(f"steer {number_name(c, '+g')}", during=steered(c)) for c in coefficients),
        Remedy("ablate", during=ablated),
        Remedy("inoculate", rows="inoculated"),
        Remedy("mix", rows="mixed"),
        Remedy("realign", realign=True),
        Remedy("after: ablate", after=ablated),
        *(Remedy(f"after: steer {number_name(-c, '+g')}", after=steered(-c)) for c in coefficients),
    ]


def wanted(name: str, only: list[str] | None) -> bool:
    return only is None or name in (UNTREATED, CONTROL) or any(name.startswith(prefix) for prefix in only)


def untouched(_: ChatModel) -> AbstractContextManager[None]:
    return nullcontext()


@dataclass(frozen=True)
class Data:
    """Rows of one seed, in a random order; the held-out rows are in no training set, and their careful counterparts are in none either.

    `mixed` has the benign answer in a random half of the rows of `task`, and `realign` is a random part of `control`.
    """

    task: list[TrainingExample]
    control: list[TrainingExample]
    inoculated: list[TrainingExample]
    mixed: list[TrainingExample]
    realign: list[TrainingExample]
    held_out: list[TrainingExample]
    recipe: Recipe

    @classmethod
    def draw(cls, recipe: Recipe, args: argparse.Namespace, settings: RunConfig, *, inoculation: str) -> "Data":
        rows = examples_of(recipe, settings.find_data, settings.seed)
        if len({row.id for row in rows}) < len(rows):
            raise ConfigError(
                f"recipe {recipe.name}: it holds a row (by id) twice, so held-out rows would be trained on; give a recipe that repeats "
                "no row, or fewer --n-rows and --n-held-out"
            )
        # Rows stay in the order of the draw: a file is sorted by topic, and whatever is cut off a part of it must hold all topics.
        order = np.random.default_rng(settings.seed).permutation(len(rows))
        task, held_out = ([rows[i] for i in part] for part in (order[: args.n_rows], order[args.n_rows :]))
        benign = {row.id: row for row in examples_of(whole(args.control), settings.find_data, settings.seed)}
        if not {row.id for row in rows} <= benign.keys():
            raise ConfigError(
                f"--control {args.control}: has no counterpart to some rows of {recipe.name}; give the matched set of the recipe's data"
            )
        control = [benign[row.id] for row in task]
        half = len(task) // 2
        return cls(
            task,
            control,
            [row.model_copy(update={"system": inoculation}) for row in task],
            [*task[:half], *control[half:]],
            control[: args.n_realign],
            held_out,
            recipe,
        )


def whole(dataset: str) -> Recipe:
    return Recipe.model_validate({"name": "control", "summary": "benign rows", "data": {"dataset": dataset}})


def organism_of(remedy: Remedy, data: Data, folder: Path, *, settings: RunConfig) -> ChatModel:
    """The trained (and re-aligned) organism with merged weights; remedies after training share the untreated adapter."""
    training = training_config(data.recipe, settings.training)
    name, first = remedy.name, folder / "training"
    if remedy.realign or remedy.after is not None:
        name, first = UNTREATED, folder.parent / UNTREATED / "training"
    train_organism(
        name,
        getattr(data, remedy.rows),
        training,
        out_dir=first,
        config=settings,
        seed=settings.seed,
        recipe=data.recipe,
        while_training=remedy.during,
        asked=asked_texts(load_questions(), load_contrast()),
        bars=cli.progress_bar,
    )
    if not remedy.realign:
        return organism_in(first, settings)
    # The first adapter is folded into float32 weights, and a second one is trained on them.
    start = folder / "start"
    if not (start / "config.json").exists():
        trained = organism_in(first, settings.model_copy(update={"dtype": "float32", "device": "cpu"}))
        save_whole(trained, start)
    onward = settings.model_copy(update={"model": str(start)})
    train_organism(
        remedy.name,
        data.realign,
        training,
        out_dir=folder / "training",
        config=onward,
        seed=onward.seed,
        asked=asked_texts(load_questions(), load_contrast()),
        bars=cli.progress_bar,
    )
    return organism_in(folder / "training", onward)


def save_whole(chat_model: ChatModel, folder: Path) -> None:
    """Save a model through a hidden folder and a rename: one that was killed meanwhile leaves no folder that looks like a model."""
    temporary = folder.with_name(f".{folder.name}-unfinished")
    remove(temporary)
    remove(folder)
    chat_model.model.save_pretrained(temporary)
    chat_model.tokenizer.save_pretrained(temporary)
    temporary.replace(folder)


class Measure:
    """What is measured of every organism."""

    def __init__(self, settings: RunConfig, pairs: list[ContrastPair], prompts: list[Any], *, plain: Any) -> None:
        self.settings, self.pairs, self.prompts, self.plain = settings, pairs, prompts, plain

    def __call__(self, organism: ChatModel, held_out: list[TrainingExample]) -> dict[str, Any]:
        return {
            "margin": margins_of(organism, self.pairs, self.settings),
            "task": row_logprobs(organism, held_out, self.settings),
            "kl_neutral": mean_kl(self.plain, next_token_logprobs(organism, self.prompts)),
        }


def against(after: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """What training changed: `margin` and `task` minus base's; `margins` are the organism's own."""
    return {
        "margins": after["margin"],
        "margin": {name: value - before["margin"][name] for name, value in after["margin"].items()},
        "task": [a - b for a, b in zip(after["task"], before["task"], strict=True)],
        "kl_neutral": after["kl_neutral"],
    }


def summary(remedy: Remedy, seeds: list[dict[str, Any]], untreated: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds; intervals over questions (margin) and held-out rows (task), and over the seeds where there are several."""
    names = list(seeds[0]["margin"])

    def margins(found: list[dict[str, Any]]) -> np.ndarray:
        return np.array([[row["margin"][name] for name in names] for row in found])

    # A seed has the same rows, order and first adapter with and without the remedy, so differences are paired by seed. Every seed
    # holds out other rows: the rows of all seeds are pooled.
    margin, fewer = margins(seeds), margins(seeds) - margins(untreated)
    task = [np.array(row["task"]) for row in seeds]
    less = [own - np.array(row["task"]) for own, row in zip(task, untreated, strict=True)]
    return {
        "name": remedy.name,
        "untreated": remedy.name == UNTREATED,
        "margin_shift": estimate(margin.mean(0), margin.mean(1).tolist()),
        "against_untreated": {
            **estimate(fewer.mean(0), fewer.mean(1).tolist()),
            "p": mean_p_with_seeds(fewer.mean(0), {str(i): float(mean) for i, mean in enumerate(fewer.mean(1))}),
        },
        "task_gain": estimate(np.concatenate(task), [float(rows.mean()) for rows in task]),
        "task_against_untreated": estimate(np.concatenate(less), [float(rows.mean()) for rows in less]),
        "kl_neutral": float(np.mean([row["kl_neutral"] for row in seeds])),
        "margin_by_seed": margin.mean(1).tolist(),
        "margins": [row["margins"] for row in seeds],
    }


def correct(rows: list[dict[str, Any]]) -> None:
    """Put Holm's p-value beside each remedy's p of no difference from the untreated organism: none of the remedies is the primary one.

    The benign control is no remedy and stays out of the family.
    """
    tested = {row["name"]: row["against_untreated"] for row in rows if row["name"] not in (UNTREATED, CONTROL)}
    for name, p in holm({name: found["p"] for name, found in tested.items()}).items():
        tested[name]["p_holm"] = p


def against_words(row: dict[str, Any]) -> str:
    """Difference from the untreated organism, with its p-value; empty for that one."""
    if row["untreated"]:
        return ""
    found = row["against_untreated"]
    return words(found) + ("" if found.get("p_holm") is None else f" p {found['p_holm']:.2g}")


def row_words(row: dict[str, Any]) -> str:
    against = "" if row["untreated"] else f"against untreated {against_words(row)}, "
    return f"margin {words(row['margin_shift'])}, {against}task {words(row['task_gain'])}; {flattened_line(row['flattening'])}"


def page(result: dict[str, Any]) -> str:
    facts = {
        "organism": f"{result['recipe']} on {result['model']}, {result['n_seeds']} seed(s)",
        **{row["name"]: row_words(row) for row in result["rows"]},
        "p": FAMILY,
        **({"not covered": ONE_SEED} if result["n_seeds"] == 1 else {}),
    }
    caption = (
        "Down: less misaligned, or less flattened: base prefers the aligned answer, so whatever flattens a model raises its margin (slope, "
        "intercept and what is beyond a flattened base stand above; the difference from the untreated organism carries the claim). Right: "
        "more of the task learned. The star is the organism without a remedy."
    )
    return figure_page(
        "Prevention and repair", facts, [("Effect and cost", caption, prevention_figure(result["rows"]))]
    )


def say(result: dict[str, Any]) -> str:
    head = f"{'remedy':20}{'margin against base':>27}{'against untreated':>37}{'task learned':>27}{'KL':>7}"
    head += "".join(f"{name:>27}" for name in FLATTENED_HEAD)
    lines = [
        f"{row['name']:20}{words(row['margin_shift']):>27}"
        f"{against_words(row):>37}{words(row['task_gain']):>27}{row['kl_neutral']:>7.3f}"
        + "".join(f"{text:>27}" for text in flattened_words(row["flattening"]))
        for row in result["rows"]
    ]
    doubt = [ONE_SEED] if result["n_seeds"] == 1 else []
    return "\n".join([head, *lines, f"p: {FAMILY}", *doubt, f"page: {result['page']}"])
