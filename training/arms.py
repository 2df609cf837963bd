"""Turns the arms of a run's configuration into rows, recipes, training settings and folders, and says where each model's weights lie."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from emis_interp.config.run_config import ArmConfig, ModelConfig, RunConfig, TrainingConfig
from emis_interp.config.run_folder import RunFolder, config_of
from emis_interp.config.run_models import ModelSource
from emis_interp.errors import StageError
from emis_interp.files.store import text_sha256
from emis_interp.records import TrainingExample
from training.data_sets.shipped import SHIPPED, load_dataset, rows_sha256
from training.finetuning.weights import ARTIFACTS
from training.recipes import Recipe, examples_of, load_recipe, training_config


def read_run(folder: Path) -> RunFolder:
    """The run of a folder, to be read: its configuration, its contrast pairs, the models of its arms.

    Raises:
        StageError: no run there. DataError: its manifest is damaged.
    """
    config = config_of(folder)
    return RunFolder(config, folder, RunArms(config, folder).source)


@dataclass(frozen=True)
class RunArms:
    """What the arms of a run are made of, and where in its folder they are trained."""

    config: RunConfig
    folder: Path

    def training_dir(self, model: ModelConfig) -> Path:
        """training/ARM, or training/ARM/seed-N for an arm with seeds."""
        folder = self.folder / "training" / model.arm.name
        return folder if model.arm.seeds is None else folder / f"seed-{model.seed}"

    def weights(self, model: ModelConfig) -> Path:
        """The folder of a trained model's weights."""
        return self.training_dir(model) / ARTIFACTS[self.training(model.arm).method]

    def source(self, model: ModelConfig) -> ModelSource:
        """What `ArmModels` loads."""
        if model.arm.untouched:
            return ModelSource()
        if model.arm.in_context is not None:
            return ModelSource(examples=partial(self.rows, model))
        weights = self.weights(model)
        is_whole = self.training(model.arm).method == "full"
        return ModelSource(checkpoint=weights) if is_whole else ModelSource(adapter=weights)

    def rows(self, model: ModelConfig) -> list[TrainingExample]:
        """What a model is trained on, or has in its context, drawn with its seed."""
        arm = model.arm
        if (recipe := self.recipe(arm)) is not None:
            return examples_of(recipe, self.config.find_data, model.seed)
        file = None if arm.dataset in SHIPPED else self.config.find_data(str(arm.dataset))
        return load_dataset(str(arm.dataset), file, arm.in_context or arm.n_rows, seed=model.seed)

    def recipe(self, arm: ArmConfig) -> Recipe | None:
        """The arm's recipe with the arm's number of rows, or None for an arm without one.

        Raises:
            StageError: a recipe that does not fit a run: one in context, or in another chat format than the run's.
        """
        if arm.recipe is None:
            return None
        recipe = load_recipe(arm.recipe, [] if arm.n_rows is None else [f"data.n_rows={arm.n_rows}"])
        if recipe.in_context is not None:
            raise StageError(
                f"arm `{arm.name}`: recipe {recipe.name} trains nothing; write the arm as "
                f"{{name: {arm.name}, dataset: {recipe.data.dataset}, in_context: {recipe.in_context}}}"
            )
        if recipe.chat_format not in (None, self.config.chat_format):
            raise StageError(
                f"arm `{arm.name}`: recipe {recipe.name} trains in the format {recipe.chat_format}, in which every arm must then be "
                f"asked; --set chat_format={recipe.chat_format}"
            )
        return recipe

    def training(self, arm: ArmConfig) -> TrainingConfig:
        """The run's training settings, with the changes of the arm's recipe."""
        recipe = self.recipe(arm)
        return self.config.training if recipe is None else training_config(recipe, self.config.training)

    def recipes(self) -> dict[str, dict[str, Any]]:
        """The arms' recipes, for the manifest."""
        found = {arm.name: self.recipe(arm) for arm in self.config.organisms}
        return {name: recipe.model_dump(mode="json") for name, recipe in found.items() if recipe is not None}

    def inputs(self) -> dict[str, str]:
        """What decides the arms, by what it is, as hashes: recipes without their words, and rows."""
        found = {}
        for arm in self.config.organisms:
            if (recipe := self.recipe(arm)) is not None:
                found[f"recipe of {arm.name}"] = text_sha256(recipe.model_dump_json(exclude={"summary", "source"}))
        for model in self.config.models:
            if not model.arm.untouched:
                found[f"training data of {model.name}"] = rows_sha256(self.rows(model))
        return found
