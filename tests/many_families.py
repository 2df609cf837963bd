"""Families of models by what stands behind their decoder, with settings for a random two-layer model of each."""

from typing import Any

SIZES: Any = {
    "vocab_size": 258,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
    "initializer_range": 0.2,
}
GPT: Any = {"vocab_size": 258, "n_embd": 32, "n_layer": 2, "n_head": 4, "bos_token_id": 0, "eos_token_id": 1}
MOE: Any = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
MAMBA: Any = {
    "mamba_d_ssm": 64,
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_n_groups": 1,
    "mamba_d_state": 8,
    "head_dim": 8,
}
MLA: Any = {
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
    "num_key_value_heads": 4,
}

# What a family does behind its decoder, and settings under which leaving it out would show.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("nothing", {}),
    "qwen2": ("nothing", {}),
    "qwen3": ("nothing", {"head_dim": 8}),
    "qwen3_moe": ("nothing", MOE),
    "phi3": ("nothing", {}),
    "olmo2": ("nothing", {}),
    "gemma": ("nothing", {"head_dim": 8}),
    "nemotron": ("nothing", {"head_dim": 8}),
    "gpt_neox": ("nothing", {}),
    "gpt2": ("nothing", GPT),
    "bloom": ("nothing", {"n_layer": 2, "n_head": 4}),
    "mpt": (
        "nothing",
        {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64, "logit_scale": "inv_sqrt_d_model"},
    ),
    "opt": ("a decoder inside the decoder", {"ffn_dim": 64, "word_embed_proj_dim": 16, "max_position_embeddings": 64}),
    "gptj": ("a bias", {**GPT, "rotary_dim": 4, "n_positions": 64}),
    "llama4_text": ("a decoder that transformers misses", {**MOE, "head_dim": 8, "attention_chunk_size": 16}),
    "modernbert-decoder": ("a small network", {"global_attn_every_n_layers": 1}),
    "bert": ("a small network", {"is_decoder": True}),
    "gemma2": ("a cap", {"final_logit_softcapping": 2.0, "head_dim": 8, "query_pre_attn_scalar": 8}),
    "gemma3_text": ("a cap", {"final_logit_softcapping": 2.0, "head_dim": 8, "query_pre_attn_scalar": 8}),
    "vaultgemma": ("a cap", {"final_logit_softcapping": 2.0, "head_dim": 8, "query_pre_attn_scalar": 8}),
    "nanochat": ("a cap", {"final_logit_softcapping": 2.0}),
    "recurrent_gemma": ("a cap", {"logits_soft_cap": 2.0, "lru_width": 32, "block_types": ["attention"]}),
    "cohere": ("a factor", {"logit_scale": 0.25}),
    "cohere2": ("a factor", {"logit_scale": 0.25, "head_dim": 8}),
    "falcon_h1": ("a factor", {**MAMBA, "lm_head_multiplier": 0.5}),
    "hyperclovax": ("a factor", {"logits_scaling": 4.0, "head_dim": 8}),
    "granite": ("a divisor", {"logits_scaling": 8.0}),
    "granitemoe": ("a divisor", {**MOE, "logits_scaling": 8.0}),
    "granitemoeshared": ("a divisor", {**MOE, "logits_scaling": 8.0, "shared_intermediate_size": 16}),
    "granitemoehybrid": (
        "a divisor",
        {
            **MOE,
            "logits_scaling": 8.0,
            "shared_intermediate_size": 16,
            "layer_types": ["attention", "attention"],
            "mamba_n_heads": 8,
            "mamba_d_head": 8,
        },
    ),
    "minicpm3": ("a scaled hidden state", {**MLA, "dim_model_base": 8}),
}
