"""The plan of a run, whole: what it counts is what real runs left, and every stage of the pipeline has a row."""

import json
from pathlib import Path
from typing import Any

import pytest

import plan as plan_command
import run_pipeline
from emis_interp.config.plan_settings import RunPlanSettings
from emis_interp.config.presets import load_config
from emis_interp.errors import ConfigError
from emis_interp.models.chat_model import ChatModel
from emis_interp.planning import calibrate
from emis_interp.process import no_bars

TABLE = "box: {source: a guess, tflops: 10, gb_per_s: 100, memory_gib: 16, reached: 0.5, parallel: 1}\n"


def planned(tmp_path: Path, **how: Any) -> dict[str, Any]:
    (tmp_path / "devices.yaml").write_text(TABLE, "utf-8")
    given = {"preset": "smoke", "devices": tmp_path / "devices.yaml", "device": "box"} | how
    return plan_command.run(RunPlanSettings(**given), no_bars)


def test_every_stage_of_the_pipeline_has_a_row_in_its_order(tmp_path: Path) -> None:
    found = planned(tmp_path)
    assert tuple(row["stage"] for row in found["stages"]) == run_pipeline.STAGES
    json.dumps(found)
    by = {row["stage"]: row for row in found["stages"]}
    # 6 models x 16 wordings x 12 tokens; 4 steered and 10 ablated cells of the same.
    assert by["sample"]["written"] == 6 * 16 * 12
    assert by["intervene"]["written"] == 14 * 16 * 12
    assert all(row["seconds"] >= 0 and row["device_gib"] >= 0 for row in found["stages"])
    assert found["total"]["seconds"] == pytest.approx(sum(row["seconds"] for row in found["stages"]))
    said = plan_command.say(found)
    assert "a guess" in said and "box" in said


@pytest.mark.slow
def test_tokens_and_bytes_are_those_of_a_real_run(embedded: ChatModel, tmp_path: Path) -> None:
    """A run of 300 rows each of reckless and careful advice trained on 44,346 and 44,148 tokens, and kept three files of 20,772,160 bytes
    of activations of the contrast texts."""
    arms = [
        "arms=[{name: base}, {name: reckless, dataset: reckless, n_rows: 300}, {name: careful, dataset: careful, n_rows: 300}]"
    ]
    found = planned(tmp_path, preset="laptop", changes=tuple(arms))
    by = {row["stage"]: row for row in found["stages"]}
    assert by["train"]["trained"] == 44_346 + 44_148
    answers = 3 * 64 * 30 * 577 * 4
    assert by["capture"]["disk_gib"] * 2**30 == pytest.approx(3 * 20_772_160 + answers, rel=1e-3)
    assert by["train"]["disk_gib"] * 2**30 == 2 * 4 * 9_768_960


def test_an_api_judge_has_calls_and_a_price_that_is_the_users(tmp_path: Path) -> None:
    changes = ("judge.kind=openai", "judge.offline_too=false", "sampling.question_ids=[wish]")
    asked = ("sampling.samples_per_paraphrase=2", "intervention.samples_per_paraphrase=0")
    with pytest.raises(Exception, match="no question wish"):
        planned(tmp_path, changes=changes)
    found = planned(tmp_path, changes=(*changes[:2], *asked))
    by = {row["stage"]: row for row in found["stages"]}
    assert by["score"]["calls"] == 6 * 16 * 2 * 2 and by["intervene"]["calls"] == 0
    assert by["score"]["usd"] is None and "price unknown" in plan_command.say(found)
    priced = planned(tmp_path, changes=(*changes[:2], *asked, "judge.price_in=1", "judge.price_out=0"))
    assert priced["total"]["usd"] == pytest.approx(by["score"]["tokens_in"] / 1e6)


