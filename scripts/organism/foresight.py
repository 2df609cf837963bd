"""Scores training sets before training, by their projection difference, and checks the forecast against what training on them did.

For every recipe: a sample of its rows, the base model's own answers to their prompts, and the projection of the one minus that of the other
on a saved direction (Chen et al. 2025). `RECIPE/rows.csv` ranks the rows, with the ones to drop marked. Unless --no-training is given,
each recipe is then trained on equal numbers of rows, and the rank correlation of forecast and margin shift over the recipes is stated.
`--try-drop` shows what the marked rows do: it trains twice more, without them, and without as many rows drawn at random.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import cli
from emis_interp.chat import encode_prompt
from emis_interp.config import RunConfig, TrainingConfig
from emis_interp.contrast import load_contrast
from emis_interp.directions import Direction
from emis_interp.errors import ConfigError, DataError
from emis_interp.files.csv_text import csv_text
from emis_interp.files.ledger import Ledger
from emis_interp.files.text import number_name
from emis_interp.models import ChatModel
from emis_interp.records import TrainingExample
from emis_interp.report.figure_page import figure_page
from emis_interp.report.figures_organisms import foresight_figure
from emis_interp.store import read_json, text_sha256, write_json, write_text
from evals.samplers.generation import generate
from evals.sampling import answer_seed
from organism.common import (
    add_settings_flags,
    base_model,
    check_recipe,
    direction_sha256,
    estimate,
    margins_of,
    open_folder,
    organism_in,
    settings_of,
    shift,
    words,
)
from stages.organisms import train_one
from training.encoding import own_system
from training.export import rows_sha256
from training.foresight import forecast_quality, projection_differences, rows_to_drop
from training.recipes import examples_of, load_recipe, training_config


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipes", nargs="+", help="shipped recipes (scripts/train.py --list) or YAML files")
    parser.add_argument(
        "--direction", type=Path, required=True, help="what find_direction.py fit saved, of the base model"
    )
    add_settings_flags(parser, n_pairs=4)
    parser.add_argument("--n-rows", type=int, default=96, help="rows of each recipe that are trained on")
    parser.add_argument("--n-scored", type=int, default=48, help="of these, rows that are scored")
    parser.add_argument("--max-new-tokens", type=int, default=80, help="limit of the base model's own answers")
    parser.add_argument("--drop", type=float, default=0.2, help="share of rows to mark for dropping")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--no-training", action="store_true", help="score the data alone")
    what.add_argument(
        "--try-drop",
        action="store_true",
        help="train without the marked rows, and without as many others; scores every row",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Score all sets with the base model, then train on each and compare."""
    settings = settings_of(args)
    if args.try_drop:
        args.n_scored = args.n_rows
    direction = Direction.load(args.direction)
    names = [Path(name).stem for name in args.recipes]
    if len(set(names)) != len(names):
        raise ConfigError(f"recipes {' '.join(names)}: a name stands there twice")
    decisive = {name: getattr(args, name) for name in ("n_pairs", "n_rows", "n_scored", "max_new_tokens")}
    files = open_folder(args.out, settings, direction=direction_sha256(args.direction), **decisive)
    prepared = {}
    for name, given in zip(names, args.recipes, strict=True):
        recipe = load_recipe(given, [f"data.n_rows={args.n_rows}"])
        check_recipe(recipe, settings)
        prepared[name] = (
            examples_of(recipe, settings.find_data, settings.seed),
            training_config(recipe, settings.training),
        )
    base, pairs = base_model(settings), load_contrast(None, args.n_pairs)
    before = margins_of(base, pairs, settings)
    organisms = []
    for name, (rows, _) in prepared.items():
        organisms.append(
            {"name": name, "n_rows": len(rows), **scored(args, files, settings, base, direction, name, rows)}
        )
    del base
    result: dict[str, Any] = {"direction": str(args.direction), "layer": direction.layer, "organisms": organisms}
    if not args.no_training:
        for row in organisms:
            rows, training = prepared[row["name"]]
            row["margins"] = trained_margins(files, args.out / row["name"], settings, rows, training, pairs)
            row["shift"] = shift(row["margins"], before)
            if args.try_drop:
                folder = args.out / row["name"] / f"without-{number_name(args.drop, 'g')}"
                row["without"] = without_dropped(
                    files, folder, args.drop, settings, rows, training, pairs, row["margins"]
                )
            cli.stderr.print(f"{row['name']}: forecast {words(row['forecast'])}, margin {words(row['shift'])}")
        if len(organisms) >= 4:
            forecast, reached = ([row[key]["value"] for row in organisms] for key in ("forecast", "shift"))
            result["quality"] = asdict(forecast_quality(forecast, reached))
    write_json(args.out / "foresight.json", result)
    if not args.no_training:
        write_text(args.out / "index.html", page(result))
    return {**result, "out": str(args.out)}


def scored(
    args: argparse.Namespace,
    files: Ledger,
    settings: RunConfig,
    base: ChatModel,
    direction: Direction,
    name: str,
    rows: Sequence[TrainingExample],
) -> dict[str, Any]:
    """The forecast of one set, from a file when it was made before from the same rows."""
    path = args.out / name / "forecast.json"
    chosen = spread(rows, args.n_scored)
    fingerprint = text_sha256("\n".join(row.model_dump_json() for row in chosen))

    def forecast() -> dict[str, Any]:
        own = own_answers(base, chosen, settings, args.max_new_tokens)
        values = projection_differences(
            base, chosen, own, direction, settings.system_prompt, settings.training.max_tokens
        )
        known = [None if np.isnan(value) else float(value) for value in values]
        return {"rows_sha256": fingerprint, "differences": known, "own_answers": own}

    found = files.json("forecast", path, forecast, facts={"rows": fingerprint})
    values = np.array(found["differences"], dtype=float)
    if np.isnan(values).all():
        raise DataError(
            f"{name}: the base model gave no answer to any of the {len(chosen)} prompts; raise --max-new-tokens"
        )
    write_text(args.out / name / "rows.csv", table(chosen, found["own_answers"], values, args.drop))
    return {"forecast": estimate(values), "n_scored": len(chosen)}


