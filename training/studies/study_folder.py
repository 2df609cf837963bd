"""Turns the folder of a study into one that refuses other settings and other rows, so that what is in it can be gone on with."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from emis_interp.config.run_config import RunConfig
from emis_interp.directions import direction_file
from emis_interp.errors import ConfigError, StageError
from emis_interp.files.claim import claim
from emis_interp.files.ledger import Ledger
from emis_interp.files.store import file_sha256, read_json, write_json
from emis_interp.models.chat_template import template_of
from emis_interp.models.loading import load_tokenizer
from emis_interp.records import TrainingExample
from training.data_sets.shipped import rows_sha256
from training.recipes import Recipe


def open_folder(folder: Path, config: RunConfig, **decisive: Any) -> Ledger:
    """Begin a study, or go on with it when nothing that decides its result has changed; returns what its files are made from.

    Raises:
        StageError: the folder holds a study with other settings, with what differs.
    """
    kept = config.model_dump(
        mode="json", include={"model", "dtype", "seed", "system_prompt", "chat_format", "training"}
    )
    rendering = template_of(load_tokenizer(config.model, config.chat_format)).sha256
    fresh = {**kept, "rendering_sha256": rendering, **decisive}
    claim(folder / "settings.json", fresh, holds="a study", advice="give another --out, or delete it")
    return Ledger.of(folder)


def check_recipe(recipe: Recipe, config: RunConfig) -> None:
    """Refuse recipes that train nothing, or for another chat format than the base model is read with.

    Raises:
        ConfigError: with what to do.
    """
    if recipe.in_context is not None:
        raise ConfigError(f"recipe {recipe.name}: nothing is trained in context; choose a recipe that trains")
    if recipe.chat_format != config.chat_format:
        raise ConfigError(
            f"recipe {recipe.name}: its chat format is {recipe.chat_format}, the model is read with {config.chat_format}; "
            f"give --set chat_format={recipe.chat_format or 'null'}"
        )


def same_rows(folder: Path, rows: Sequence[TrainingExample]) -> None:
    """Keep the hash of the rows that the organism of a folder comes from, or check it against the one that is there.

    Raises:
        StageError: the folder holds an organism of other rows (drawn by another version, or from a changed file).
    """
    path, drawn = folder / "rows.json", {"rows_sha256": rows_sha256(rows)}
    begun = folder.exists() and any(folder.glob("*"))
    if begun and (not path.exists() or read_json(path) != drawn):
        raise StageError(
            f"{folder}: was made from other rows than are drawn now (a changed file, or another version); delete it, or give another --out"
        )
    write_json(path, drawn)


def direction_sha256(path: Path) -> str:
    """Hash of a saved direction's vector, which decides a study's result."""
    return file_sha256(direction_file(path))
