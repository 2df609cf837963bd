"""The directions that an adapter writes are those of the update that PEFT adds; settings that would change it are refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from emis_interp.errors import EmisError, ModelError
from emis_interp.models.lora_directions import directions_of_weights, lora_directions

hf: Any = transformers
SIZES: Any = {"vocab_size": 258, "num_hidden_layers": 2, "num_attention_heads": 4, "bos_token_id": 0, "eos_token_id": 1}
LLAMA: Any = {**SIZES, "hidden_size": 32, "intermediate_size": 64}
FAMILIES: dict[str, Any] = {
    "llama": lambda: hf.LlamaConfig(**LLAMA),
    "gpt2": lambda: hf.GPT2Config(**SIZES, n_embd=32, n_positions=64),
    "neox": lambda: hf.GPTNeoXConfig(**LLAMA, pad_token_id=1),
    "opt": lambda: hf.OPTConfig(
        **SIZES, hidden_size=32, ffn_dim=64, word_embed_proj_dim=32, max_position_embeddings=64
    ),
}


def random_adapter(folder: Path, family: str = "llama", **settings: Any) -> Any:
    kept: Any = {"r": 4, "lora_alpha": 8, "task_type": "CAUSAL_LM", **settings}
    torch.manual_seed(0)
    adapted: Any = get_peft_model(hf.AutoModelForCausalLM.from_config(FAMILIES[family]()), LoraConfig(**kept))
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter += torch.randn_like(parameter)
    adapted.save_pretrained(str(folder))
    return adapted


@pytest.mark.parametrize(
    ("family", "settings", "modules"),
    [
        ("llama", {"target_modules": ["down_proj", "o_proj", "q_proj"]}, {"down_proj", "o_proj"}),
        ("llama", {"target_modules": "all-linear", "use_rslora": True}, {"down_proj", "o_proj"}),
        ("llama", {"target_modules": ["down_proj", "embed_tokens"]}, {"down_proj"}),
        (
            "llama",
            {
                "target_modules": ["down_proj", "o_proj"],
                "use_rslora": True,
                "rank_pattern": {"layers.1.mlp.down_proj": 8, r".*\.0\.self_attn\.o_proj": 2},
                "alpha_pattern": {"o_proj": 32, r"^model\.layers\.0\.mlp.*": 3},
            },
            {"down_proj", "o_proj"},
        ),
        ("gpt2", {"target_modules": ["c_proj", "c_attn"], "fan_in_fan_out": True}, {"attn.c_proj", "mlp.c_proj"}),
        ("gpt2", {"target_modules": ["mlp.c_proj"], "fan_in_fan_out": True}, {"c_proj"}),
        ("neox", {"target_modules": ["dense", "dense_4h_to_h", "query_key_value"]}, {"dense", "dense_4h_to_h"}),
        ("opt", {"target_modules": ["out_proj", "fc2", "fc1"]}, {"out_proj", "fc2"}),
    ],
)
def test_they_are_the_left_singular_vectors_of_what_peft_adds(
    tmp_path: Path, family: str, settings: dict[str, Any], modules: set[str]
) -> None:
    adapted = random_adapter(tmp_path, family, **settings)
    found = lora_directions(tmp_path, n=2)
    assert [(row.layer, row.module) for row in found] == [(layer, name) for layer in (0, 1) for name in sorted(modules)]
    updates = {name: part for name, part in adapted.named_modules() if hasattr(part, "get_delta_weight")}
    for row in found:
        [part] = [
            part for name, part in updates.items() if f".{row.layer}." in name and name.endswith(f".{row.module}")
        ]
        delta = part.get_delta_weight("default")
        delta = delta.T if family == "gpt2" else delta  # Conv1D keeps [d_in, d_out]
        left, values, _ = torch.linalg.svd(delta)
        torch.testing.assert_close(row.singular_values, values[:2], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close((row.vectors @ left[:, :2]).abs(), torch.eye(2), rtol=1e-3, atol=1e-3)


def test_experts_keep_names_of_their_own() -> None:
    a, b = torch.randn(2, 16), torch.randn(8, 2)
    paths = ["layers.3.mlp.experts.0.down_proj", "layers.3.mlp.experts.17.down_proj", "layers.3.self_attn.o_proj"]
    weights = {
        f"base_model.model.model.{path}.lora_{key}.weight": m for path in paths for key, m in (("A", a), ("B", b))
    }
    found = directions_of_weights({"r": 2, "lora_alpha": 2}, weights)
    assert [(row.layer, row.module) for row in found] == [
        (3, "mlp.experts.0.down_proj"),
        (3, "mlp.experts.17.down_proj"),
        (3, "o_proj"),
    ]


def test_blocks_that_read_something_else_write_no_direction_of_the_text() -> None:
    a, b = torch.randn(2, 16), torch.randn(8, 2)

    def of(*paths: str) -> dict[str, torch.Tensor]:
        return {f"base_model.model.{path}.lora_{key}.weight": m for path in paths for key, m in (("A", a), ("B", b))}

    text, image = "model.language_model.layers.0.mlp.down_proj", "model.vision_tower.layers.0.mlp.down_proj"
    assert len(directions_of_weights({"r": 2, "lora_alpha": 2}, of(text, image))) == 1
    with pytest.raises(ModelError, match=r"changes blocks in several places \(model\.layers, mtp\.layers\)"):
        directions_of_weights(
            {"r": 2, "lora_alpha": 2}, of("model.layers.0.mlp.down_proj", "mtp.layers.0.mlp.down_proj")
        )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"use_dora": True}, "use_dora True is not read here"),
        ({"lora_bias": True}, "lora_bias True is not read here"),
        ({"bias": "all"}, "bias 'all' is not read here"),
        ({"bias": "lora_only"}, "bias 'lora_only' is not read here"),
        ({"modules_to_save": ["embed_tokens"]}, "modules_to_save ['embed_tokens'] is not read here"),
        ({"trainable_token_indices": [3]}, "trainable_token_indices [3] is not read here"),
    ],
)
def test_settings_that_change_the_update_otherwise_are_refused_by_name(
    tmp_path: Path, settings: dict[str, Any], words: str
) -> None:
    random_adapter(tmp_path, target_modules=["down_proj"], **settings)
    with pytest.raises(ModelError) as caught:
        lora_directions(tmp_path)
    assert words in str(caught.value) and str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"peft_type": "VERA"}, "peft_type 'VERA'"),
        ({"peft_type": "ADALORA"}, "peft_type 'ADALORA'"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights 'pissa'"),
        ({"layer_replication": [[0, 2]]}, "layer_replication"),
        ({"alora_invocation_tokens": [3]}, "alora_invocation_tokens"),
        ({"kasa_config": {"beta": 1}}, "kasa_config"),
        ({"target_parameters": ["mlp.experts.down_proj"]}, "target_parameters"),
        ({"a_new_option": "on"}, "a_new_option 'on'"),
        ({"alpha_pattern": {r"(a|a|m|o|d|e|l|\.|[a-z]|\w)*\W\W": 2}}, "takes too long"),
        ({"lora_alpha": None}, "lora_alpha: expected a number, found None"),
        ({"r": 3}, "the weights have"),
        ({"rank_pattern": {"down_proj": 2}}, "the weights have"),
    ],
)
def test_settings_of_strangers_are_refused_by_name(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    random_adapter(tmp_path, target_modules=["down_proj"])
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    with pytest.raises(ModelError) as caught:
        lora_directions(tmp_path)
    assert words in str(caught.value)
    config = json.loads(path.read_text())
    with pytest.raises(EmisError):
        directions_of_weights(config, load_file(tmp_path / "adapter_model.safetensors"))


def test_weights_that_no_setting_announces_are_refused(tmp_path: Path) -> None:
    random_adapter(tmp_path, target_modules=["down_proj"])
    weights = load_file(tmp_path / "adapter_model.safetensors")
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    name = "base_model.model.model.layers.0.mlp.down_proj.lora_magnitude_vector"
    with pytest.raises(ModelError, match="lora_magnitude_vector is no matrix A or B of LoRA"):
        directions_of_weights(config, {**weights, name: torch.ones(32)})
    kept = {key: value for key, value in weights.items() if "layers.1.mlp.down_proj.lora_B" not in key}
    save_file(kept, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ModelError, match=r"layers\.1\.mlp\.down_proj\.lora_B\.weight is missing"):
        lora_directions(tmp_path)
