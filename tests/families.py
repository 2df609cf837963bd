"""Turns the name of a model family into a random two-layer model over the tiny tokenizer."""

from collections.abc import Callable
from typing import Any

import torch
import transformers

from emis_interp.models.chat_model import ChatModel
from emis_interp.models.tiny import tiny_model

SIZES: Any = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
NEOX: Any = {key: value for key, value in SIZES.items() if key != "num_key_value_heads"} | {"rotary_pct": 0.5}
HEAD: Any = {"head_dim": 8}
GEMMA: Any = {"head_dim": 8, "sliding_window": 16, "query_pre_attn_scalar": 8}

CONFIGS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "llama": lambda ids: transformers.LlamaConfig(**SIZES, **ids),
    "mistral": lambda ids: transformers.MistralConfig(sliding_window=16, **HEAD, **SIZES, **ids),
    "qwen2": lambda ids: transformers.Qwen2Config(**SIZES, **ids),
    "qwen3": lambda ids: transformers.Qwen3Config(**HEAD, **SIZES, **ids),
    "gemma2": lambda ids: transformers.Gemma2Config(final_logit_softcapping=2.0, **GEMMA, **SIZES, **ids),
    "gemma3": lambda ids: transformers.Gemma3TextConfig(
        layer_types=["sliding_attention", "full_attention"], **GEMMA, **SIZES, **ids
    ),
    "gpt2": lambda ids: transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=512, **ids),
    "neox": lambda ids: transformers.GPTNeoXConfig(use_parallel_residual=True, **NEOX, **ids),
    "neox_sequential": lambda ids: transformers.GPTNeoXConfig(use_parallel_residual=False, **NEOX, **ids),
}


def family(name: str, dtype: torch.dtype = torch.float32, **changes: Any) -> ChatModel:
    """The model, the same weights every time; norms are random too, so that a skipped norm shows."""
    _, tokenizer = tiny_model()
    ids = {
        "vocab_size": len(tokenizer),
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
        "initializer_range": 0.2,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = transformers.AutoModelForCausalLM.from_config(CONFIGS[name](ids | changes))
        for key, parameter in model.named_parameters():
            if "norm" in key or ".ln_" in key:
                parameter.data += 0.3 * torch.randn_like(parameter)
    return ChatModel(model.eval().requires_grad_(False).to(dtype), tokenizer, name)
