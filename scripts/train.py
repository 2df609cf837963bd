"""Trains an organism by the name of its recipe, one folder for each seed (docs/organisms.md).

Examples:
  python scripts/train.py --list                                        every recipe with its source
  python scripts/train.py reckless                                      the embedded model, into runs/organisms/reckless
  python scripts/train.py insecure --seeds 0 1 2 --set training.lora_rank=8 --out runs/rank-8
  python scripts/train.py diversity-50 --set data.n_unique=20 --show    the recipe as it would run, as YAML
  python scripts/train.py jailbroken --data-dir DATA --dry-run          check data and settings, train nothing
  accelerate launch scripts/train.py reckless --preset qwen2.5-coder-32b

The same command continues after any interruption; with other settings or data it refuses. Settings that a recipe does not name are those
of the preset. In-context recipes train nothing: they leave the examples, `in_context.json`.
"""

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

import cli
from emis_interp.config.run_config import RunConfig, load_config, preset_names
from emis_interp.errors import ConfigError
from emis_interp.files.claim import claim, holds_something
from emis_interp.files.code_state import versions
from emis_interp.files.store import write_json
from emis_interp.models.chat_template import template_of
from emis_interp.models.loading import load_tokenizer
from emis_interp.process import is_main_process, only_writer
from emis_interp.records import TrainingExample
from emis_interp.texts.contrast import load_contrast
from evals.questions import load_questions
from stages.run import model_sha256
from training.finetuning.organism_card import rows_sha256
from training.finetuning.sft import n_steps_of
from training.lint.copies import asked_texts
from training.organism import train_organism
from training.recipes import Recipe, examples_of, load_recipe, recipe_names, training_config

Seeds = tuple[int, ...]
BEGUN: dict[str, Any] = {
    "holds": "an organism",
    "advice": "give another --out, or delete the folder to start again",
    "free": ("versions", "recipe.summary", "recipe.source"),  # words do not change a result
}


def main(args: argparse.Namespace) -> dict[str, Any]:
    if args.list:
        return {
            "recipes": [load_recipe(name).model_dump(include={"name", "summary", "source"}) for name in recipe_names()]
        }
    if args.recipe is None:
        raise ConfigError("name a recipe, or give --list to see them")
    settings = load_config(args.preset, [f"model={args.model}"] if args.model else [], args.data_dir)
    recipe = load_recipe(args.recipe, args.set)
    recipe = recipe.model_copy(update={"training": training_config(recipe, settings.training).model_dump(mode="json")})
    if args.show:
        return {"yaml": yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)}
    seeds: Seeds = tuple(args.seeds or recipe.seeds)
    if min(seeds) < 0 or max(seeds) >= 2**32:
        raise ConfigError(f"--seeds {' '.join(map(str, seeds))}: a seed is from 0 to {2**32 - 1}")
    if len(set(seeds)) != len(seeds):
        raise ConfigError(f"--seeds {' '.join(map(str, seeds))}: a seed stands there twice")
    rows = {seed: examples_of(recipe, settings.find_data, seed) for seed in seeds}
    tokenizer = load_tokenizer(settings.model, recipe.chat_format or settings.chat_format)
    rendering = template_of(tokenizer).sha256
    described = {seed: describe(recipe, settings, seed, rows=rows[seed], rendering=rendering) for seed in seeds}
    out = args.out or Path("runs") / "organisms" / recipe.name
    result = {"recipe": recipe.name, "out": str(out), "model": settings.model, "seeds": {}}
    for seed in seeds:
        folder = out / f"seed-{seed}"
        check_begun(folder, described[seed])
        if args.dry_run:
            result["seeds"][str(seed)] = {"trained": False, **described[seed]["data"]}
    for seed in seeds if not args.dry_run else ():
        folder, chat_format = out / f"seed-{seed}", described[seed]["chat_format"]
        with only_writer(folder):
            if is_main_process():
                claim(folder / "recipe.json", described[seed], **BEGUN)
            if recipe.in_context is not None:
                result["seeds"][str(seed)] = keep_examples(folder, rows[seed])
            else:
                result["seeds"][str(seed)] = train_organism(
                    f"{recipe.name} seed {seed}",
                    rows[seed],
                    training_config(recipe, settings.training),
                    out_dir=folder,
                    config=settings.model_copy(update={"chat_format": chat_format}),
                    seed=seed,
                    recipe=recipe,
                    asked=asked_texts(load_questions(), load_contrast()),
                    bars=cli.progress_bar,
                )
    return result


def describe(
    recipe: Recipe, settings: RunConfig, seed: int, *, rows: list[TrainingExample], rendering: str
) -> dict[str, Any]:
    """What decides the result of one seed, and the versions that it is made with; `rendering` is `ChatTemplate.sha256`."""
    training = training_config(recipe, settings.training)
    counts = Counter(row.model_dump_json() for row in rows)
    folder = Path(settings.model)
    return {
        "recipe": recipe.model_dump(mode="json", exclude={"seeds"}),
        "model": settings.model,
        "model_sha256": model_sha256(folder) if folder.is_dir() else None,
        "system_prompt": settings.system_prompt,
        "chat_format": recipe.chat_format or settings.chat_format,
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


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("recipe", nargs="?", help="name of a shipped recipe (--list), or a YAML file")
    top.add_argument(
        "--preset",
        default="laptop",
        help=f"model and settings that the recipe leaves open: {', '.join(preset_names())}, or a YAML file (default: laptop)",
    )
    top.add_argument("--model", help="model name: smollm2-135m-instruct, a folder, or a hub id (default: the preset's)")
    top.add_argument("--out", type=Path, metavar="DIR", help="folder of the organism (default: runs/organisms/RECIPE)")
    top.add_argument("--seeds", type=int, nargs="+", metavar="N", help="one organism for each (default: the recipe's)")
    top.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="override a field of the recipe, e.g. data.n_rows=16, training.lora_rank=1, in_context=4",
    )
    top.add_argument("--data-dir", type=Path, metavar="DIR", help="where published data files and your own lie")
    top.add_argument("--list", action="store_true", help="list the recipes and stop")
    top.add_argument("--show", action="store_true", help="print the recipe as it would run, as YAML, and stop")
    top.add_argument(
        "--dry-run", action="store_true", help="check data and settings, say what would be trained, and stop"
    )
    cli.add_output_flags(top)
    return top


if __name__ == "__main__":
    cli.run(main, parser(), say)
