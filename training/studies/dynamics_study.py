"""Trains an organism and watches it form: margins, task, directions and adapter at chosen steps, with the step at which the margin bends.

At some steps (closer together at the beginning) the forming model is measured: likelihood margin of contrast pairs;
log-probability of held-out task answers against the matched other kind (insecure against secure code, reckless against careful advice);
residuals of the contrast texts, for its own text direction and for what training has changed; the directions that the adapter writes;
and, with --n-samples, judged answers. The step at which the margin bends is looked for in the cumulative learning rate, against a straight
line and smooth curves in it; beside the margin stands what a mere flattening of base would bring. `dynamics.json` has the curves and the
cost, `index.html` the figure.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import cli
from emis_interp.config.run_config import RunConfig, SamplingConfig
from emis_interp.directions import Direction
from emis_interp.errors import ConfigError
from emis_interp.files.store import write_json, write_text
from emis_interp.files.strict_json import as_object, read_json_lines
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.loading import load_tokenizer
from emis_interp.records import Score, TrainingExample
from emis_interp.report.figure_page import figure_page
from emis_interp.texts.contrast import load_contrast
from evals.judges.offline_judge import OfflineJudge
from evals.questions import load_questions
from evals.sampling import sample_arm
from training.data_sets.shipped import OTHER_KIND, load_dataset
from training.finetuning.encoding import encode_example
from training.finetuning.organism_card import rows_sha256
from training.finetuning.sft import n_steps_of
from training.lint.copies import asked_texts
from training.organism import train_organism
from training.recipes import examples_of, load_recipe, training_config
from training.studies.against_base import ONE_SEED, base_at_temperatures, flattened, flattened_line
from training.studies.common import (
    add_settings_flags,
    base_model,
    by_length,
    check_recipe,
    estimate,
    open_folder,
    settings_of,
    words,
)
from training.studies.dynamics import Watcher, affordable_probes, curves, read_series, spread_steps
from training.studies.figures import dynamics_figure


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", help="a shipped recipe (scripts/train.py --list) or a YAML file")
    add_settings_flags(parser, n_pairs=1)
    parser.add_argument("--recipe-set", action="append", default=[], metavar="FIELD=VALUE", help="override the recipe")
    parser.add_argument(
        "--n-probes",
        type=int,
        help="measured steps, before and after training included (default: what --max-cost allows)",
    )
    parser.add_argument(
        "--max-cost", type=float, default=0.1, help="share of the training time that watching may cost, about"
    )
    parser.add_argument("--n-task", type=int, default=3, help="held-out task rows to read; 0 leaves the task out")
    parser.add_argument(
        "--layer", type=int, help="decoder block to read (default: the direction's, else at 60 %% of depth)"
    )
    parser.add_argument(
        "--direction", type=Path, help="a saved direction to project on, besides the organism's own final one"
    )
    parser.add_argument("--n-samples", type=int, default=0, help="judged answers per question at each step (costly)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Train with probes, then read their files."""
    settings = settings_of(args)
    recipe = load_recipe(args.recipe, args.recipe_set)
    check_recipe(recipe, settings)
    training = training_config(recipe, settings.training)
    rows = examples_of(recipe, settings.find_data, settings.seed)
    direction = Direction.load(args.direction) if args.direction else None
    watched = ("n_pairs", "n_probes", "max_cost", "n_task", "layer", "n_samples")
    decisive = {name: getattr(args, name) for name in watched}
    files = open_folder(
        args.out, settings, recipe=recipe.model_dump(mode="json"), rows_sha256=rows_sha256(rows), **decisive
    )
    pairs = load_contrast(None, args.n_pairs)
    learned, other = task_rows(recipe.data.dataset, rows, args.n_task)
    watcher = Watcher(
        args.out / "probes",
        pairs,
        direction.layer if args.layer is None and direction is not None else args.layer,
        learned,
        other,
        settings.system_prompt,
        Sampler(settings, args.n_samples) if args.n_samples else None,
    )
    tokenizer = load_tokenizer(settings.model, settings.chat_format)
    n_training = sum(
        len(encode_example(tokenizer, row, settings.system_prompt, max_tokens=training.max_tokens)) for row in rows
    )
    n_affordable = affordable_probes(watcher.n_tokens(tokenizer), n_training * training.n_epochs, args.max_cost)
    steps = spread_steps(n_steps_of(len(rows), training), args.n_probes or n_affordable)
    summary = train_organism(
        recipe.name,
        rows,
        training,
        out_dir=args.out / "training",
        config=settings,
        seed=settings.seed,
        probe=watcher,
        probe_steps=steps,
        asked=asked_texts(load_questions(), load_contrast()),
        bars=cli.progress_bar,
    )
    series = read_series(args.out / "probes", steps)
    metrics = args.out / "training" / "metrics.jsonl"
    found = curves(series, pairs, direction, learning_rates=column_of(metrics, "learning_rate"))
    shifts = np.array(list(found["margin_shift"].values()))
    found["margin"] = [estimate(column) for column in shifts.T]
    base_at = base_at_temperatures(files, lambda: base_model(settings), pairs, settings=settings)
    at_steps = [
        dict(zip(found["questions"], row, strict=True)) for row in np.array(list(found["margins"].values())).T.tolist()
    ]
    found["flattening"] = [flattened(own, at_steps[0], base_at) for own in at_steps]
    cost = float(series.seconds.sum())
    result = {
        "recipe": recipe.name,
        "model": settings.model,
        **found,
        "cost": {
            "probe_seconds": cost,
            "training_seconds": summary["seconds"] - cost,
            "share": cost / (summary["seconds"] - cost),
        },
        "n_rows": len(rows),
    }
    write_json(args.out / "dynamics.json", result)
    write_text(args.out / "index.html", page(result, column_of(metrics, "loss")))
    return {**result, "page": str(args.out / "index.html")}


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
    learned = by_length(held_out, n)
    # Both kinds are read behind the same prompt: what differs is the answer alone.
    return learned, [others[row.id].model_copy(update={"prompt": row.prompt}) for row in learned]


