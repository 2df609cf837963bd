"""Sweep files and flags become cells: their names, what they change, and what is refused."""

import json
from pathlib import Path

import pytest

from emis_interp.config.presets import asked_config
from emis_interp.config.sweep_settings import SweepSettings
from emis_interp.errors import ConfigError
from emis_interp.sweeping.axes import MOST_CELLS, Sweep, sweep_of

FILE = """
preset: smoke
set:
  training: {n_epochs: 2}
axes:
  training.learning_rate: [1e-4, 2.0e-4]
  arms: [reckless, [insecure, careful]]
  intervention:
    weak: {coefficients: [-0.1, 0.1]}
    none: {coefficients: [], ablate_arms: []}
"""


def from_file(folder: Path, text: str, **flags: object) -> Sweep:
    path = folder / "advice.yaml"
    path.write_text(text, encoding="utf-8")
    return sweep_of(SweepSettings(sweep=path, **flags))  # type: ignore[arg-type]


def of(*axes: str, **flags: object) -> Sweep:
    return sweep_of(SweepSettings(preset="smoke", axes=axes, **flags))  # type: ignore[arg-type]


def test_every_combination_is_a_cell_the_first_axis_slowest(tmp_path: Path) -> None:
    sweep = from_file(tmp_path, FILE)
    assert sweep.name == "advice" and len(sweep.cells) == 8
    assert [cell.name for cell in sweep.cells[:3]] == [
        "learning_rate-1e-4_arms-reckless_intervention-weak",
        "learning_rate-1e-4_arms-reckless_intervention-none",
        "learning_rate-1e-4_arms-insecure-careful_intervention-weak",
    ]
    assert sweep.cells[-1].labels == {
        "training.learning_rate": "2.0e-4",
        "arms": "insecure-careful",
        "intervention": "none",
    }
    assert len({cell.config_sha256 for cell in sweep.cells}) == 8


def test_the_settings_of_a_cell_mean_what_the_file_says(tmp_path: Path) -> None:
    cell = from_file(tmp_path, FILE).cells[2]
    config = asked_config("smoke", cell.settings)
    assert config.training.n_epochs == 2 and config.training.learning_rate == 1e-4
    # arms with the controls that they name, and base
    assert [arm.name for arm in config.arms] == ["base", "insecure", "secure", "careful"]
    # a section keeps what the value does not name
    assert config.intervention.coefficients == (-0.1, 0.1) and config.intervention.random_draws == 2


def test_flags_alone_make_a_sweep_and_stand_beside_a_file(tmp_path: Path) -> None:
    assert [cell.name for cell in of("seed=[0, 1]", "device=[cpu]").cells] == ["seed-0_device-cpu", "seed-1_device-cpu"]
    both = from_file(tmp_path, FILE, axes=("seed=[7]",), changes=("check.n_rows=3",))
    assert both.cells[0].name.endswith("_seed-7")
    assert asked_config("smoke", both.cells[0].settings).check.n_rows == 3


@pytest.mark.parametrize(
    ("axis", "label"),
    [
        ("model=[Qwen/Qwen2.5-0.5B]", "model-Qwen2.5-0.5B"),
        ("model=[/data/models/qwen/]", "model-qwen"),
        ("system_prompt=[null]", "system_prompt-none"),
        ("system_prompt=[Be brief!]", "system_prompt-Be-brief-"),
        ("merge_adapters=[no]", "merge_adapters-no"),
        ("direction.layer_range={all: [0, 1]}", "layer_range-all"),
    ],
)
def test_labels_are_names_of_folders(axis: str, label: str) -> None:
    assert of(axis).cells[0].name == label


def test_axes_of_one_last_name_are_told_apart() -> None:
    assert of("check.n_rows=[2]", "training.n_epochs=[1]").cells[0].name == "n_rows-2_n_epochs-1"
    cell = of("sampling.samples_per_paraphrase=[1]", "intervention.samples_per_paraphrase=[2]").cells[0]
    assert cell.name == "sampling.samples_per_paraphrase-1_intervention.samples_per_paraphrase-2"


@pytest.mark.parametrize("text", ["a: b", "yes", "12", "two\nlines", "# no remark", '"', "ünïcode \u2028", "", "{x}"])
def test_any_text_arrives_as_it_is(text: str) -> None:
    cell = of(f"system_prompt={{it: {json.dumps(text)}}}").cells[0]
    assert asked_config("smoke", cell.settings).system_prompt == text


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        ((), "nothing is varied"),
        (("seed",), "expected FIELD=VALUES"),
        (("seed=3",), "--axis seed: found a number, expected a list of values"),
        (("seed=[]",), "has no values"),
        (("sed=[1]",), "no such field; did you mean `seed`?"),
        (("name=[a, b]",), "every run has the name of its cell"),
        (("seed=[1, 1]",), "two values are called `1`"),
        (("seed=[1, -1]",), "cell seed--1: --set seed"),
        (("training.learning_rat=[1]",), "cell learning_rat-1: --set training.learning_rat"),
        (("arms=[reckles]",), "the preset has no arm `reckles`; did you mean `reckless`?"),
        (("seed={a: 1, b: 1}",), "cells seed-a and seed-b are the same configuration"),
        (("device=[cpu, cuda]",), "cells device-cpu and device-cuda are the same configuration"),
        (("intervention.coefficients=[[0.1]]",), "a value is a list; give the values names"),
        (("seed={a/b: 1}",), "leads to another folder"),
        (("seed={a b: 1}",), "becomes part of a folder's name"),
        (("seed={" + "a" * 120 + ": 1}",), "100 at most"),
        ((f"seed=[{', '.join(map(str, range(MOST_CELLS + 1)))}]",), "1,001 cells are more than 1,000"),
    ],
)
def test_what_is_no_sweep_is_refused(axes: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        of(*axes)
    assert words in str(error.value)


def test_a_file_names_its_line_and_may_not_choose_a_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"advice\.yaml:2: unknown key `axis`; did you mean `axes`"):
        from_file(tmp_path, "preset: smoke\naxis: {seed: [1]}\n")
    with pytest.raises(ConfigError, match=r"advice\.yaml:3: axes\.seed: found text"):
        from_file(tmp_path, "preset: smoke\naxes:\n  seed: one\n")
    with pytest.raises(
        ConfigError, match=r"advice\.yaml: cell seed-1_training-a: --set training\.lora_rnk: unknown key"
    ):
        from_file(tmp_path, "preset: smoke\naxes: {seed: [1], training: {a: {lora_rnk: 2}}}\n")
    with pytest.raises(ConfigError, match=r"advice\.yaml: --set training\.lora_rnk: unknown key"):
        from_file(tmp_path, "preset: smoke\nset: {training: {lora_rnk: 2}}\naxes: {seed: [1]}\n")
    with pytest.raises(ConfigError, match=r"advice\.yaml: nothing is varied"):
        from_file(tmp_path, "preset: smoke\n")
    for text in ("set: {judge: {key_variable: SECRET}}", "axes: {judge: {x: {key_variable: SECRET}}}"):
        with pytest.raises(ConfigError, match="does not end with API_KEY"):
            from_file(tmp_path, f"preset: smoke\n{text}\n", axes=("seed=[1]",))


def test_the_hash_is_of_what_decides_a_run() -> None:
    one = of("seed=[0]").cells[0].config_sha256
    assert of("seed={zero: 0}", changes=("device=cuda", "judge.n_parallel=3")).cells[0].config_sha256 == one
    assert of("seed=[0]", changes=("sampling.temperature=0.5",)).cells[0].config_sha256 != one
