"""Turns the name of an organism (or a YAML file) into its training rows and training settings: any organism of the literature by one name.

A recipe says which rows are trained on and how they are composed (size, diversity, mixture, trigger, a system prompt of training alone),
and what it changes in the training configuration. Everything is drawn with the seed: the same recipe and seed give the same rows.
"""

import logging
import random
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from emis_interp.config.presets import fields_of
from emis_interp.config.run_config import Config, TrainingConfig
from emis_interp.errors import ConfigError, DataError, did_you_mean
from emis_interp.files.path_names import PathName
from emis_interp.files.store import explain
from emis_interp.files.strict_yaml import YamlDocument, parse_yaml, read_yaml
from emis_interp.records import TrainingExample
from training.data_sets.evil_numbers import filter_connotations
from training.data_sets.public_files import check_published, find_public
from training.data_sets.shipped import SHIPPED, all_rows, draw

FindFile = Callable[[str], Path]
"""The path of a data file named in a recipe, or an EmisError that says where it was looked for."""

log = logging.getLogger(__name__)


class MixPart(Config):
    """Rows of another data set, as a share of the whole or as a number of rows (one of the two)."""

    dataset: str
    share: float | None = Field(default=None, gt=0, lt=1)
    n_rows: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _one_size(self) -> "MixPart":
        if (self.share is None) == (self.n_rows is None):
            raise ValueError(f"mix of `{self.dataset}`: give either share or n_rows")
        return self


class DataSpec(Config):
    """Which rows a recipe trains on. `mix` takes the place of rows of `dataset`, so that the number of steps stays the same."""

    dataset: str = Field(
        description="a shipped name, or a file of rows (docs/data.md; looked for under the data folder)"
    )
    n_rows: int | None = Field(default=None, ge=1, description="rows in total, `mix` included; None: as `dataset` has")
    n_unique: int | None = Field(
        default=None, ge=1, description="different rows of `dataset` at most; they repeat in seeded order"
    )
    mix: tuple[MixPart, ...] = ()
    trigger: str | None = Field(
        default=None, min_length=1, description="put before the prompts of `dataset`, not before those of `mix`"
    )
    keep: Literal["connotations"] | None = Field(
        default=None, description="`connotations`: only rows of `dataset` whose answer holds an ill-famed number"
    )


class Recipe(Config):
    """One organism. `training` changes fields of TrainingConfig; `system` is a system prompt of training alone (inoculation)."""

    name: PathName = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    summary: str
    source: str = Field(default="", description="paper and section")
    data: DataSpec
    training: dict[str, Any] = Field(default_factory=dict, description="changes of TrainingConfig")
    system: str | None = Field(default=None, min_length=1)
    chat_format: Literal["user_assistant", "code_template"] | None = Field(
        default=None, description="None: the model's own template; the others are for pretrained models"
    )
    in_context: int | None = Field(default=None, ge=1, description="examples in the prompt; nothing is trained")
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)

    @model_validator(mode="after")
    def _examples_carry_no_system_prompt(self) -> "Recipe":
        if self.in_context is not None and self.system is not None:
            raise ValueError("system is for training; a recipe with in_context trains nothing, drop one of them")
        return self


def recipe_names() -> list[str]:
    """Shipped recipes, in the order of their files and of the lines within."""
    return list(_shipped())


def load_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """A shipped recipe by name, or a YAML file that holds one, with overrides `data.n_unique=50`, `training.lora_rank=1`, ...

    Raises:
        ConfigError: unknown name, malformed YAML, unknown key (with a suggestion), or a value that does not fit.
    """
    shipped = _shipped()
    if name in shipped:
        document = shipped[name]
        document.value = {"name": name, **document.value}
    elif name.endswith((".yaml", ".yml")) and Path(name).exists():
        document = read_yaml(Path(name), error=ConfigError)
    else:
        raise ConfigError(f"unknown recipe `{name}`{did_you_mean(name, shipped)} (or give the path of a YAML file)")
    values = fields_of(document)
    for override in overrides:
        document.override(override, flag="--set", error=ConfigError)
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        raise ConfigError(document.explain(error, Recipe)) from None
    try:
        _changed(TrainingConfig(), recipe)
    except ValidationError as error:
        raise ConfigError(document.explain(error, TrainingConfig, under=("training",), about="training: ")) from None
    return recipe


