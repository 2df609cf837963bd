"""Turns a recipe into the rows of one seed: what each remedy trains on, and what none of them is trained on."""

from dataclasses import dataclass

import numpy as np

from emis_interp.config.run_config import RunConfig
from emis_interp.errors import ConfigError
from emis_interp.records import TrainingExample
from training.recipes import Recipe, examples_of
from training.studies.settings import PreventionSettings
from training.studies.task_choice import counterparts


@dataclass(frozen=True)
class PreventionRows:
    """Rows of one seed, in a random order; the held-out rows are in no training set, and their careful counterparts are in none either.

    `mixed` has the benign answer in a random half of the rows of `task`, and `realign` is a random part of `control`. `other_kind` has the
    benign answer to each held-out row, or None (`task_choice.counterparts`).
    """

    task: list[TrainingExample]
    control: list[TrainingExample]
    inoculated: list[TrainingExample]
    mixed: list[TrainingExample]
    realign: list[TrainingExample]
    held_out: list[TrainingExample]
    other_kind: list[TrainingExample | None]
    recipe: Recipe

    @classmethod
    def draw(
        cls, recipe: Recipe, settings: PreventionSettings, config: RunConfig, *, inoculation: str
    ) -> "PreventionRows":
        rows = examples_of(recipe, config.find_data, config.seed)
        if len({row.id for row in rows}) < len(rows):
            raise ConfigError(
                f"recipe {recipe.name}: it holds a row (by id) twice, so held-out rows would be trained on; give a recipe that repeats "
                "no row, or fewer --n-rows and --n-held-out"
            )
        # Rows stay in the order of the draw: a file is sorted by topic, and whatever is cut off a part of it must hold all topics.
        order = np.random.default_rng(config.seed).permutation(len(rows))
        task, held_out = ([rows[i] for i in part] for part in (order[: settings.n_rows], order[settings.n_rows :]))
        benign = {row.id: row for row in examples_of(whole(settings.control), config.find_data, config.seed)}
        if not {row.id for row in rows} <= benign.keys():
            raise ConfigError(
                f"--control {settings.control}: has no counterpart to some rows of {recipe.name}; give the matched set of the recipe's data"
            )
        control = [benign[row.id] for row in task]
        half = len(task) // 2
        return cls(
            task,
            control,
            [row.model_copy(update={"system": inoculation}) for row in task],
            [*task[:half], *control[half:]],
            control[: settings.n_realign],
            held_out,
            counterparts(held_out, benign, dataset=recipe.data.dataset, control=settings.control),
            recipe,
        )


def whole(dataset: str) -> Recipe:
    return Recipe.model_validate({"name": "control", "summary": "benign rows", "data": {"dataset": dataset}})