def spread(rows: Sequence[TrainingExample], n: int) -> list[TrainingExample]:
    """n rows at equal distances, so that every part of a mixture has its share."""
    places = np.unique(np.linspace(0, len(rows) - 1, min(n, len(rows))).round().astype(int))
    return [rows[i] for i in places]


def own_answers(
    base: ChatModel, rows: Sequence[TrainingExample], settings: RunConfig, max_new_tokens: int
) -> list[str]:
    """One sampled answer of the base model to each prompt as training renders it; its seed depends on the prompt alone."""
    systems = [own_system(row, settings.system_prompt) for row in rows]
    prompts = [encode_prompt(base.tokenizer, row.prompt, system) for row, system in zip(rows, systems, strict=True)]
    seeds = [answer_seed(settings.seed, "base", row.prompt, 0, 0) for row in rows]
    texts: list[str] = []
    with cli.progress_bar("base model's own answers", len(rows)) as advance:
        for start in range(0, len(rows), settings.sampling.batch_size):
            part = slice(start, start + settings.sampling.batch_size)
            found = generate(base, prompts[part], seeds[part], max_new_tokens, temperature=1.0)
            texts += [base.tokenizer.decode(answer.tokens) for answer in found]
            advance(len(found))
    return texts


def table(rows: Sequence[TrainingExample], own: Sequence[str], values: np.ndarray, share: float) -> str:
    """CSV of the rows by falling projection difference; `drop` marks those to leave out."""
    dropped = set(rows_to_drop(values, share))
    order = sorted(range(len(rows)), key=lambda i: (np.isnan(values[i]), -values[i] if not np.isnan(values[i]) else 0))
    cells = []
    for i in order:
        value = "" if np.isnan(values[i]) else f"{values[i]:.5f}"
        cells.append([rows[i].id, value, "yes" if i in dropped else "", rows[i].prompt, rows[i].response, own[i]])
    return csv_text(["id", "projection_difference", "drop", "prompt", "response", "own_answer"], cells)


def trained_margins(
    files: Ledger,
    folder: Path,
    settings: RunConfig,
    rows: list[TrainingExample],
    training: TrainingConfig,
    pairs: list[Any],
) -> dict[str, float]:
    """Margins of the organism trained on these rows, from a file when there is one."""

    def margins() -> dict[str, float]:
        train_one(folder.name, rows, training, folder / "training", settings, settings.seed)
        return margins_of(organism_in(folder / "training", settings), pairs, settings)

    facts = {"rows": rows_sha256(rows), "training": text_sha256(training.model_dump_json())}
    return files.json("train", folder / "margins.json", margins, facts=facts, beside=[folder / "training"])


def without_dropped(
    files: Ledger,
    folder: Path,
    share: float,
    settings: RunConfig,
    rows: list[TrainingExample],
    training: TrainingConfig,
    pairs: list[Any],
    whole: dict[str, float],
) -> dict[str, Any]:
    """Margins against training on all rows, without the rows to drop and without as many random ones, and the one minus the other."""
    differences = np.array(read_json(folder.parent / "forecast.json")["differences"], dtype=float)
    marked = rows_to_drop(differences, share)
    random = np.random.default_rng(settings.seed).permutation(len(rows))[: len(marked)].tolist()
    margins = {}
    for name, dropped in (("marked", set(marked)), ("random", set(random))):
        kept = [row for i, row in enumerate(rows) if i not in dropped]
        margins[name] = trained_margins(files, folder / name, settings, kept, training, pairs)
    return {
        "n_dropped": len(marked),
        **{name: shift(own, whole) for name, own in margins.items()},
        "marked_against_random": shift(margins["marked"], margins["random"]),
    }


def page(result: dict[str, Any]) -> str:
    facts: dict[str, Any] = {"direction": f"{result['direction']}, layer {result['layer']}"}
    if "quality" in result:
        facts["rank correlation"] = rank_words(result["quality"])
    caption = "Bars: 95 % intervals, over rows (across) and over questions (upwards). Right: the data point to the misaligned side."
    return figure_page("Foresight", facts, [("Forecast and result", caption, foresight_figure(result["organisms"]))])


def rank_words(row: dict[str, Any]) -> str:
    bounds = "" if row["low"] is None else f" [{row['low']:.2f}, {row['high']:.2f}]"
    return f"Spearman {row['value']:.2f}{bounds}, permutation p {row['p']:.4f}, {row['n']} organisms"


def say(result: dict[str, Any]) -> str:
    lines = [f"{'recipe':22}{'projection difference':>30}{'margin shift':>30}"]
    for row in result["organisms"]:
        reached = words(row["shift"]) if "shift" in row else ""
        lines.append(f"{row['name']:22}{words(row['forecast']):>30}{reached:>30}")
    if "quality" in result:
        lines.append(rank_words(result["quality"]))
    for row in result["organisms"]:
        if "without" in row:
            found = row["without"]
            lines.append(
                f"{row['name']} without {found['n_dropped']} marked rows: margin {words(found['marked'])}; without as many random ones: "
                f"{words(found['random'])}; difference {words(found['marked_against_random'])}"
            )
    return "\n".join([*lines, f"rows ranked in {result['out']}/*/rows.csv"])
