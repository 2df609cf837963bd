"""Random two-layer models of every supported family over the tiny tokenizer, for tests."""

from typing import Any

import torch
import transformers

from emis_interp.models import ChatModel, tiny_model

FAMILIES = ("llama", "qwen2", "qwen3", "gemma2", "gemma3", "mistral", "gpt2", "neox", "neox_sequential")


def family(name: str, dtype: torch.dtype = torch.float32) -> ChatModel:
    """d_model 32, two layers, weights large enough that every part of a block matters."""
    _, tokenizer = tiny_model()
    special: Any = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    ids: Any = {"vocab_size": len(tokenizer), "initializer_range": 0.2, **special}
    heads: Any = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 512}
    sizes: Any = {"intermediate_size": 64, "num_key_value_heads": 2, **heads, **ids}
    neox: Any = {"intermediate_size": 64, **heads, **ids}
    configs = {
        "llama": lambda: transformers.LlamaConfig(**sizes),
        "qwen2": lambda: transformers.Qwen2Config(**sizes),
        "qwen3": lambda: transformers.Qwen3Config(head_dim=8, **sizes),
        "gemma2": lambda: transformers.Gemma2Config(head_dim=8, final_logit_softcapping=2.0, sliding_window=8, **sizes),
        "gemma3": lambda: transformers.Gemma3TextConfig(head_dim=8, sliding_window=8, **sizes),
        "mistral": lambda: transformers.MistralConfig(sliding_window=8, **sizes),
        "gpt2": lambda: transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=512, **ids),
        "neox": lambda: transformers.GPTNeoXConfig(use_parallel_residual=True, **neox),
        "neox_sequential": lambda: transformers.GPTNeoXConfig(use_parallel_residual=False, **neox),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model: Any = transformers.AutoModelForCausalLM.from_config(configs[name]())
        for parameter in model.parameters():  # norm weights of one would hide a norm that was skipped
            if parameter.ndim == 1:
                parameter.data += 0.2 * torch.randn_like(parameter)
    return ChatModel(model.to(dtype).eval().requires_grad_(False), tokenizer, name)
