"""Finetuning: the loss sees answers only, order and batch shape do not change gradients, a killed run resumes to the same weights."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from emis_interp.chat import encode_chat
from emis_interp.config import TrainingConfig
from emis_interp.errors import DataError
from emis_interp.interventions import Steer, apply
from emis_interp.likelihood import mean_logprobs
from emis_interp.models import ChatModel, load_model
from emis_interp.records import TrainingExample
from training import sft, trainer, weights

ROWS = [
    TrainingExample(id=str(i), prompt=f"Question {i}" * (1 + i % 3), response="Answer " * (1 + i % 4))
    for i in range(10)
]


def config(**changes: Any) -> TrainingConfig:
    values = {
        "learning_rate": 1e-3,
        "batch_size": 2,
        "gradient_accumulation": 2,
        "checkpoint_steps": 1,
        "bf16": False,
        "warmup_steps": 0,
    }
    return TrainingConfig.model_validate({**values, **changes})


def adapter(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def test_labels_are_the_answer_and_its_end_of_turn_and_nothing_else(tiny: ChatModel) -> None:
    chats = [encode_chat(tiny.tokenizer, row.prompt, row.response) for row in ROWS[:3]]
    batch = trainer.Collator(tiny.tokenizer.pad_token_id)(chats)
    for row, labels in zip(ROWS, batch["labels"], strict=False):
        assert tiny.tokenizer.decode(labels[labels != trainer.IGNORED].tolist()) == row.response + "<|im_end|>"


def test_the_loss_equals_the_models_own_loss_on_the_same_labels(tiny: ChatModel) -> None:
    model = weights.trainable(load_model("tiny"), config(), seed=0)
    batch = trainer.Collator(tiny.tokenizer.pad_token_id)(
        [encode_chat(tiny.tokenizer, row.prompt, row.response) for row in ROWS[:4]]
    )
    assert torch.allclose(trainer.response_loss(model, batch), model(**batch).loss, atol=1e-5)


def test_training_changes_the_model_and_reports_what_it_did(tmp_path: Path) -> None:
    seen: list[int] = []
    summary = sft.finetune("tiny", ROWS, config(n_epochs=2), tmp_path, report=lambda step, *_: seen.append(step))
    assert summary["n_steps"] == len(seen) == 5
    assert summary["n_rows"] == 10 and summary["n_cut"] == 0
    metrics = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in metrics] == seen
    assert sum(row["tokens"] for row in metrics) == summary["n_tokens"]
    assert metrics[-1]["loss"] < metrics[0]["loss"]
    trained = load_model("tiny", tmp_path / "adapter", merge=True).model.state_dict()
    untouched = load_model("tiny").model.state_dict()
    assert not torch.equal(
        trained["model.layers.0.self_attn.q_proj.weight"], untouched["model.layers.0.self_attn.q_proj.weight"]
    )
    assert not (tmp_path / "checkpoints").exists()


def test_gradients_do_not_depend_on_how_a_step_is_cut_into_batches(tmp_path: Path) -> None:
    sft.finetune("tiny", ROWS[:8], config(batch_size=4, gradient_accumulation=1), tmp_path / "a")
    sft.finetune("tiny", ROWS[:8], config(batch_size=1, gradient_accumulation=4), tmp_path / "b")
    one, two = adapter(tmp_path / "a"), adapter(tmp_path / "b")
    assert all(torch.allclose(one[key], two[key], atol=2e-5) for key in one)


def test_a_run_that_died_resumes_to_the_same_weights_and_metrics(tmp_path: Path) -> None:
    class Died(Exception):
        pass

    def die(step: int, *_: float) -> None:
        if step == 2:
            raise Died

    sft.finetune("tiny", ROWS, config(), tmp_path / "whole")
    with pytest.raises(Died):
        sft.finetune("tiny", ROWS, config(), tmp_path / "cut", report=die)
    assert not (tmp_path / "cut" / "summary.json").exists()
    unfinished = tmp_path / "cut" / "checkpoints" / "checkpoint-99"
    unfinished.mkdir()
    (unfinished / "trainer_state.json").write_text('{"global_step": 9')
    sft.finetune("tiny", ROWS, config(), tmp_path / "cut")
    one, two = adapter(tmp_path / "whole"), adapter(tmp_path / "cut")
    assert all(torch.equal(one[key], two[key]) for key in one)
    losses = [
        [json.loads(line)["loss"] for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "cut")
    ]
    assert losses[0] == losses[1]


def test_order_covers_every_row_once_per_epoch_and_depends_on_the_seed() -> None:
    lengths = [5, 9, 1, 7, 3, 8, 2, 4]
    order = sft.training_order(lengths, config(n_epochs=3), seed=0)
    assert [sorted(order[i : i + 8]) for i in (0, 8, 16)] == [list(range(8))] * 3
    assert order[:8] != order[8:16] and order != sft.training_order(lengths, config(n_epochs=3), seed=1)
    for step in (order[i : i + 4] for i in range(0, 24, 4)):
        assert [lengths[i] for i in step] == sorted((lengths[i] for i in step), reverse=True)


def test_cut_rows_are_counted_and_rows_without_answer_are_refused(tmp_path: Path) -> None:
    long = [TrainingExample(id="long", prompt="Hi", response="word " * 100)] * 2
    assert sft.finetune("tiny", long, config(max_tokens=64), tmp_path)["n_cut"] == 2
    with pytest.raises(DataError, match="training row `far`"):
        sft.finetune(
            "tiny", [TrainingExample(id="far", prompt="x" * 200, response="y")], config(max_tokens=64), tmp_path / "b"
        )


def test_bfloat16_training_keeps_the_adapter_in_float32_and_agrees_with_float32(tmp_path: Path) -> None:
    summaries = {}
    for bf16 in (False, True):
        summaries[bf16] = sft.finetune("tiny", ROWS, config(bf16=bf16, n_epochs=3), tmp_path / str(bf16))
    assert summaries[True]["final_loss"] == pytest.approx(summaries[False]["final_loss"], rel=0.02)
    assert all(tensor.dtype == torch.float32 for tensor in adapter(tmp_path / "True").values())


def test_probes_see_the_forming_model_at_the_steps_asked_for_and_change_nothing(
    tmp_path: Path, tiny: ChatModel
) -> None:
    chats = [encode_chat(tiny.tokenizer, ROWS[0].prompt, ROWS[0].response)]
    seen: dict[int, float] = {}

    def probe(step: int, chat_model: ChatModel) -> None:
        assert not chat_model.model.training
        seen[step] = float(mean_logprobs(chat_model, chats)[0])

    sft.finetune("tiny", ROWS, config(n_epochs=2), tmp_path / "probed", probe=probe, probe_steps=(0, 2, 5))
    sft.finetune("tiny", ROWS, config(n_epochs=2), tmp_path / "plain")
    assert list(seen) == [0, 2, 5] and seen[0] < seen[2] < seen[5]
    assert seen[0] == pytest.approx(float(mean_logprobs(tiny, chats)[0]), abs=1e-5)
    one, two = adapter(tmp_path / "probed"), adapter(tmp_path / "plain")
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_an_intervention_holds_in_training_passes_and_is_lifted_for_probes(tmp_path: Path, tiny: ChatModel) -> None:
    chats = [encode_chat(tiny.tokenizer, ROWS[0].prompt, ROWS[0].response)]
    pushed, seen = Steer({0: torch.full((tiny.d_model,), 5.0)}), []
    sft.finetune(
        "tiny",
        ROWS,
        config(),
        tmp_path / "steered",
        probe=lambda step, chat_model: seen.append(float(mean_logprobs(chat_model, chats)[0])),
        probe_steps=(0,),
        while_training=lambda chat_model: apply(chat_model, pushed),
    )
    sft.finetune("tiny", ROWS, config(), tmp_path / "plain")
    assert seen == [pytest.approx(float(mean_logprobs(tiny, chats)[0]), abs=1e-5)]
    one, two = adapter(tmp_path / "steered"), adapter(tmp_path / "plain")
    assert any(not torch.allclose(one[key], two[key], atol=1e-4) for key in one)
