"""Turns a recipe and seeds into trained organisms, one folder for each seed, which hold what decided their result."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from emis_interp.config.run_config import RunConfig
from emis_interp.files.claim import claim, holds_something
from emis_interp.files.code_state import versions
from emis_interp.files.store import write_json
from emis_interp.models.chat_template import template_of
from emis_interp.models.checkpoint import model_sha256
from emis_interp.models.loading import load_tokenizer
from emis_interp.process import Bars, is_main_process, no_bars, only_writer
from emis_interp.records import TrainingExample
from training.data_sets.shipped import rows_sha256
from training.data_sets.textstats import Named
from training.finetuning.sft import n_steps_of
from training.organism import train_organism
from training.recipes import Recipe, examples_of, training_config

BEGUN: dict[str, Any] = {
    "holds": "an organism",
    "advice": "give another --out, or delete the folder to start again",
    "free": ("versions", "recipe.summary", "recipe.source"),  # words do not change a result
}


def train_in(
    out: Path,
    recipe: Recipe,
    config: RunConfig,
    *,
    seeds: Sequence[int],
    dry_run: bool = False,
    asked: Callable[[], Sequence[Named]] = tuple,
    bars: Bars = no_bars,
) -> dict[str, dict[str, Any]]:
    """Seed -> what was trained into `out/seed-N`, or would be.

    Raises:
        StageError: a folder was begun with other settings or data; nothing is trained then.
    """
    rows = {seed: examples_of(recipe, config.find_data, seed) for seed in seeds}
    config = config.model_copy(update={"chat_format": recipe.chat_format or config.chat_format})
    rendering = template_of(load_tokenizer(config.model, config.chat_format)).sha256
    described = {seed: describe(recipe, config, seed, rows=rows[seed], rendering=rendering) for seed in seeds}
    found: dict[str, dict[str, Any]] = {}
    for seed in seeds:
        check_begun(out / f"seed-{seed}", described[seed])
        if dry_run:
            found[str(seed)] = {"trained": False, **described[seed]["data"]}
    for seed in seeds if not dry_run else ():
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
    return found


def describe(
    recipe: Recipe, config: RunConfig, seed: int, *, rows: list[TrainingExample], rendering: str
) -> dict[str, Any]:
    """What decides the result of one seed, and the versions that it is made with; `rendering` is `ChatTemplate.sha256`."""
    training = training_config(recipe, config.training)
    counts = Counter(row.model_dump_json() for row in rows)
    return {
        "recipe": recipe.model_dump(mode="json", exclude={"seeds"}),
        "model": config.model,
        "model_sha256": model_sha256(config.model),
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