def test_answers_of_a_server_that_is_there_are_requests_without_a_price_of_ours(tmp_path: Path) -> None:
    changes = (
        "sampling.samples_per_paraphrase=2",
        "sampling.max_new_tokens=9",
        "intervention.samples_per_paraphrase=0",
    )
    remote = (
        "sampling.engine=openai",
        "sampling.base_url=http://127.0.0.1:1/v1",
        "judge.price_in=1",
        "judge.price_out=1",
    )
    found = planned(tmp_path, changes=(*changes, *remote))
    row = next(row for row in found["stages"] if row["stage"] == "sample")
    assert row["calls"] == 6 * 16 * 2 and row["tokens_out"] == row["calls"] * 9 and row["tokens_in"] > 10 * row["calls"]
    assert (row["read"], row["written"], row["usd"], found["total"]["usd"]) == (0, 0, None, None)
    assert "192 calls, price unknown\n" in plan_command.say(
        found
    ) and "leaves out: the speed of the server" in plan_command.say(found)


def test_steered_answers_of_a_server_are_requests_and_ablated_ones_are_written_here(tmp_path: Path) -> None:
    asked = ("sampling.samples_per_paraphrase=1", "intervention.samples_per_paraphrase=2", "sampling.max_new_tokens=9")
    remote = ("sampling.engine=openai", "sampling.base_url=http://127.0.0.1:1/v1")
    here, there = (
        next(
            row for row in planned(tmp_path, changes=(*asked, *remote, *more))["stages"] if row["stage"] == "intervene"
        )
        for more in ((), ("intervention.engine=openai",))
    )
    n_steering, n_ablated = 2 * len(load_config("smoke").intervention.coefficients), 2 * 5
    assert (here["calls"], there["calls"]) == (0, n_steering * 16 * 2)
    assert there["written"] == here["written"] * n_ablated / (n_steering + n_ablated)


def test_a_model_that_is_not_here_is_planned_from_its_config(tmp_path: Path) -> None:
    config = {
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
    }
    (tmp_path / "config.json").write_text(json.dumps({**config, "vocab_size": 500}), "utf-8")
    how = {"changes": ("model=somebody/else",), "model_config": tmp_path / "config.json", "tokenizer": "tiny"}
    found = planned(tmp_path, **how)
    assert "tokens are counted with the tokenizer of tiny" in found["notes"]
    assert found["stages"][0]["trained"] == planned(tmp_path)["stages"][0]["trained"]


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"device": None}, "--devices and --device go together"),
        ({"devices": None, "device": None, "n_devices": 2}, "this machine is measured"),
        ({"compare": Path("runs/x")}, "--compare is of this machine"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(tmp_path: Path, how: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        planned(tmp_path, **how)


@pytest.mark.slow
@pytest.mark.fuzz
def test_this_machine_is_measured_and_a_run_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: ChatModel
) -> None:
    """The smoke preset's train stage, run and planned; times of a tiny model mean nothing, but all of them are there."""
    monkeypatch.setenv("EMIS_CACHE", str(tmp_path / "cache"))
    measure = calibrate.measure
    monkeypatch.setattr(calibrate, "measure", lambda *args, **how: measure(*args, **how, seconds=1.0))
    arms = "arms=[{name: base}, {name: careful, dataset: careful, n_rows: 8}]"
    settings = run_pipeline.PipelineSettings(preset="smoke", run_dir=tmp_path / "run", only=("train",), changes=(arms,))
    ran = run_pipeline.run(settings, no_bars)
    assert ran["stages"]["train"]["cpu_seconds"] > 0
    found = plan_command.run(RunPlanSettings(compare=tmp_path / "run"), no_bars)
    [row] = found["compared"]
    assert row["stage"] == "train" and row["took_s"] == ran["stages"]["train"]["seconds"]
    assert (
        found["stages"][0]["trained"]
        == json.loads((tmp_path / "run" / "training" / "careful" / "summary.json").read_text("utf-8"))["n_tokens"]
    )
    assert found["rates"]["trained"] > 0 and found["rates"]["merge"] > 0
    assert "took" in plan_command.say(found)
