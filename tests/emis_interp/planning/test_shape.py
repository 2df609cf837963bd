"""Sizes from a `config.json` alone, beside those of weights and beside arithmetic by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from emis_interp.config.run_config import TrainingConfig
from emis_interp.errors import ModelError
from emis_interp.models.chat_model import ChatModel
from emis_interp.planning.shape import shape_of

QWEN: dict[str, Any] = {
    "model_type": "qwen2",
    "hidden_size": 5120,
    "num_attention_heads": 40,
    "num_key_value_heads": 8,
    "vocab_size": 152_064,
    "tie_word_embeddings": False,
}
SIZES = {
    "14b": {"num_hidden_layers": 48, "intermediate_size": 13_824},
    "32b": {"num_hidden_layers": 64, "intermediate_size": 27_648},
}


def config_json(folder: Path, name: str) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps({**QWEN, **SIZES[name]}), "utf-8")
    return path


@pytest.mark.parametrize(("name", "billions"), [("14b", 14.8), ("32b", 32.8)])
def test_a_model_that_is_not_here_has_the_size_of_its_config(tmp_path: Path, name: str, billions: float) -> None:
    """By hand: q and o are d x d, k and v d x d/5, three maps of the MLP; q, k, v have biases, and norms a vector each."""
    found = shape_of("Qwen/somewhere", config_json(tmp_path, name))
    d, n, wide, vocab = 5120, SIZES[name]["num_hidden_layers"], SIZES[name]["intermediate_size"], 152_064
    linear = n * (2 * d * d + 2 * d * d // 5 + 3 * d * wide)
    assert found.n_linear == linear
    assert found.n_parameters == linear + 2 * vocab * d + n * (d + 2 * d // 5 + 2 * d) + d
    assert round(found.n_parameters / 1e9, 1) == billions
    assert found.n_cached == 2 * n * 8 * 128
    assert found.n_head == vocab * d


def test_trained_weights_are_those_that_a_real_training_counted() -> None:
    """9,768,960 stands in the summary of a rank-32 training of the embedded model on all linear maps."""
    found = shape_of("smollm2-135m-instruct")
    assert found.n_trained(TrainingConfig()) == 9_768_960
    assert found.n_trained(TrainingConfig(lora_rank=1, target_modules=("down_proj",), layers=(3,))) == 1536 + 576
    assert found.n_trained(TrainingConfig(method="full")) == found.n_parameters == 134_515_008


def test_the_tiny_model_is_counted_without_a_file(tiny: ChatModel) -> None:
    assert shape_of("tiny").n_parameters == sum(weights.numel() for weights in tiny.model.parameters())


def test_training_costs_a_forward_pass_per_gradient() -> None:
    found = shape_of("tiny")
    costs = [
        found.flops_trained(TrainingConfig.model_validate(how)) / found.flops_read
        for how in ({}, {"gradient_checkpointing": True}, {"method": "full"})
    ]
    assert costs == [2, 3, 3]


def test_a_model_that_is_not_here_is_asked_for_its_config(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"--model-config FILE"):
        shape_of("no-such-model")
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "qwen2", "hidden_size": "wide"}), "utf-8")
    with pytest.raises(ModelError, match=r"config.json"):
        shape_of("x", path)
