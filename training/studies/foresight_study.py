"""Turns training sets into forecasts of what training on them does, then into what it did, and into how well the one ranks the other."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from emis_interp.config.run_config import RunConfig, TrainingConfig
from emis_interp.directions import Direction
from emis_interp.errors import ConfigError
from emis_interp.files.ledger import Ledger
from emis_interp.files.store import write_sealed, write_text
from emis_interp.files.text import number_name
from emis_interp.process import Bars, no_bars, only_writer
from emis_interp.records import ContrastPair, TrainingExample
from emis_interp.report.figure_page import figure_page
from emis_interp.report.page_frame import Frame, command_of, frame_of
from emis_interp.stats.words import limits
from emis_interp.texts.contrast import load_contrast
from training.data_sets.textstats import Named
from training.organism import train_organism
from training.recipes import examples_of, load_recipe, training_config
from training.studies.against_base import (
    FLATTENED_HEAD,
    ONE_SEED,
    BaseAt,
    base_at_temperatures,
    flattened,
    flattened_line,
    flattened_words,
)
from training.studies.dropping import drop_words, trained_margins, without_dropped
from training.studies.estimates import shift, words
from training.studies.figures import foresight_figure
from training.studies.forecast import AnswerSeed, forecast_of
from training.studies.forecast_quality import FEWEST, forecast_quality
from training.studies.foresight import related_sets
from training.studies.measures import base_model, margins_of
from training.studies.settings import ForesightSettings
from training.studies.study_folder import check_recipe, direction_sha256, open_folder, same_rows

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingSet:
    """One of the sets that are compared, as it is trained on; `group`: label of its related sets."""

    name: str
    group: str
    rows: list[TrainingExample]
    training: TrainingConfig


def run(
    settings: ForesightSettings, bars: Bars = no_bars, *, asked: Sequence[Named], answer_seed: AnswerSeed
) -> dict[str, Any]:
    """Score all sets with the base model, then train on each and compare.

    Args:
        asked: what the organisms will be asked, which their rows must not hold (`training.lint.copies.asked_texts`).
        answer_seed: of the base model's own answers.
    """
    if settings.try_drop:
        settings = replace(settings, n_scored=settings.n_rows)
        if settings.n_draws < 2:
            raise ConfigError(
                f"--n-draws {settings.n_draws}: give 2 or more; one random draw says nothing about another"
            )
    with only_writer(settings.out):
        config, direction = settings.config(), Direction.load(settings.direction)
        names = names_of(settings)
        given = given_groups(settings.group, names)
        decisive = {name: getattr(settings, name) for name in ("n_pairs", "n_rows", "n_scored", "max_new_tokens")}
        files = open_folder(settings.out, config, direction=direction_sha256(settings.direction), **decisive)
        sets = sets_of(settings, config, names, given=given)
        base, pairs = base_model(config), load_contrast(None, settings.n_pairs)
        before = margins_of(base, pairs, config)
        organisms = []
        for one in sets:
            found = forecast_of(
                files,
                settings.out / one.name,
                one.rows,
                base=base,
                direction=direction,
                config=config,
                n_scored=settings.n_scored,
                answer_tokens=settings.max_new_tokens,
                drop=settings.drop,
                answer_seed=answer_seed,
                bars=bars,
            )
            organisms.append({"name": one.name, "group": one.group, "n_rows": len(one.rows), **found})
        result: dict[str, Any] = {
            "direction": str(settings.direction),
            "layer": direction.layer,
            "answer_tokens": settings.max_new_tokens,
            "base_margins": before,
            "organisms": organisms,
        }
        if not settings.no_training:
            base_at = base_at_temperatures(files, lambda: base, pairs, config=config)
            del base  # its memory is needed in training
            train = partial(train_organism, asked=asked, bars=bars)
            for row, one in zip(organisms, sets, strict=True):
                row |= reached(
                    settings, config, one, files=files, before=before, base_at=base_at, pairs=pairs, train=train
                )
                log.info("%s: forecast %s, margin %s", one.name, words(row["forecast"]), words(row["shift"]))
            if len(organisms) >= FEWEST:
                forecasts, shifts = ([row[key]["value"] for row in organisms] for key in ("forecast", "shift"))
                result["quality"] = asdict(forecast_quality(forecasts, shifts, [row["group"] for row in organisms]))
        write_sealed(settings.out / "foresight.json", result)
        if not settings.no_training:
            frame = frame_of(
                settings.out / "index.html",
                command_of("scripts/study_organism.py foresight", settings),
                settings.out / "foresight.json",
            )
            write_text(settings.out / "index.html", page(result, frame=frame))
        return {**result, "out": str(settings.out)}


def names_of(settings: ForesightSettings) -> list[str]:
    """Names of the recipes, which are those of their folders.

    Raises:
        ConfigError: a name stands there twice.
    """
    names = [Path(name).stem for name in settings.recipes]
    if len(set(names)) != len(names):
        raise ConfigError(f"recipes {' '.join(names)}: a name stands there twice")
    return names


def sets_of(
    settings: ForesightSettings, config: RunConfig, names: Sequence[str], *, given: dict[str, str]
) -> list[TrainingSet]:
    """The sets with `n_rows` each, in the order of the recipes; which of them are related is seen from all their rows.

    Args:
        given: groups that are not left to be found.
    """
    drawn, whole = {}, {}
    for name, source in zip(names, settings.recipes, strict=True):
        recipe = load_recipe(source, [f"data.n_rows={settings.n_rows}"])
        check_recipe(recipe, config)
        rows = examples_of(recipe, config.find_data, config.seed)
        whole[name] = examples_of(load_recipe(source), config.find_data, config.seed)
        same_rows(settings.out / name, rows)
        drawn[name] = (rows, training_config(recipe, config.training))
    groups = {**related_sets(whole), **given}
    return [TrainingSet(name, groups[name], *made) for name, made in drawn.items()]


def reached(
    settings: ForesightSettings,
    config: RunConfig,
    one: TrainingSet,
    *,
    files: Ledger,
    before: dict[str, float],
    base_at: BaseAt,
    pairs: list[ContrastPair],
    train: Callable[..., Any],
) -> dict[str, Any]:
    """What training on a set did to the margins, and with `try_drop` what it does without the marked rows.

    Args:
        before: margins of base.
        train: `train_organism`, knowing what its organisms will be asked.
    """
    shared: dict[str, Any] = {"config": config, "training": one.training, "pairs": pairs, "train": train}
    folder = settings.out / one.name
    margins = trained_margins(files, folder, one.rows, **shared)
    found = {"margins": margins, "shift": shift(margins, before), "flattening": flattened(margins, before, base_at)}
    if settings.try_drop:
        found["without"] = without_dropped(
            files,
            folder / f"without-{number_name(settings.drop, 'g')}",
            one.rows,
            whole=margins,
            share=settings.drop,
            n_draws=settings.n_draws,
            **shared,
        )
    return found


def given_groups(flags: Sequence[str], names: Sequence[str]) -> dict[str, str]:
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


def page(result: dict[str, Any], *, frame: Frame | None = None) -> str:
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
    return figure_page(
        "Foresight", facts, [("Forecast and result", caption, foresight_figure(result["organisms"]))], frame=frame
    )


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
    bounds = f" {limits(row, '.2f', none='')}".rstrip()
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