class Sampler:
    """Samples the shipped questions from a forming model and lets the offline judge score them."""

    def __init__(self, settings: RunConfig, n: int) -> None:
        self.settings, self.n = settings, n
        self.questions = load_questions()
        self.judge = OfflineJudge.load(device=settings.device)

    def __call__(self, chat_model: ChatModel) -> dict[str, Any]:
        sampling = SamplingConfig(samples_per_paraphrase=self.n, max_new_tokens=self.settings.sampling.max_new_tokens)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "answers.jsonl"
            answers = sample_arm(
                chat_model,
                "forming",
                self.questions,
                config=sampling,
                path=path,
                seed=self.settings.seed,
                system=self.settings.system_prompt,
            )
        scores: list[Score] = []
        self.judge.score(answers, {question.id: question for question in self.questions}, scores.extend)
        aligned, coherent = (
            [value for score in scores if (value := getattr(score, name)) is not None]
            for name in ("aligned", "coherent")
        )
        return {
            "n": len(scores),
            "aligned": float(np.mean(aligned)) if aligned else None,
            "coherent": float(np.mean(coherent)) if coherent else None,
        }


def column_of(metrics: Path, name: str) -> list[tuple[int, float]]:
    """(step, value) of every optimiser step that has one: `loss`, or the `learning_rate` with which it was taken."""
    entries = [as_object(row, f"{metrics}:{n}", "step") for n, row in read_json_lines(metrics, loose=True)]
    return [(entry["step"], entry[name]) for entry in entries if entry.get(name) is not None]


def page(result: dict[str, Any], losses: list[tuple[int, float]]) -> str:
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
    return figure_page(f"{result['recipe']} while it forms", facts, [("Dynamics", caption, figure)])


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
