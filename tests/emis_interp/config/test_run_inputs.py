"""A run that begins: what it is refused for, and that no weights are read before there is something to do with them."""

from pathlib import Path

import pytest
from small_run import opened

from emis_interp.config.presets import load_config
from emis_interp.config.run_models import ArmModels
from emis_interp.errors import ModelError, StageError
from emis_interp.models import loading
from training.arms import RunArms, read_run


def test_a_run_begins_and_goes_on_without_the_weights_of_its_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: object, **named: object) -> None:
        pytest.fail("weights are loaded to render one prompt")

    monkeypatch.setattr(loading, "load_weights", refuse)
    config = load_config("smoke", ["arms=[{name: base}, {name: shown, dataset: reckless, in_context: 2}]"])
    run, _ = opened(config, tmp_path / "run")
    assert str(run.manifest.rendered_example).endswith("<|im_start|>assistant\n")
    again, _ = opened(config, tmp_path / "run")
    assert again.manifest == run.manifest
    assert read_run(tmp_path / "run").pairs == run.pairs


def test_a_device_that_is_not_here_leaves_no_run_behind(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="unknown device `cdua`"):
        opened(load_config("smoke", ["device=cdua"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_model_that_is_not_trained_yet_is_refused_with_the_stage_that_trains_it(tmp_path: Path) -> None:
    arms = "arms=[{name: base}, {name: x, dataset: reckless}, {name: whole, recipe: full-finetune}]"
    config = load_config("smoke", [arms])
    models = ArmModels(config, RunArms(config, tmp_path).source)
    _, adapter, whole = config.models
    assert [models.weights(model) for model in config.models] == [
        [],
        [tmp_path / "training" / "x" / "adapter"],
        [tmp_path / "training" / "whole" / "model"],
    ]
    for model, words in ((adapter, r"x/adapter: no adapter there"), (whole, r"whole/model: no model there")):
        with pytest.raises(StageError, match=rf"{words}; run the train stage first \(--from train\)"):
            models.load(model)
    assert models.load(config.models[0]) is models.base
