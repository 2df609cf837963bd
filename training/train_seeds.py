"""Turns a recipe into organisms, one folder for each seed, that go on after any interruption and refuse other settings or data."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from emis_interp.config.presets import load_config
from emis_interp.errors import ConfigError
from emis_interp.process import Bars, no_bars
from training.data_sets.textstats import Named
from training.recipes import Recipe, load_recipe, recipe_names, training_config
from training.settings import TrainSettings


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
    from training.seed_folders import train_in  # torch, for those who train

    out = settings.out or Path("runs") / "organisms" / recipe.name
    found = train_in(out, recipe, config, seeds=seeds, dry_run=settings.dry_run, asked=asked, bars=bars)
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
