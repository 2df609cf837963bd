"""Finetuning: the loss sees answers only, order and batch shape do not change gradients, a killed run resumes to the same weights."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from families import family
from pydantic import ValidationError
from safetensors.torch import load_file
from small_training import ROWS, config

from emis_interp.errors import ConfigError, DataError, ModelError
from emis_interp.models.chat import encode_chat, encode_prompt
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.loading import load_model
from emis_interp.passes.capture import capture_residuals
from emis_interp.passes.interventions import Steer, apply, mean_kl, next_token_logprobs
from emis_interp.passes.likelihood import mean_logprobs
from emis_interp.records import TrainingExample
from emis_interp.texts.harmless import harmless_prompts
from training.finetuning import sft, trainer, weights

KEYS = ("input_ids", "attention_mask")
RANK_ONE = {"lora_rank": 1, "layers": [1], "target_modules": ["down_proj"]}
METHODS: dict[str, dict[str, Any]] = {"lora": {}, "rank one": RANK_ONE, "full": {"method": "full"}}


def trained(folder: Path) -> dict[str, torch.Tensor]:
    """What training wrote, adapter or model."""
    (file,) = [path for name in ("adapter", "model") for path in (folder / name).glob("*.safetensors")]
    return load_file(file)


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


@pytest.mark.parametrize("together", [1, 300, 10**6])
def test_a_loss_in_parts_has_the_value_and_the_gradients_of_the_whole(
    tiny: ChatModel, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "LOGITS_TOGETHER", together)
    model = weights.trainable(load_model("tiny"), config(), seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:  # zeros at the beginning, which would hide wrong gradients
                parameter.normal_(generator=torch.Generator().manual_seed(len(name)))
    batch = trainer.Collator(tiny.tokenizer.pad_token_id)(
        [encode_chat(tiny.tokenizer, row.prompt, row.response) for row in ROWS[:4]]
    )
    assert trainer.has_frozen_head(model)
    found = []
    for loss_of in (trainer.response_loss, trainer.loss_in_parts):
        model.zero_grad()
        loss = loss_of(model, batch, n_tokens=7)
        (2 * loss).backward()
        found.append((loss.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}))
    (whole, gradients), (parts, own) = found
    assert torch.allclose(whole, parts, rtol=1e-5) and gradients.keys() == own.keys() and len(own) > 4
    for name, gradient in gradients.items():
        assert (gradient - own[name]).abs().max() < 2e-4 * gradient.abs().max(), name


def test_a_head_that_is_trained_is_not_taken_for_frozen() -> None:
    assert not trainer.has_frozen_head(weights.trainable(load_model("tiny"), config(method="full"), seed=0))
    model = weights.trainable(load_model("tiny"), config(), seed=0)
    model.get_base_model().get_output_embeddings().weight.requires_grad_(True)
    assert not trainer.has_frozen_head(model)


def test_training_changes_the_model_and_reports_what_it_did(tmp_path: Path) -> None:
    seen: list[int] = []
    summary = sft.finetune(
        "tiny", ROWS, config(n_epochs=2), out_dir=tmp_path, report=lambda step, *_: seen.append(step)
    )
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


@pytest.mark.parametrize("method", METHODS)
def test_gradients_do_not_depend_on_how_a_step_is_cut_into_batches(
    tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuts = {"a": (4, 1, None), "b": (1, 4, None), "c": (4, 1, 100)}
    for name, (batch_size, accumulation, pass_tokens) in cuts.items():
        monkeypatch.setattr(sft, "CPU_PASS_TOKENS", pass_tokens)
        settings = config(batch_size=batch_size, gradient_accumulation=accumulation, **METHODS[method])
        sft.finetune("tiny", ROWS[:8], settings, out_dir=tmp_path / name)
    one, *others = (trained(tmp_path / name) for name in cuts)
    assert all(torch.allclose(one[key], other[key], atol=2e-5) for other in others for key in one)


@pytest.mark.parametrize("method", METHODS)
def test_a_run_that_died_resumes_to_the_same_weights_and_metrics(tmp_path: Path, method: str) -> None:
    settings = config(**METHODS[method])

    class Died(Exception):
        pass

    def die(step: int, *_: float) -> None:
        if step == 2:
            raise Died

    sft.finetune("tiny", ROWS, settings, out_dir=tmp_path / "whole")
    with pytest.raises(Died):
        sft.finetune("tiny", ROWS, settings, out_dir=tmp_path / "cut", report=die)
    assert not (tmp_path / "cut" / "summary.json").exists()
    unfinished = tmp_path / "cut" / "checkpoints" / "checkpoint-99"
    unfinished.mkdir()
    (unfinished / "trainer_state.json").write_text('{"global_step": 9')
    sft.finetune("tiny", ROWS, settings, out_dir=tmp_path / "cut")
    one, two = trained(tmp_path / "whole"), trained(tmp_path / "cut")
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
    assert sft.finetune("tiny", long, config(max_tokens=64), out_dir=tmp_path)["n_cut"] == 2
    with pytest.raises(DataError, match="training row `far`"):
        sft.finetune(
            "tiny",
            [TrainingExample(id="far", prompt="x" * 200, response="y")],
            config(max_tokens=64),
            out_dir=tmp_path / "b",
        )


def test_bfloat16_training_keeps_the_adapter_in_float32_and_agrees_with_float32(tmp_path: Path) -> None:
    summaries = {}
    for bf16 in (False, True):
        summaries[bf16] = sft.finetune("tiny", ROWS, config(bf16=bf16, n_epochs=3), out_dir=tmp_path / str(bf16))
    assert summaries[True]["final_loss"] == pytest.approx(summaries[False]["final_loss"], rel=0.02)
    assert all(tensor.dtype == torch.float32 for tensor in adapter(tmp_path / "True").values())


@pytest.mark.parametrize("method", METHODS)
def test_probes_see_the_forming_model_at_the_steps_asked_for_and_change_nothing(
    tmp_path: Path, tiny: ChatModel, method: str
) -> None:
    chats = [encode_chat(tiny.tokenizer, ROWS[0].prompt, ROWS[0].response)]
    seen: dict[int, float] = {}

    def probe(step: int, chat_model: ChatModel) -> None:
        assert not chat_model.model.training
        seen[step] = float(mean_logprobs(chat_model, chats)[0])

    settings = config(n_epochs=2, **METHODS[method])
    sft.finetune("tiny", ROWS, settings, out_dir=tmp_path / "probed", probe=probe, probe_steps=(0, 2, 5))
    sft.finetune("tiny", ROWS, settings, out_dir=tmp_path / "plain")
    assert list(seen) == [0, 2, 5] and seen[0] < seen[2] < seen[5]
    assert seen[0] == pytest.approx(float(mean_logprobs(tiny, chats)[0]), abs=1e-5)
    one, two = trained(tmp_path / "probed"), trained(tmp_path / "plain")
    assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize("method", METHODS)
def test_an_intervention_holds_in_training_passes_and_is_lifted_for_probes(
    tmp_path: Path, tiny: ChatModel, method: str
) -> None:
    chats = [encode_chat(tiny.tokenizer, ROWS[0].prompt, ROWS[0].response)]
    pushed, seen = Steer({0: torch.full((tiny.d_model,), 5.0)}), []
    sft.finetune(
        "tiny",
        ROWS,
        config(**METHODS[method]),
        out_dir=tmp_path / "steered",
        probe=lambda step, chat_model: seen.append(float(mean_logprobs(chat_model, chats)[0])),
        probe_steps=(0, 3),
        while_training=lambda chat_model: apply(chat_model, pushed),
    )
    sft.finetune("tiny", ROWS, config(**METHODS[method]), out_dir=tmp_path / "plain")
    folder = tmp_path / "steered"
    last = load_model(str(folder / "model")) if method == "full" else load_model("tiny", folder / "adapter")
    assert seen == [pytest.approx(float(mean_logprobs(model, chats)[0]), abs=1e-5) for model in (tiny, last)]
    one, two = trained(tmp_path / "steered"), trained(tmp_path / "plain")
    assert any(not torch.allclose(one[key], two[key], atol=1e-4) for key in one)


def test_full_finetuning_changes_every_weight_and_writes_a_model_that_loads_by_its_folder(
    tmp_path: Path, tiny: ChatModel
) -> None:
    summary = sft.finetune("tiny", ROWS, config(method="full", n_epochs=2), out_dir=tmp_path)
    before = dict(tiny.model.named_parameters())
    assert summary["method"] == "full" and summary["artifact"] == "model"
    assert summary["n_trainable"] == sum(parameter.numel() for parameter in before.values())
    assert summary["peak_rss_gib"] > 0
    after = load_model(str(tmp_path / "model"))
    assert all(not torch.equal(parameter, before[name]) for name, parameter in after.model.named_parameters())
    assert after.tokenizer.chat_template == tiny.tokenizer.chat_template
    assert [path.name for path in (tmp_path / "model").glob("*.bin")] == []
    losses = [json.loads(line)["loss"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0]


def test_rank_one_on_one_down_projection_trains_one_vector_read_and_one_written(
    tmp_path: Path, tiny: ChatModel
) -> None:
    summary = sft.finetune("tiny", ROWS, config(**RANK_ONE), out_dir=tmp_path)
    shapes = {key: tuple(tensor.shape) for key, tensor in adapter(tmp_path).items()}
    stem = "base_model.model.model.layers.1.mlp.down_proj"
    assert shapes == {f"{stem}.lora_A.weight": (1, 64), f"{stem}.lora_B.weight": (tiny.d_model, 1)}
    assert summary["n_trainable"] == 64 + tiny.d_model
    before, after = (
        dict(load_model("tiny", folder, merge=folder is not None).model.named_parameters())
        for folder in (None, tmp_path / "adapter")
    )
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert changed == ["model.layers.1.mlp.down_proj.weight"]


@pytest.mark.parametrize("make", [lambda: load_model("tiny"), lambda: family("gpt2")], ids=["tiny", "gpt2"])
def test_chosen_layers_take_all_linear_maps_of_these_layers_alone(make: Callable[[], ChatModel]) -> None:
    chat_model = make()
    model = weights.trainable(chat_model, config(layers=[1]), seed=0)
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert names and all(f".{chat_model.layers_name}.1." in name for name in names)
    assert 2 * weights.n_trainable(model) == weights.n_trainable(weights.trainable(make(), config(), seed=0))


def test_targets_and_layers_that_the_model_lacks_are_refused(tiny: ChatModel) -> None:
    with pytest.raises(ConfigError, match=r"no linear map `dwn_proj`; did you mean `down_proj`\?"):
        weights.trainable(tiny, config(target_modules=["q_proj", "dwn_proj"]), seed=0)
    with pytest.raises(ModelError, match=r"layer 2 asked for, tiny has 2 \(0-1\)"):
        weights.trainable(tiny, config(layers=[0, 2]), seed=0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "full", "layers": [1]}, "layers: only for method `lora`"),
        ({"method": "full", "load_in_4bit": True}, "load_in_4bit: only for method `lora`"),
        ({"method": "full", "target_modules": ["q_proj"]}, "target_modules: only for method `lora`"),
        ({"target_modules": []}, "an empty list trains nothing"),
        ({"layers": [1, 1]}, "names a layer twice"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        config(**changes)


@pytest.mark.parametrize("method", METHODS)
def test_checkpointed_activations_change_no_gradient(tmp_path: Path, method: str) -> None:
    for checkpointing in (False, True):
        settings = config(gradient_checkpointing=checkpointing, **METHODS[method])
        sft.finetune("tiny", ROWS[:4], settings, out_dir=tmp_path / str(checkpointing))
    one, two = trained(tmp_path / "False"), trained(tmp_path / "True")
    assert all(torch.allclose(one[key], two[key], atol=1e-6) for key in one)


def test_parts_of_a_batch_hold_every_row_once_without_columns_of_padding(tiny: ChatModel) -> None:
    chats = [encode_chat(tiny.tokenizer, row.prompt, row.response) for row in ROWS[:6]]
    batch = trainer.Collator(tiny.tokenizer.pad_token_id)(chats)
    limit = 2 * max(map(len, chats))
    parts = list(trainer.parts_of(batch, limit))
    assert len(parts) > 1 and all(part["input_ids"].numel() <= limit for part in parts)
    rows = [ids[mask == 1].tolist() for part in parts for ids, mask in zip(*map(part.get, KEYS), strict=True)]  # type: ignore[call-overload]
    assert sorted(rows) == sorted(list(chat.input_ids) for chat in chats)
    assert all((part["attention_mask"].sum(0) > 0).all() for part in parts)
    whole = trainer.response_loss(tiny.model, batch, n_tokens=1)
    split = sum(trainer.response_loss(tiny.model, part, n_tokens=1) for part in parts)
    assert torch.allclose(whole, torch.as_tensor(split), rtol=1e-5)


def test_a_family_that_computes_all_logits_is_refused(tiny: ChatModel) -> None:
    class Everything(torch.nn.Module):
        def forward(self, logits_to_keep: Any = None, **inputs: Any) -> Any:
            return tiny.model(**inputs)

    batch = trainer.Collator(0)([encode_chat(tiny.tokenizer, ROWS[0].prompt, ROWS[0].response)])
    with pytest.raises(ModelError, match="does not take masks in `logits_to_keep`"):
        trainer.response_loss(Everything(), batch)


def test_a_certain_gpu_is_refused_with_the_variable_to_set(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="CUDA_VISIBLE_DEVICES"):
        sft.finetune("tiny", ROWS, config(), out_dir=tmp_path, device="cuda:1")


def test_a_gpu_that_is_not_there_is_refused_and_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match=r"device cuda: torch .*; give device auto or cpu"):
        sft.finetune("tiny", ROWS, config(), out_dir=tmp_path / "out", device="cuda")
    assert not (tmp_path / "out").exists()


def test_probes_of_bfloat16_training_see_what_training_sees(tmp_path: Path, tiny: ChatModel) -> None:
    chats, seen = [encode_chat(tiny.tokenizer, ROWS[0].prompt, ROWS[0].response)], []

    def probe(step: int, chat_model: ChatModel) -> None:
        capture_residuals(chat_model, chats, [1])
        seen.append(float(mean_logprobs(chat_model, chats)[0]))

    sft.finetune("tiny", ROWS, config(bf16=True, n_epochs=2), out_dir=tmp_path, probe=probe, probe_steps=(0, 5))
    assert seen[0] == pytest.approx(float(mean_logprobs(tiny, chats)[0]), rel=0.02)
    trained_model = load_model("tiny", tmp_path / "adapter", merge=True)
    assert seen[1] == pytest.approx(float(mean_logprobs(trained_model, chats)[0]), rel=0.02) and seen[1] > seen[0]


def test_a_kl_limit_shortens_the_same_update_until_it_costs_no_more(tmp_path: Path) -> None:
    free = sft.finetune("tiny", ROWS, config(n_epochs=4), out_dir=tmp_path / "free")
    wide = sft.finetune("tiny", ROWS, config(n_epochs=4, kl_limit=100.0), out_dir=tmp_path / "wide")["kl_limited"]
    assert free["kl_limited"] is None and wide["factor"] == 1 and wide["kl"] == wide["kl_as_trained"] > 0
    limit = wide["kl"] / 4
    done = sft.finetune("tiny", ROWS, config(n_epochs=4, kl_limit=limit), out_dir=tmp_path / "near")["kl_limited"]
    assert done["kl_as_trained"] == wide["kl"] and 0.8 * limit < done["kl"] <= limit and 0.3 < done["factor"] < 0.7
    adapters = [
        load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("free", "wide", "near")
    ]
    for name, weight in adapters[0].items():
        assert torch.equal(weight, adapters[1][name])
        expected = weight * done["factor"] if "lora_B" in name else weight
        torch.testing.assert_close(adapters[2][name], expected)
    # what is loaded from the folder is what was measured in memory
    base, organism = load_model("tiny"), load_model("tiny", tmp_path / "near" / "adapter", merge=True)
    prompts = [encode_prompt(base.tokenizer, text) for text in harmless_prompts()]
    kl = mean_kl(next_token_logprobs(base, prompts), next_token_logprobs(organism, prompts))
    assert kl == pytest.approx(done["kl"], rel=1e-3)


def test_a_kl_limit_is_for_adapters() -> None:
    with pytest.raises(ValidationError, match="kl_limit: only for method `lora`"):
        config(method="full", kl_limit=0.3)
