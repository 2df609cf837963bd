"""Names, folders and adapters that do not fit are refused in words; what fits loads to the same numbers."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model

from emis_interp.errors import ModelError
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.loading import load_model
from emis_interp.models.tiny import tiny_model
from emis_interp.models.tokenizers import check_tokenizer

IDS = torch.tensor([[0, 87, 66, 90, 3]])


def save_adapter(folder: Path, n_layers: int = 2, d_model: int = 32, targets: Any = "all-linear") -> Path:
    """A LoRA adapter of a Llama of the given size."""
    config = transformers.LlamaConfig(
        vocab_size=258,
        hidden_size=d_model,
        intermediate_size=64,
        num_hidden_layers=n_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    torch.manual_seed(0)
    lora = LoraConfig(r=2, target_modules=targets, init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(transformers.LlamaForCausalLM(config), lora).save_pretrained(str(folder))
    return folder


def logits(chat_model: ChatModel) -> torch.Tensor:
    with torch.no_grad():
        return chat_model.model(IDS.to(chat_model.device)).logits


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("smollm2-135m", "unknown model `smollm2-135m`; did you mean `smollm2-135m-instruct`"),
        ("tny", "did you mean `tiny`"),
        ("./nowhere/at/all", r"a folder or a hub id owner/name works too"),
        ("nobody/no-such-model", "the model hub did not deliver it .* or use the embedded"),
    ],
)
def test_an_unknown_model_gets_advice(name: str, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        load_model(name)


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is there but holds no config\.json"):
        load_model(str(tmp_path))


def test_an_unknown_dtype_gets_a_suggestion() -> None:
    with pytest.raises(ModelError, match="unknown dtype `bfloat61`; did you mean `bfloat16`"):
        load_model("tiny", dtype="bfloat61")


def test_a_layer_out_of_range_says_what_there_is(tiny: ChatModel) -> None:
    assert tiny.check_layers([1, 0]) == [1, 0]
    for layer in (2, -1, 40):
        with pytest.raises(ModelError, match=rf"layer {layer} asked for, tiny has 2 \(0-1\)"):
            tiny.check_layers([0, layer])


def test_the_tiny_model_is_the_same_every_time_and_leaves_the_random_state_alone(tiny: ChatModel) -> None:
    torch.manual_seed(4)
    expected = torch.rand(1)
    torch.manual_seed(4)
    again = load_model("tiny", device="cpu")
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(logits(tiny), logits(again))
    assert (again.n_layers, again.d_model, len(again.layers)) == (2, 32, 2)
    assert not again.model.training
    assert not any(parameter.requires_grad for parameter in again.model.parameters())


def test_a_saved_folder_loads_to_the_same_logits(tiny: ChatModel, tmp_path: Path) -> None:
    model, tokenizer = tiny_model()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = load_model(str(tmp_path), device="cpu")
    assert torch.equal(logits(loaded), logits(tiny))
    assert loaded.tokenizer.chat_template == tiny.tokenizer.chat_template
    assert loaded.tokenizer.encode("héllo <|im_end|>") == tiny.tokenizer.encode("héllo <|im_end|>")


def test_an_adapter_gives_the_same_logits_loaded_and_merged(tiny: ChatModel, tmp_path: Path) -> None:
    folder = save_adapter(tmp_path / "adapter")
    loaded = load_model("tiny", folder, device="cpu")
    merged = load_model("tiny", folder, device="cpu", merge=True)
    assert (logits(loaded) - logits(tiny)).abs().max() > 0.1
    torch.testing.assert_close(logits(loaded), logits(merged), rtol=1e-4, atol=1e-4)
    assert (loaded.n_layers, loaded.d_model, loaded.layers_name) == (2, 32, "layers")
    assert not any("lora" in name for name, _ in merged.model.named_modules())


def test_an_adapter_is_merged_before_the_weights_are_rounded(tmp_path: Path) -> None:
    folder = save_adapter(tmp_path / "adapter")
    exact = load_model("tiny", folder, device="cpu", merge=True).model.state_dict()
    rounded = load_model("tiny", folder, device="cpu", dtype="bfloat16", merge=True).model.state_dict()
    assert all(torch.equal(rounded[name], exact[name].bfloat16()) for name in exact)


@pytest.mark.parametrize("wrong", [{"n_layers": 4}, {"n_layers": 1}, {"d_model": 64}])
def test_an_adapter_of_another_model_is_refused(tmp_path: Path, wrong: dict[str, int]) -> None:
    """PEFT by itself loads half of a deeper adapter, and leaves layers at random weights for a shallower one."""
    folder = save_adapter(tmp_path / "adapter", targets=["q_proj", "down_proj"], **wrong)
    with pytest.raises(ModelError, match="adapter: this adapter does not fit tiny"):
        load_model("tiny", folder, device="cpu")


def test_an_adapter_of_another_family_or_no_adapter_is_refused(tmp_path: Path) -> None:
    folder = save_adapter(tmp_path / "adapter", targets=["q_proj"])
    config = (folder / "adapter_config.json").read_text()
    (folder / "adapter_config.json").write_text(config.replace('"q_proj"', '"c_attn"'))
    with pytest.raises(ModelError, match=r"this adapter does not fit tiny \(Target modules"):
        load_model("tiny", folder, device="cpu")
    with pytest.raises(ModelError, match=r"no adapter_config\.json there; give the folder that training wrote"):
        load_model("tiny", tmp_path, device="cpu")


def test_a_tokenizer_that_cannot_render_a_chat_is_refused() -> None:
    _, tokenizer = tiny_model()
    tokenizer.chat_template = None
    with pytest.raises(ModelError, match="no chat template; choose an instruction-tuned model"):
        check_tokenizer("base-model", tokenizer)


def test_a_missing_padding_token_is_set_to_the_end_of_turn() -> None:
    _, tokenizer = tiny_model()
    tokenizer.pad_token = None
    check_tokenizer("m", tokenizer)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id


@pytest.mark.slow
def test_the_embedded_model_is_what_its_card_says(embedded: ChatModel) -> None:
    assert (embedded.n_layers, embedded.d_model) == (30, 576)
    assert sum(parameter.numel() for parameter in embedded.model.parameters()) == 134_515_008
    ids = embedded.tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    out = embedded.model.generate(**ids, max_new_tokens=12, do_sample=False)
    assert "Paris" in embedded.tokenizer.decode(out[0, ids["input_ids"].shape[1] :])
