"""Scores training sets before training, by their projection difference, and checks the forecast against what training on them did.

For every recipe: a sample of its rows, the base model's own answers to their prompts, and the projection of the one minus that of the other
on a saved direction (Chen et al. 2025); both answers are read up to the same number of tokens. `RECIPE/rows.csv` ranks the rows, with the
ones to drop marked. Unless --no-training is given, each recipe is then trained on equal numbers of rows, and the rank correlation of
forecast and margin shift is stated: within groups of related sets (those that share prompts or answers), and between the groups' means,
each with a two-sided permutation test. `--try-drop` shows what the marked rows do: it trains again without them, and without as many rows
drawn at random, several times.
"""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cli
from emis_interp.directions import Direction
from emis_interp.errors import ConfigError
from emis_interp.files.store import write_json, write_text
from emis_interp.files.text import number_name
from emis_interp.report.figure_page import figure_page
from emis_interp.texts.contrast import load_contrast
from training.recipes import examples_of, load_recipe, training_config
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
    margins_of,
    open_folder,
    same_rows,
    settings_of,
    shift,
    words,
)
from training.studies.dropping import drop_words, trained_margins, without_dropped
from training.studies.figures import foresight_figure
from training.studies.forecast import forecast_of
from training.studies.forecast_quality import FEWEST, forecast_quality
from training.studies.foresight import related_sets


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipes", nargs="+", help="shipped recipes (scripts/train.py --list) or YAML files")
    parser.add_argument(
        "--direction", type=Path, required=True, help="what find_direction.py fit saved, of the base model"
    )
    add_settings_flags(parser, n_pairs=4)
    parser.add_argument("--n-rows", type=int, default=96, help="rows of each recipe that are trained on")
    parser.add_argument("--n-scored", type=int, default=48, help="of these, rows that are scored")
    parser.add_argument(
        "--max-new-tokens",
        type=int,
        default=80,
        help="limit of the base model's own answers; the rows' answers are read up to the same token",
    )
    parser.add_argument("--drop", type=float, default=0.2, help="share of rows to mark for dropping")
    parser.add_argument("--n-draws", type=int, default=5, help="of --try-drop: random sets of rows dropped instead")
    parser.add_argument(
        "--group",
        action="append",
        default=[],
        metavar="RECIPE=GROUP",
        help="related training sets, besides those that share prompts or answers, which are found",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--no-training", action="store_true", help="score the data alone")
    what.add_argument(
        "--try-drop",
        action="store_true",
        help="train without the marked rows, and --n-draws times without as many others; scores every row",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Score all sets with the base model, then train on each and compare."""
    settings = settings_of(args)
    if args.try_drop:
        args.n_scored = args.n_rows
        if args.n_draws < 2:
            raise ConfigError(f"--n-draws {args.n_draws}: give 2 or more; one random draw says nothing about another")
    direction = Direction.load(args.direction)
    names = [Path(name).stem for name in args.recipes]
    if len(set(names)) != len(names):
        raise ConfigError(f"recipes {' '.join(names)}: a name stands there twice")
    given = given_groups(args.group, names)
    decisive = {name: getattr(args, name) for name in ("n_pairs", "n_rows", "n_scored", "max_new_tokens")}
    files = open_folder(args.out, settings, direction=direction_sha256(args.direction), **decisive)
    prepared, whole = {}, {}
    for name, source in zip(names, args.recipes, strict=True):
        recipe = load_recipe(source, [f"data.n_rows={args.n_rows}"])
        check_recipe(recipe, settings)
        rows = examples_of(recipe, settings.find_data, settings.seed)
        whole[name] = examples_of(load_recipe(source), settings.find_data, settings.seed)
        same_rows(args.out / name, rows)
        prepared[name] = (rows, training_config(recipe, settings.training))
    groups = {**related_sets(whole), **given}
    base, pairs = base_model(settings), load_contrast(None, args.n_pairs)
    before = margins_of(base, pairs, settings)
    organisms = []
    for name, (rows, _) in prepared.items():
        found = forecast_of(
            files,
            args.out / name,
            rows,
            base=base,
            direction=direction,
            settings=settings,
            n_scored=args.n_scored,
            answer_tokens=args.max_new_tokens,
            drop=args.drop,
        )
        organisms.append({"name": name, "group": groups[name], "n_rows": len(rows), **found})
    result: dict[str, Any] = {
        "direction": str(args.direction),
        "layer": direction.layer,
        "answer_tokens": args.max_new_tokens,
        "base_margins": before,
        "organisms": organisms,
    }
    if not args.no_training:
        base_at = base_at_temperatures(files, lambda: base, pairs, settings=settings)
        del base  # its memory is needed in training
        for row in organisms:
            rows, training = prepared[row["name"]]
            row["margins"] = trained_margins(
                files, args.out / row["name"], rows, settings=settings, training=training, pairs=pairs
            )
            row["shift"] = shift(row["margins"], before)
            row["flattening"] = flattened(row["margins"], before, base_at)
            if args.try_drop:
                row["without"] = without_dropped(
                    files,
                    args.out / row["name"] / f"without-{number_name(args.drop, 'g')}",
                    rows,
                    whole=row["margins"],
                    share=args.drop,
                    n_draws=args.n_draws,
                    settings=settings,
                    training=training,
                    pairs=pairs,
                )
            cli.stderr.print(f"{row['name']}: forecast {words(row['forecast'])}, margin {words(row['shift'])}")
        if len(organisms) >= FEWEST:
            forecast, reached = ([row[key]["value"] for row in organisms] for key in ("forecast", "shift"))
            result["quality"] = asdict(forecast_quality(forecast, reached, [row["group"] for row in organisms]))
    write_json(args.out / "foresight.json", result)
    if not args.no_training:
        write_text(args.out / "index.html", page(result))
    return {**result, "out": str(args.out)}


def given_groups(flags: list[str], names: list[str]) -> dict[str, str]:
    """`--group RECIPE=GROUP`, checked."""
    found = {}
    for flag in flags:
        name, separator, group = flag.partition("=")
        if not separator or not group or name not in names:
            raise ConfigError(
                f"--group {flag}: expected RECIPE=GROUP with one of the recipes given ({', '.join(names)})"
            )
        found[name] = group
    return found


def page(result: dict[str, Any]) -> str:
    facts: dict[str, Any] = {
        "direction": f"{result['direction']}, layer {result['layer']}",
        "answers": f"of rows and of base: the first {result['answer_tokens']} tokens",
        "groups": "; ".join(f"{group}: {', '.join(names)}" for group, names in members_of(result).items()),
    }
    if "quality" in result:
        facts["rank correlation"] = quality_words(result["quality"])
    facts |= {row["name"]: flattened_line(row["flattening"]) for row in result["organisms"]}
    facts |= {
        f"{row['name']} without rows": drop_words(row["without"]) for row in result["organisms"] if "without" in row
    }
    facts["not covered"] = ONE_SEED
    caption = (
        "Bars: 95 % intervals, over rows (across) and over questions (upwards). Right: the data point to the misaligned side. What "
        "flattens a model raises its margin too: see slope, intercept and what is beyond a flattened base, above."
    )
    return figure_page("Foresight", facts, [("Forecast and result", caption, foresight_figure(result["organisms"]))])


def members_of(result: dict[str, Any]) -> dict[str, list[str]]:
    """Group -> its training sets."""
    found: dict[str, list[str]] = {}
    for row in result["organisms"]:
        found.setdefault(row["group"], []).append(row["name"])
    return found


def quality_words(row: dict[str, Any]) -> str:
    """Both tests, the primary one first, and the plain correlation as a description."""
    parts = []
    for name, what, unit in (
        ("within", "within groups of related sets (primary)", "sets"),
        ("between", "between the groups' means", "groups"),
    ):
        parts.append(f"{what}: {row['why'][name]}" if row[name] is None else f"{what} {rank_words(row[name], unit)}")
    return "Spearman " + "; ".join(
        [*parts, f"over all {row['n']} sets {row['over_all']:.2f}, of which no p, since sets are related"]
    )


def rank_words(row: dict[str, Any], unit: str) -> str:
    bounds = "" if row["low"] is None else f" [{row['low']:.2f}, {row['high']:.2f}]"
    at_floor = " (the smallest that there can be)" if row["p"] <= row["p_smallest"] + 1e-12 else ""
    how = "all" if row["exact"] else "random"
    return (
        f"{row['value']:.2f}{bounds}, {row['n']} {unit}, {row['sides']} p {row['p']:.4f}{at_floor} of {row['n_permutations']} {how} "
        "permutations"
    )


def say(result: dict[str, Any]) -> str:
    head = [f"{'recipe':22}{'group':14}{'projection difference':>28}{'margin shift':>28}", *FLATTENED_HEAD]
    lines = ["".join([head[0], *(f"{name:>28}" for name in head[1:])])]
    for row in result["organisms"]:
        line = f"{row['name']:22}{row['group']:14}{words(row['forecast']):>28}"
        if "shift" in row:
            line += "".join(f"{text:>28}" for text in (words(row["shift"]), *flattened_words(row["flattening"])))
        lines.append(line)
    if "quality" in result:
        lines.append(quality_words(result["quality"]))
    lines += [f"{row['name']} without {drop_words(row['without'])}" for row in result["organisms"] if "without" in row]
    if any("shift" in row for row in result["organisms"]):
        lines.append(ONE_SEED)
    lines.append(f"answers of rows and of base are read up to {result['answer_tokens']} tokens")
    return "\n".join([*lines, f"rows ranked in {result['out']}/*/rows.csv"])
