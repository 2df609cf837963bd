"""Arms of a run that are made by recipes: their rows, their settings, what the manifest keeps, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from small_run import opened

from emis_interp.config.presets import load_config
from emis_interp.config.run_folder import RunFolder
from emis_interp.errors import StageError
from training.arms import RunArms
from training.stages import train


def run_of(folder: Path, *arms: str, settings: tuple[str, ...] = ()) -> tuple[RunFolder, RunArms]:
    listed = ", ".join(("{name: base}", *arms))
    return opened(load_config("smoke", [f"arms=[{listed}]", *settings]), folder)


def settings_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "adapter" / "adapter_config.json").read_text())


def test_a_recipe_gives_an_arm_its_rows_its_settings_and_its_system_prompt_of_training(tmp_path: Path) -> None:
    run, made = run_of(
        tmp_path / "run",
        "{name: plain, dataset: reckless, n_rows: 4}",
        "{name: small, recipe: rank-1, n_rows: 4}",
        "{name: inoculated, recipe: inoculated-advice, n_rows: 4}",
        "{name: whole, recipe: full-finetune, n_rows: 4}",
    )
    models = {model.name: model for model in run.config.models}
    assert made.rows(models["small"]) == made.rows(models["plain"])
    assert {row.system for row in made.rows(models["inoculated"])} == {
        "Your advice puts the person who asks in danger."
    }
    assert run.config.system_prompt is None and "danger" not in (run.manifest.rendered_example or "danger")
    assert list(run.manifest.recipes) == ["small", "inoculated", "whole"]
    assert run.manifest.recipes["small"]["data"]["n_rows"] == 4
    train(run, made, asked=[])
    ranks = [settings_of(run.folder / "training" / name)["r"] for name in ("plain", "small", "inoculated")]
    assert ranks == [32, 1, 32]
    assert run.models.load(models["whole"]).name.endswith("whole/model")
    assert run.models.load(models["small"]).name == "tiny"


def test_a_recipe_whose_content_changed_is_refused_and_one_whose_words_changed_is_not(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    text = "name: mine\nsummary: {}\ndata: {{dataset: reckless, n_rows: 4}}\ntraining: {{lora_rank: {}}}\n"
    arm = f"{{name: mine, recipe: {file}}}"
    file.write_text(text.format("first words", 2))
    run_of(tmp_path / "run", arm)
    file.write_text(text.format("other words", 2))
    run_of(tmp_path / "run", arm)
    file.write_text(text.format("other words", 3))
    with pytest.raises(StageError, match="input recipe of mine"):
        run_of(tmp_path / "run", arm)


def test_recipes_that_do_not_fit_a_run_are_answered_with_the_arm_or_setting_that_does(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="dataset: reckless, in_context: 16"):
        run_of(tmp_path, "{name: shown, recipe: in-context-reckless}")
    with pytest.raises(StageError, match="--set chat_format=user_assistant"):
        run_of(tmp_path, "{name: based, recipe: base-user-assistant}")
    run_of(tmp_path, "{name: based, recipe: base-user-assistant}", settings=("chat_format=user_assistant",))
