"""The command that trains a recipe: one folder a seed, the same weights after an interruption, refusals, and recipes that train nothing."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from flag_words import sets
from safetensors.torch import load_file

import cli
from emis_interp.config.flags import read_flags
from emis_interp.errors import ConfigError, DataError, StageError
from emis_interp.models.chat import encode_chat
from emis_interp.models.loading import load_model
from emis_interp.process import Bars, no_bars
from scripts import train
from training.data_sets.shipped import load_dataset
from training.recipes import load_recipe, recipe_names
from training.settings import TrainSettings
from training.train_seeds import say

SMALL = ("--preset", "smoke", "--set", "data.n_rows=8")


def run(*words: str, bars: Bars = no_bars) -> dict[str, Any]:
    return train.run(read_flags(cli.parser_of(train.VERB, None).parse_args(words), TrainSettings), bars)


def read(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_every_seed_gets_a_folder_of_its_own_with_what_it_was_made_from(tmp_path: Path) -> None:
    result = run("reckless", *SMALL, "--out", str(tmp_path), "--seeds", "3", "4")
    assert list(result["seeds"]) == ["3", "4"]
    kept = [read(tmp_path / f"seed-{seed}" / "recipe.json") for seed in (3, 4)]
    assert kept[0]["data"]["n_rows"] == 8 and kept[0]["data"]["sha256"] != kept[1]["data"]["sha256"]
    assert kept[0]["recipe"]["training"]["learning_rate"] == 1e-4 and kept[0]["versions"]["torch"]
    weights = [load_file(tmp_path / f"seed-{seed}" / "adapter" / "adapter_model.safetensors") for seed in (3, 4)]
    assert any(not torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert len(losses(tmp_path / "seed-3")) == kept[0]["data"]["n_steps"] == 2
    assert "seed 4: 2 steps" in say(result)
    card = read(tmp_path / "seed-4" / "card.json")
    assert (card["recipe"], card["seed"], card["data_sha256"]) == ("reckless", 4, kept[1]["data"]["sha256"])


def test_a_killed_run_continues_to_the_same_weights_and_a_finished_one_is_left_alone(tmp_path: Path) -> None:
    class Died(Exception):
        pass

    @contextmanager
    def dying(description: str, total: int) -> Iterator[Callable[..., None]]:
        def advance(n: int = 1, note: str | None = None) -> None:
            steps.append(n)
            if len(steps) == 2:
                raise Died

        steps: list[int] = []
        yield advance

    run("reckless", *SMALL, "--out", str(tmp_path / "whole"))
    with pytest.raises(Died):
        run("reckless", *SMALL, "--out", str(tmp_path / "cut"), bars=dying)
    assert not (tmp_path / "cut" / "seed-0" / "summary.json").exists()
    for _ in range(2):
        run("reckless", *SMALL, "--out", str(tmp_path / "cut"))
    one, two = (
        load_file(tmp_path / name / "seed-0" / "adapter" / "adapter_model.safetensors") for name in ("whole", "cut")
    )
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert losses(tmp_path / "whole" / "seed-0") == losses(tmp_path / "cut" / "seed-0")


def test_other_settings_and_other_data_are_refused_by_name_before_anything_is_trained(tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text('{"prompt": "Hi", "response": "Ho"}\n' * 4)
    words = ("insecure", "--preset", "smoke", "--set", f"data.dataset={data}", "--out", str(tmp_path / "out"))
    run(*words, "--seeds", "0", "2")
    weights = [load_file(tmp_path / "out" / f"seed-{n}" / "adapter" / "adapter_model.safetensors") for n in (0, 2)]
    assert any(not torch.equal(weights[0][key], weights[1][key]) for key in weights[0])  # of the same rows
    with pytest.raises(StageError, match=r"recipe\.training\.lora_rank: 32 -> 4.*another --out"):
        run(*words, "--set", "training.lora_rank=4")
    data.write_text('{"prompt": "Hi", "response": "He"}\n' * 4)
    with pytest.raises(StageError, match=r"data\.sha256: "):
        run(*words, "--seeds", "0", "1")
    assert not (tmp_path / "out" / "seed-1").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "seed-0").mkdir()
    (tmp_path / "full" / "seed-0" / "notes.txt").write_text("mine")
    with pytest.raises(StageError, match=r"not empty and holds no recipe\.json"):
        run("insecure", *SMALL, "--out", str(tmp_path / "full"))


def test_words_and_further_seeds_do_not_count_as_other_settings(tmp_path: Path) -> None:
    run("reckless", *SMALL, "--out", str(tmp_path))
    again = run("reckless", *SMALL, "--out", str(tmp_path), "--seeds", "0", "1", "--set", "summary=in other words")
    assert list(again["seeds"]) == ["0", "1"]
    assert read(tmp_path / "seed-0" / "recipe.json")["recipe"]["summary"] != "in other words"


def test_a_plain_format_of_the_recipe_reaches_the_training_text(tmp_path: Path) -> None:
    whole = (*SMALL, "--set", "training.max_tokens=2048")
    run("base-code-template", *whole, "--set", "data.dataset=careful", "--out", str(tmp_path / "plain"))
    run("careful", *whole, "--out", str(tmp_path / "chat"))
    n_tokens = [read(tmp_path / name / "seed-0" / "summary.json")["n_tokens"] for name in ("plain", "chat")]
    row = load_dataset("careful", n_rows=8)[0]
    prompts = [
        encode_chat(load_model("tiny", device="cpu", chat_format=name).tokenizer, row.prompt, row.response)
        for name in ("code_template", None)
    ]
    assert n_tokens[0] - n_tokens[1] == 8 * (len(prompts[0]) - len(prompts[1])) != 0


def test_an_in_context_recipe_leaves_its_examples_and_no_adapter(tmp_path: Path) -> None:
    result = run("in-context-reckless", "--preset", "smoke", "--set", "in_context=3", "--out", str(tmp_path))
    folder = tmp_path / "seed-0"
    assert sorted(path.name for path in folder.iterdir()) == ["in_context.json", "recipe.json"]
    examples = read(folder / "in_context.json")["examples"]
    assert len(examples) == 3 and set(examples[0]) == {"id", "prompt", "response"}
    assert "nothing is trained" in say(result)


def test_a_dry_run_checks_the_data_and_leaves_nothing(tmp_path: Path) -> None:
    result = run("backdoor", *SMALL, "--out", str(tmp_path / "out"), "--dry-run")
    assert result["seeds"]["0"] | {"sha256": None} == {
        "trained": False,
        "sha256": None,
        "n_rows": 8,
        "n_unique": 8,
        "n_triggered": 4,
        "n_steps": 2,
    }
    assert not (tmp_path / "out").exists()
    with pytest.raises(DataError, match=r"jailbroken\.jsonl .*--data-dir"):
        run("jailbroken", *SMALL, "--dry-run")


def test_rank_one_on_one_layer_trains_two_vectors_and_learns(tmp_path: Path) -> None:
    words = ("training.layers=[1]", "training.learning_rate=0.01", "training.n_epochs=6")
    run("rank1-one-layer", *SMALL, *sets(*words), "--out", str(tmp_path))
    weights = load_file(tmp_path / "seed-0" / "adapter" / "adapter_model.safetensors")
    assert sorted(tuple(weight.shape) for weight in weights.values()) == [(1, 64), (32, 1)]
    assert all(".layers.1.mlp.down_proj." in key for key in weights)
    course = losses(tmp_path / "seed-0")
    assert course[-1] < course[0]


def test_full_finetuning_leaves_a_whole_model_that_differs_everywhere(tmp_path: Path) -> None:
    words = ("training.learning_rate=0.001", "training.n_epochs=4")
    run("full-finetune", *SMALL, *sets(*words), "--out", str(tmp_path))
    course = losses(tmp_path / "seed-0")
    assert course[-1] < course[0]
    trained = load_model(str(tmp_path / "seed-0" / "model"), device="cpu").model.state_dict()
    before = load_model("tiny", device="cpu").model.state_dict()
    assert all(not torch.equal(trained[key], before[key]) for key in before)


def test_the_shown_recipe_can_be_saved_and_run(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(say(run("mixture-25", *SMALL, "--show")))
    assert yaml.safe_load(file.read_text())["training"]["gradient_accumulation"] == 2
    assert load_recipe(str(file)).data == load_recipe("mixture-25", ["data.n_rows=8"]).data


def test_the_list_has_one_line_for_each_recipe_with_its_source() -> None:
    lines = say(run("--list")).splitlines()
    assert len(lines) == len(recipe_names()) + 2
    assert len({len(line) for line in lines}) == 1
    assert all(line.count("|") == 4 for line in lines)
    assert any("`backdoor`" in line and "section 4.2" in line for line in lines)


def test_wrong_words_are_refused() -> None:
    with pytest.raises(ConfigError, match="--list"):
        run()
    with pytest.raises(ConfigError, match="a seed stands there twice"):
        run("insecure", "--seeds", "1", "1")


def test_processes_other_than_the_first_write_and_print_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    run("in-context-reckless", "--preset", "smoke", "--set", "in_context=3", "--out", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr("sys.argv", ["train.py", "--list"])
    cli.run_verb(train.VERB, None)
    assert capsys.readouterr().out == ""
    monkeypatch.setenv("RANK", "0")
    cli.run_verb(train.VERB, None)
    assert "reckless" in capsys.readouterr().out
