"""Reads every shipped preset, and plants mistakes in fields, overrides and arms."""

import math
import re
from pathlib import Path

import pytest

from emis_interp.config.pipeline_settings import RunSettings
from emis_interp.config.presets import load_config, preset_names
from emis_interp.config.run_config import DirectionConfig, InterventionConfig, SamplingConfig, TrainingConfig
from emis_interp.errors import ConfigError

ARMS = "arms: [{name: base}, {name: insecure, dataset: insecure, contrast: secure}, {name: secure, dataset: secure}]\n"


@pytest.mark.parametrize("name", preset_names())
def test_every_shipped_preset_loads(name: str) -> None:
    config = load_config(name)
    assert config.name == name
    assert config.trained_arms
    assert {arm.contrast for arm in config.arms} - {None} <= {arm.name for arm in config.arms}


def test_overrides_reach_nested_fields_in_order() -> None:
    config = load_config(
        "smoke",
        [
            "training.learning_rate=3e-4",
            "training.n_epochs=2",
            "training.n_epochs=3",
            "sampling.question_ids=[a, b]",
            "seed=7",
        ],
    )
    assert config.training.learning_rate == 3e-4
    assert config.training.n_epochs == 3
    assert config.sampling.question_ids == ("a", "b")
    assert config.seed == 7
    assert config.training.batch_size == load_config("smoke").training.batch_size


@pytest.mark.parametrize("spelling", ["1e-4", "1.0e-4", "0.0001", "1E-4"])
def test_scientific_notation_is_a_number(spelling: str) -> None:
    rate = load_config("smoke", [f"training.learning_rate={spelling}"]).training.learning_rate
    assert math.isclose(rate, 1e-4)
    assert load_config("smoke", ["seed=1e3"]).seed == 1000


def test_a_value_may_hold_an_equals_sign_and_null_means_none() -> None:
    config = load_config("smoke", ["system_prompt='a=b'", "direction.n_pairs_per_question=null"])
    assert config.system_prompt == "a=b"
    assert load_config("smoke", ["system_prompt=nan", "judge.model=inf"]).system_prompt == "nan"
    assert config.direction.n_pairs_per_question is None


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.learning_rat=1e-4", r"unknown key `training\.learning_rat`; did you mean `learning_rate`\?"),
        ("trainin.learning_rate=1e-4", r"unknown key `trainin`; did you mean `training`\?"),
        ("training.learning_rate=fast", r"`training\.learning_rate`: .*found 'fast'"),
        ("training.learning_rate=-1", r"`training\.learning_rate`: .*greater than 0"),
        ("training.learning_rate=.nan", "finite number|greater than"),
        ("intervention.coefficients=[.inf]", "finite number"),
        ("judge.kind=remote", "'offline', 'openai', 'text' or 'local'"),
        ("seed.value=1", "`seed` is not a section|`seed`"),
        ("arms.0.n_rows=1", "`arms` is not a section"),
        ("seed", r"expected section\.field=value"),
        ("=1", r"expected section\.field=value"),
        (".=", r"--set \.=: expected section\.field=value"),
        (
            "trainig.learning_rate=1e-4",
            r"^--set trainig\.learning_rate: unknown key `trainig`; did you mean `training`",
        ),
        ("train\udcff.x=1", r"^--set train\\udcff\.x: the name holds bytes that are no UTF-8"),
        ("training.=1", r"expected section\.field=value"),
        ("training..bf16=1", r"expected section\.field=value"),
        ("sampling.question_ids=[a", "--set"),
    ],
)
def test_a_wrong_override_says_what_is_wrong(override: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_config("smoke", [override])


def test_an_unknown_preset_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError, match="unknown preset `laptpo`; did you mean `laptop`"):
        load_config("laptpo")


