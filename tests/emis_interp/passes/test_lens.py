"""The lens of the last layer is the model's own logits; with its norm frozen the lens is linear."""

import pytest
import torch
from families import family

from emis_interp.errors import ModelError
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.lens import direction_logits, extreme_tokens, final_norm, frozen_norm, lens_logits

IDS = torch.arange(5, 12)[None]


def last_residual(chat_model: ChatModel) -> tuple[torch.Tensor, torch.Tensor]:
    seen: list[torch.Tensor] = []

    def keep(module: object, inputs: object, output: object) -> None:
        seen.append(output[0] if isinstance(output, tuple) else output)  # pyright: ignore[reportArgumentType]

    handle = chat_model.layers[-1].register_forward_hook(keep)
    with torch.no_grad():
        logits = chat_model.model(IDS).logits
    handle.remove()
    return seen[0], logits


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma2", "gemma3", "gpt2", "neox"])
def test_the_lens_of_the_last_layer_is_the_models_own_logits(name: str) -> None:
    chat_model = family(name, torch.float64)
    residual, logits = last_residual(chat_model)
    torch.testing.assert_close(lens_logits(chat_model, residual), logits, rtol=0, atol=1e-12)
    assert not torch.allclose(lens_logits(chat_model, residual + 1.0), logits, atol=1e-3) or name in ("gpt2", "neox")


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2"])
def test_at_its_scale_the_frozen_norm_is_the_norm_and_its_parts_add_up(name: str) -> None:
    chat_model = family(name, torch.float64)
    residual, _ = last_residual(chat_model)
    norm = frozen_norm(chat_model)
    scale = norm.scale(residual)
    first = torch.randn_like(residual)
    whole = norm.linear(first, scale) + norm.linear(residual - first, scale) + norm.bias
    # transformers computes the RMSNorm of a float64 model in float32
    torch.testing.assert_close(whole, final_norm(chat_model)(residual), rtol=0, atol=2e-6)


def test_a_direction_has_the_logits_that_adding_it_brings_at_a_frozen_scale() -> None:
    chat_model = family("llama", torch.float64)
    vector = torch.randn(32, dtype=torch.float64)
    gamma, head = chat_model.model.model.norm.weight, chat_model.model.lm_head.weight
    torch.testing.assert_close(direction_logits(chat_model, vector), head @ (gamma * vector), rtol=0, atol=1e-12)
    with pytest.raises(ModelError, match="not linear"):
        direction_logits(family("gemma2", torch.float64), 50 * vector)


def test_extreme_tokens_are_the_largest_and_the_smallest(tiny: ChatModel) -> None:
    logits = torch.arange(len(tiny.tokenizer) + 3.0)
    top, bottom = extreme_tokens(tiny.tokenizer, logits, 2)
    last = len(tiny.tokenizer) - 1
    assert top == [tiny.tokenizer.decode([last]), tiny.tokenizer.decode([last - 1])]
    assert bottom == [tiny.tokenizer.decode([0]), tiny.tokenizer.decode([1])]
