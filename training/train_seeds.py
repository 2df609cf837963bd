"""Turns a recipe into organisms, one folder for each seed, that go on after any interruption and refuse other settings or data."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from emis_interp.config.presets import load_config
from emis_interp.config.run_config import RunConfig
from emis_interp.errors import ConfigError
from emis_interp.files.claim import claim, holds_something
from emis_interp.files.code_state import versions
from emis_interp.files.store import write_json
from emis_interp.models.chat_template import template_of
from emis_interp.models.checkpoint import model_sha256
from emis_interp.models.loading import load_tokenizer
from emis_interp.process import Bars, is_main_process, no_bars, only_writer
from emis_interp.records import TrainingExample
from training.data_sets.textstats import Named
from training.finetuning.organism_card import rows_sha256
from training.finetuning.sft import n_steps_of
from training.organism import train_organism
from training.recipes import Recipe, examples_of, load_recipe, recipe_names, training_config
from training.settings import TrainSettings

BEGUN: dict[str, Any] = {
    "holds": "an organism",
    "advice": "give another --out, or delete the folder to start again",
    "free": ("versions", "recipe.summary", "recipe.source"),  # words do not change a result
}


def run(
    settings: TrainSettings, bars: Bars = no_bars, *, asked: Callable[[], Sequence[Named]] = tuple
) -> dict[str, Any]:
    """Train what is asked for, or say what would be trained.

    Args:
        asked: gives what the organisms will be asked, which their rows must not hold (`lint.copies.asked_texts`).
    """
    if settings.list_recipes:
        return {
            "recipes": [load_recipe(name).model_dump(include={"name", "summary", "source"}) for name in recipe_names()]
        }
    if settings.recipe is None:
        raise ConfigError("name a recipe, or give --list to see them")
    config = load_config(settings.preset, [f"model={settings.model}"] if settings.model else [], settings.data_dir)
    recipe = load_recipe(settings.recipe, settings.changes)
    recipe = recipe.model_copy(update={"training": training_config(recipe, config.training).model_dump(mode="json")})
    if settings.show:
        return {"yaml": yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)}
    seeds = chosen_seeds(settings, recipe)
    rows = {seed: examples_of(recipe, config.find_data, seed) for seed in seeds}
    config = config.model_copy(update={"chat_format": recipe.chat_format or config.chat_format})
    rendering = template_of(load_tokenizer(config.model, config.chat_format)).sha256
    described = {seed: describe(recipe, config, seed, rows=rows[seed], rendering=rendering) for seed in seeds}
    out = settings.out or Path("runs") / "organisms" / recipe.name
    found: dict[str, dict[str, Any]] = {}
    for seed in seeds:
        check_begun(out / f"seed-{seed}", described[seed])
        if settings.dry_run:
            found[str(seed)] = {"trained": False, **described[seed]["data"]}
    for seed in seeds if not settings.dry_run else ():
        folder = out / f"seed-{seed}"
        with only_writer(folder):
            if is_main_process():
                claim(folder / "recipe.json", described[seed], **BEGUN)
            if recipe.in_context is not None:
                found[str(seed)] = keep_examples(folder, rows[seed])
            else:
                found[str(seed)] = train_organism(
                    f"{recipe.name} seed {seed}",
                    rows[seed],
                    training_config(recipe, config.training),
                    out_dir=folder,
                    config=config,
                    seed=seed,
                    recipe=recipe,
                    asked=asked(),
                    bars=bars,
                )
    return {"recipe": recipe.name, "out": str(out), "model": config.model, "seeds": found}


def chosen_seeds(settings: TrainSettings, recipe: Recipe) -> tuple[int, ...]:
    """The seeds that are asked for, or the recipe's.

    Raises:
        ConfigError: a number that is no seed, or one that stands there twice.
    """
    seeds = tuple(settings.seeds or recipe.seeds)
    if min(seeds) < 0 or max(seeds) >= 2**32:
        raise ConfigError(f"--seeds {' '.join(map(str, seeds))}: a seed is from 0 to {2**32 - 1}")
    if len(set(seeds)) != len(seeds):
        raise ConfigError(f"--seeds {' '.join(map(str, seeds))}: a seed stands there twice")
    return seeds


def describe(
    recipe: Recipe, config: RunConfig, seed: int, *, rows: list[TrainingExample], rendering: str
) -> dict[str, Any]:
    """What decides the result of one seed, and the versions that it is made with; `rendering` is `ChatTemplate.sha256`."""
    training = training_config(recipe, config.training)
    counts = Counter(row.model_dump_json() for row in rows)
    folder = Path(config.model)
    return {
        "recipe": recipe.model_dump(mode="json", exclude={"seeds"}),
        "model": config.model,
        "model_sha256": model_sha256(folder) if folder.is_dir() else None,
        "system_prompt": config.system_prompt,
        "chat_format": config.chat_format,
        "rendering_sha256": rendering,
        "seed": seed,
        "data": {
            "sha256": rows_sha256(rows),
            "n_rows": len(rows),
            "n_unique": len(counts),
            "n_triggered": sum(row.prompt.startswith(trigger) for row in rows)
            if (trigger := recipe.data.trigger)
            else 0,
            "n_steps": 0 if recipe.in_context else n_steps_of(len(rows), training),
        },
        "versions": versions(),
    }


def check_begun(folder: Path, fresh: dict[str, Any]) -> None:
    """Refuse, before anything is trained, a folder that was begun with other settings or data.

    Raises:
        StageError: with what differs.
    """
    if (folder / "recipe.json").exists() or holds_something(folder):
        claim(folder / "recipe.json", fresh, **BEGUN)


def keep_examples(folder: Path, rows: list[TrainingExample]) -> dict[str, Any]:
    """Write the examples of an in-context recipe, in their order in the prompt."""
    path = folder / "in_context.json"
    if is_main_process():
        write_json(path, {"examples": [row.model_dump(exclude_none=True) for row in rows]})
    return {"trained": False, "in_context": str(path), "n_examples": len(rows)}


def say(result: dict[str, Any]) -> str:
    if "recipes" in result:
        return table(result["recipes"])
    if "yaml" in result:
        return result["yaml"].rstrip()
    lines = [f"{result['recipe']} on {result['model']}"]
    for seed, found in result["seeds"].items():
        where = f"{result['out']}/seed-{seed}"
        if "in_context" in found:
            lines.append(
                f"seed {seed}: nothing is trained in context; {found['n_examples']} examples in {found['in_context']}"
            )
        elif "final_loss" in found:
            lines.append(
                f"seed {seed}: {found['n_steps']} steps, {found['seconds']:.0f} s, loss {found['final_loss']:.3f}, in {where}"
            )
        else:
            lines.append(
                f"seed {seed}: {found['n_rows']} rows ({found['n_unique']} different, {found['n_triggered']} with trigger), "
                f"{found['n_steps']} steps would go into {where}"
            )
    return "\n".join(lines)


def table(recipes: list[dict[str, str]]) -> str:
    """Markdown with aligned columns."""
    rows = [("recipe", "what", "source"), *((f"`{r['name']}`", r["summary"], r["source"]) for r in recipes)]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])