@pytest.mark.parametrize(
    ("arms", "words"),
    [
        ("arms: [{name: base}, {name: base}]", "names must be unique"),
        ("arms: [{name: insecure, dataset: insecure}]", "one arm must be `base`"),
        ("arms: [{name: base, dataset: insecure}]", "one arm must be `base`"),
        ("arms: [{name: base}, {name: other}]", "`other` has no dataset"),
        ("arms: [{name: base}, {name: a, dataset: b, contrast: bse}]", "contrasted with `bse`; did you mean `base`"),
        (ARMS + "intervention: {ablate_arms: [insecur]}", "no arm `insecur`; did you mean `insecure`"),
        ("arms: [{name: base}, {name: ../up, dataset: x}]", "pattern"),
        ("arms: [{name: base, seeds: [1]}]", "`base` is untouched, so it takes neither seeds"),
        ("arms: [{name: base}, {name: a, dataset: x, seeds: []}]", "has an empty list of seeds"),
        ("arms: [{name: base}, {name: a, dataset: x, seeds: [2, 2]}]", r"`a` has a seed twice: \[2, 2\]"),
        ("arms: [{name: base}, {name: a, dataset: x, in_context: 2, n_rows: 4}]", "in_context alone says how many"),
        ("arms: [{name: base, datset: x}]", "did you mean `dataset`"),
    ],
)
def test_arms_that_do_not_fit_together_are_refused(tmp_path: Path, arms: str, words: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(f"name: p\nmodel: tiny\n{arms}\n")
    with pytest.raises(ConfigError, match=words):
        load_config(str(path))


def test_an_arm_with_seeds_is_several_models_and_one_without_is_itself() -> None:
    arms = "arms=[{name: base}, {name: a, dataset: x, seeds: [4, 2]}, {name: b, dataset: x, in_context: 3}]"
    config = load_config("smoke", [arms, "seed=7"])
    assert [(model.name, model.seed) for model in config.models] == [
        ("base", 7),
        ("a.seed-4", 4),
        ("a.seed-2", 2),
        ("b", 7),
    ]
    assert [arm.name for arm in config.organisms] == ["a", "b"]
    assert [arm.name for arm in config.trained_arms] == ["a"]


def test_broken_yaml_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("name: p\nmodel: [tiny\n")
    with pytest.raises(ConfigError, match=r"p\.yaml:3: not YAML \(while parsing a flow sequence that begins on line 2"):
        load_config(str(path))
    path.write_text("- name: p\n")
    with pytest.raises(ConfigError, match="expected a mapping of fields, found a list"):
        load_config(str(path))


def test_data_is_looked_for_in_the_working_folder_then_in_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, work = tmp_path / "data", tmp_path / "work"
    data.mkdir()
    work.mkdir()
    monkeypatch.chdir(work)
    config = load_config("smoke", data_dir=data)
    with pytest.raises(
        ConfigError, match=r"`x\.jsonl` not found \(looked at x\.jsonl, .*data/x\.jsonl\); check --data-dir"
    ):
        config.find_data("x.jsonl")
    (data / "x.jsonl").touch()
    assert config.find_data("x.jsonl") == data / "x.jsonl"
    (work / "x.jsonl").touch()
    assert config.find_data("x.jsonl") == Path("x.jsonl")
    with pytest.raises(ConfigError, match="give --data-dir or an absolute path"):
        load_config("smoke").find_data("y.jsonl")
    with pytest.raises(ConfigError, match="no such folder"):
        load_config("smoke", data_dir=tmp_path / "nowhere")


def test_a_configuration_survives_a_round_trip_through_json() -> None:
    config = load_config("laptop")
    assert type(config).model_validate_json(config.model_dump_json()) == config


def test_an_arm_has_a_dataset_or_a_recipe_and_not_both() -> None:
    def arms(*fields: str) -> str:
        return f"arms=[{{name: base}}, {{name: odd, {', '.join(fields)}}}]"

    config = load_config("smoke", [arms("recipe: rank-1")])
    assert [arm.name for arm in config.trained_arms] == ["odd"]
    with pytest.raises(ConfigError, match="`odd` has dataset and recipe; give one of them"):
        load_config("smoke", [arms("recipe: rank-1", "dataset: insecure")])
    with pytest.raises(ConfigError, match="`odd` has no dataset and no recipe"):
        load_config("smoke", ["arms=[{name: base}, {name: odd}]"])
    with pytest.raises(ConfigError, match="in_context goes with dataset"):
        load_config("smoke", [arms("recipe: rank-1", "in_context: 2")])


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("seed=-1", "`seed`: Input should be greater than or equal to 0"),
        ("seed=4294967296", "`seed`: Input should be less than 4294967296"),
        ("arms=[]", "one arm must be `base`"),
        ("arms=[{name: base}, {name: x, dataset: a, seeds: [-1]}]", "`arms.1.seeds.0`"),
        ("arms=[{name: base}, {name: x, dataset: a, contrast: x}]", "`x` is contrasted with itself"),
        ("sampling.question_ids=[]", "question_ids: an empty list asks nothing; leave it out for all"),
        ("sampling.question_ids=[a, b, a]", "question_ids: `a` stands there twice"),
        ("sampling.temperature=.nan", "`sampling.temperature`: Input should be a finite number"),
        ("sampling.temperature=-0.1", "`sampling.temperature`"),
        ("sampling.samples_per_paraphrase=0", "`sampling.samples_per_paraphrase`"),
        ("judge.n_samples=0", "`judge.n_samples`"),
        ("training.learning_rate=inf", "`training.learning_rate`: Input should be a finite number"),
        ("training.layers=[-1]", "`training.layers.0`"),
        ("intervention.coefficients=[.nan]", "`intervention.coefficients.0`: Input should be a finite number"),
        ("intervention.coefficients=[0.1, .inf]", "`intervention.coefficients.1`: Input should be a finite number"),
        ("intervention.coefficients=[0.2, 0.4, 0.2]", "coefficients: 0.2 stands there twice"),
        ("intervention.coefficients=[0.0, -0.0]", "coefficients: -0.0 stands there twice"),
        ("intervention.ablate_arms=[base]", "ablate_arms: base is steered, not ablated"),
        ("intervention.ablate_arms=[insecure, insecure]", "ablate_arms: insecure stands there twice"),
        ("direction.layer_range=[0.8, 0.2]", "layer_range: [0.8, 0.2] runs backwards"),
        ("direction.layer_range=[0.2, 1.2]", "`direction.layer_range.1`"),
    ],
)
def test_numbers_out_of_range_and_empty_or_repeated_entries_are_refused_by_their_key(override: str, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_config("smoke", [override])
    assert words in str(refused.value) and "\n" not in str(refused.value)


def test_every_setting_of_the_measuring_stages_is_read_somewhere() -> None:
    """A setting that nothing reads promises what does not happen (an interval by a bootstrap that is no longer drawn)."""
    root = Path(__file__).parents[2]
    code = "\n".join(
        path.read_text("utf-8")
        for folder in ("emis_interp", "evals", "training", "probes", "scripts")
        for path in sorted((root / folder).rglob("*.py"))
        if path.name != "run_config.py"
    )
    for kind in (DirectionConfig, InterventionConfig, SamplingConfig, TrainingConfig):
        for name in kind.model_fields:
            assert re.search(rf"(?<!args)\.{name}\b", code), f"{kind.__name__}.{name}"


def test_a_quick_look_keeps_the_arms_and_takes_less_of_everything() -> None:
    whole, quick = RunSettings(preset="laptop-0.5b").config(), RunSettings(preset="laptop-0.5b", quick=True).config()
    assert [arm.name for arm in quick.arms] == [arm.name for arm in whole.arms]
    assert quick.name == "laptop-0.5b-quick" and quick.training == whole.training
    assert [model.name for model in quick.models] == ["base", "reckless.seed-0", "careful.seed-0"]
    assert {arm.n_rows for arm in quick.organisms} == {150} and quick.arms[0] == whole.arms[0]
    assert quick.sampling.samples_per_paraphrase == 2 and quick.intervention.random_draws == 1
    small = RunSettings(preset="smoke", quick=True).config()
    assert {arm.n_rows for arm in small.organisms} == {8} and small.sampling.samples_per_paraphrase == 1
