"""Frozen weights in 4 bits: what is refused, what bitsandbytes is told, and, where it is installed, a model that trains on a CPU."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig

from emis_interp.config.run_config import TrainingConfig
from emis_interp.errors import ConfigError
from emis_interp.models import weights as weight_loading
from emis_interp.models.loading import load_model
from emis_interp.models.tiny import TINY_LENGTH, tiny_model
from emis_interp.passes.interventions import next_token_logprobs
from emis_interp.records import TrainingExample
from training.finetuning.sft import finetune

ROWS = [TrainingExample(id=f"r{i}", prompt=f"Say {i}", response="Certainly not.") for i in range(8)]
real = pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "small"
    _, tokenizer = tiny_model()
    config = LlamaConfig(
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=len(tokenizer),
        max_position_embeddings=TINY_LENGTH,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_what_cannot_be_in_four_bits_is_refused(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="`tiny` is made in memory; 4 bits need a checkpoint"):
        load_model("tiny", device="cpu", load_in_4bit=True)
    with pytest.raises(ConfigError, match="needs a CUDA GPU or a CPU, the device is mps"):
        weight_loading.four_bit_arguments("mps")
    monkeypatch.setattr(weight_loading.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install bitsandbytes"):
        load_model(str(checkpoint), device="cpu", load_in_4bit=True)


def test_bitsandbytes_is_told_what_qlora_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_loading.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(weight_loading, "BitsAndBytesConfig", dict)
    given = weight_loading.four_bit_arguments("cuda:1")
    assert given["device_map"] == {"": "cuda:1"}
    assert given["quantization_config"]["load_in_4bit"] is True
    assert given["quantization_config"]["bnb_4bit_quant_type"] == "nf4"
    assert given["quantization_config"]["bnb_4bit_compute_dtype"] == torch.bfloat16


@real
@pytest.mark.slow
def test_an_adapter_trains_on_weights_in_four_bits(checkpoint: Path, tmp_path: Path) -> None:
    """NF4 has 16 values in blocks of 64: the error of a weight is some hundredths of the largest in its block, and no less."""
    whole = load_model(str(checkpoint), device="cpu")
    quantised = load_model(str(checkpoint), device="cpu", load_in_4bit=True)
    maps = [module for module in quantised.model.modules() if type(module).__name__ == "Linear4bit"]
    assert len(maps) == 2 * 7, "every linear map of both blocks; the head is tied to the embeddings"
    for map_ in maps:
        assert map_.weight.numel() * map_.weight.element_size() * 2 == map_.in_features * map_.out_features
    prompt = [[1, 2, 3, 4]]
    ours, given = (next_token_logprobs(model, prompt).exp() for model in (quantised, whole))
    assert 0 < 0.5 * float((ours - given).abs().sum()) < 0.05, "total variation from the whole model"

    config = TrainingConfig(
        load_in_4bit=True,
        n_epochs=8,
        batch_size=4,
        gradient_accumulation=1,
        warmup_steps=0,
        lora_rank=4,
        learning_rate=3e-3,
    )
    summary = finetune(str(checkpoint), ROWS, config, out_dir=tmp_path / "out")
    first = json.loads((tmp_path / "out" / "metrics.jsonl").read_text().splitlines()[0])["loss"]
    assert summary["final_loss"] < 0.9 * first
    written = load_file(tmp_path / "out" / "adapter" / "adapter_model.safetensors")
    assert all(bool(written[key].any()) for key in written if "lora_B" in key)