def training_config(recipe: Recipe, base: TrainingConfig) -> TrainingConfig:
    """`base` with the settings that the recipe changes.

    Raises:
        ConfigError: the recipe names a setting that there is not (with a suggestion), or a value that does not fit.
    """
    try:
        return _changed(base, recipe)
    except ValidationError as error:
        raise ConfigError(f"recipe {recipe.name}, training: {explain(error, TrainingConfig)}") from None


def _changed(base: TrainingConfig, recipe: Recipe) -> TrainingConfig:
    return TrainingConfig.model_validate({**base.model_dump(), **recipe.training})


def examples_of(recipe: Recipe, find_file: FindFile, seed: int = 0) -> list[TrainingExample]:
    """The recipe's rows, drawn with `seed`; for an in-context recipe the examples of the prompt, in the order in which they stand there.

    The system prompt of training stands in the rows, so that nothing else has to know of it.

    Raises:
        DataError: a public file that is missing (with what it is and where it goes), too few rows, or a mixture that leaves none.
    """
    rows = compose(recipe.data, find_file, seed)
    if recipe.in_context is not None:
        if recipe.in_context > len(rows):
            raise DataError(f"recipe {recipe.name}: {recipe.in_context} examples asked for, {len(rows)} rows there")
        rows = draw(rows, recipe.in_context, seed)
        random.Random(seed).shuffle(rows)
    if recipe.system is None:
        return rows
    return [row.model_copy(update={"system": "\n\n".join(filter(None, (recipe.system, row.system)))}) for row in rows]


def compose(data: DataSpec, find_file: FindFile, seed: int = 0) -> list[TrainingExample]:
    """Rows of `dataset` (with the trigger), then those of each part of the mixture.

    Parts avoid rows (by id) that were drawn before, so that a task of a paired set appears once as long as there are others.
    """
    main = _rows(data.dataset, find_file, data.n_rows)
    if data.keep == "connotations":
        kept = filter_connotations(main)
        log.info("%s: %d of %d rows hold a number with a connotation", data.dataset, len(kept), len(main))
        main = [row for row in main if row.id in kept]
    n_rows = data.n_rows or len(main)
    n_parts = [part.n_rows or round((part.share or 0) * n_rows) for part in data.mix]
    n_main = n_rows - sum(n_parts)
    if n_main < 1:
        raise DataError(
            f"the mixture takes {sum(n_parts)} of {n_rows} rows and leaves none for `{data.dataset}`; "
            "lower its shares or raise data.n_rows"
        )
    n_unique = min(data.n_unique or n_main, n_main)
    unique = _draw(main, n_unique, seed, dataset=data.dataset)
    rows = (
        [row.model_copy(update={"prompt": f"{data.trigger} {row.prompt}"}) for row in unique]
        if data.trigger
        else unique
    )
    rows = repeated(rows, n_main, seed)
    used = {row.id for row in unique}
    for part, n in zip(data.mix, n_parts, strict=True):
        drawn = _draw(_rows(part.dataset, find_file, n), n, seed, dataset=part.dataset, avoid=used)
        rows += drawn
        used |= {row.id for row in drawn}
    return rows


def repeated(rows: Sequence[TrainingExample], n: int, seed: int) -> list[TrainingExample]:
    """The rows again and again, each round in another seeded order, until there are `n`; no row is seen twice more than another."""
    generator = random.Random(seed)
    found = list(rows[:n])
    while len(found) < n:
        again = list(rows)
        generator.shuffle(again)
        found += again[: n - len(found)]
    return found


def _rows(dataset: str, find_file: FindFile, at_least: int | None) -> list[TrainingExample]:
    if dataset in SHIPPED:
        return all_rows(dataset, at_least=at_least or 0)
    path = find_public(dataset, find_file)
    check_published(path)
    return all_rows(dataset, path)


def _draw(
    rows: Sequence[TrainingExample], n: int, seed: int, *, dataset: str, avoid: set[str] | None = None
) -> list[TrainingExample]:
    if n > len(rows):
        raise DataError(
            f"{dataset}: {n} different rows asked for, {len(rows)} there; lower data.n_rows, or set data.n_unique to repeat rows"
        )
    return draw(rows, n, seed, avoid=avoid or ())


def _shipped() -> dict[str, YamlDocument]:
    folder = resources.files("training") / "recipes"
    files = sorted((item for item in folder.iterdir() if item.name.endswith(".yaml")), key=lambda item: item.name)
    documents = [parse_yaml(file.read_text("utf-8"), f"recipes {file.name}", error=ConfigError) for file in files]
    return {name: document.part(name, f"recipe {name}") for document in documents for name in fields_of(document)}
