"""The head is asked of the model itself: its logits at chosen positions are those of a whole pass, whatever a family does there."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from emis_interp.errors import ModelError
from emis_interp.models.chat_model import ChatModel, decoder_of
from emis_interp.models.head import check_head, head_logits, untie_head
from emis_interp.models.loading import load_model

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
SCALED = [name for name, (what, _) in FAMILIES.items() if what in ("a cap", "a factor", "a divisor", "a small network")]


def model_of(family: str, dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
    config_class = transformers.CONFIG_MAPPING[family]
    config = config_class(**{**SIZES, **FAMILIES[family][1], **changes})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model: Any = AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():
            parameter.data += 0.02 * torch.randn_like(parameter)  # biases and norms that start at 0 and 1 too
    return model.eval().requires_grad_(False).to(dtype)


def whole_pass(model: Any, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states of the decoder and logits of one ordinary pass."""
    seen: list[torch.Tensor] = []
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    handle = decoder_of(inner).register_forward_hook(lambda _, inputs, output: seen.append(output[0]))
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits
    handle.remove()
    return seen[0], logits


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_at_chosen_positions_are_those_of_a_whole_pass(family: str) -> None:
    model = model_of(family)
    hidden, logits = whole_pass(model, torch.arange(5, 13)[None])
    found = head_logits(model, hidden[:, [2, 5, 7]])
    torch.testing.assert_close(found, logits[:, [2, 5, 7]], rtol=1e-5, atol=1e-6)
    check_head(model, family)
    # The planted scaling shows: the bare matrix would give other numbers.
    if family in SCALED:
        bare = model.get_output_embeddings()(hidden[:, [2, 5, 7]])
        assert (bare - logits[:, [2, 5, 7]]).abs().max() > 0.05 * logits.abs().max()


def test_a_model_that_also_sees_is_asked_in_the_same_way() -> None:
    text = {**SIZES, "head_dim": 8, "query_pre_attn_scalar": 8, "final_logit_softcapping": 2.0}
    image: Any = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    tokens = {"image_token_index": 250, "boi_token_index": 251, "eoi_token_index": 252, "mm_tokens_per_image": 4}
    config_class: Any = transformers.CONFIG_MAPPING["gemma3"]
    config = config_class(text_config=text, vision_config={**image, "image_size": 28, "patch_size": 14}, **tokens)
    model: Any = AutoModelForCausalLM.from_config(config).eval()
    hidden, logits = whole_pass(model, torch.arange(5, 13)[None])
    torch.testing.assert_close(head_logits(model, hidden), logits, rtol=1e-5, atol=1e-6)
    assert logits.abs().max() > 2  # Gemma 3 caps its logits as a text model alone, though its settings say the same


@pytest.mark.parametrize("family", ["gemma2", "granite", "falcon_h1", "bert"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gives_the_same_logits_as_a_whole_pass(family: str, dtype: torch.dtype) -> None:
    model = model_of(family, dtype)
    hidden, logits = whole_pass(model, torch.arange(5, 13)[None])
    found = head_logits(model, hidden[0])
    assert found.dtype == logits.dtype
    torch.testing.assert_close(found, logits[0], rtol=0.02, atol=0.02)
    check_head(model, family)


@pytest.mark.parametrize("family", ["llama", "gpt2", "cohere", "opt", "gemma2"])
def test_an_adapter_is_part_of_the_head_that_it_changes(family: str) -> None:
    plain = model_of(family)
    untie_head(plain)
    head = next(name for name, part in plain.named_modules() if part is plain.get_output_embeddings())
    torch.manual_seed(0)
    adapted = get_peft_model(plain, LoraConfig(r=2, target_modules=[head], init_lora_weights=False)).eval()
    hidden, logits = whole_pass(adapted, torch.arange(5, 13)[None])
    torch.testing.assert_close(head_logits(adapted, hidden), logits, rtol=1e-5, atol=1e-6)
    check_head(adapted, family)
    with adapted.disable_adapter():
        assert (head_logits(adapted, hidden) - logits).abs().max() > 0.01


def test_the_model_is_as_before_and_threads_share_it() -> None:
    model = model_of("granite")
    parts, modes = list(model._modules.items()), vars(model).keys()
    rows = [torch.randn(3 + i, 32) for i in range(8)]
    expected = [head_logits(model, row) for row in rows]
    found: dict[int, torch.Tensor] = {}

    def work(i: int) -> None:
        for _ in range(20):
            found[i] = head_logits(model, rows[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[i], expected[i]) for i in range(8))
    assert list(model._modules.items()) == parts and vars(model).keys() == modes
    with pytest.raises(RuntimeError):
        head_logits(model, torch.randn(3, 31))  # an error leaves it as it was, too
    assert list(model._modules.items()) == parts


def test_a_forward_that_is_bound_to_the_whole_model_is_not_taken(tiny: ChatModel) -> None:
    """Mixed-precision trainers put such a forward on the instance; it would run the decoder on hidden states."""
    model = model_of("cohere")
    hidden, logits = whole_pass(model, torch.arange(5, 13)[None])
    bound = model.forward
    model.forward = lambda *args, **kwargs: bound(*args, **kwargs)
    torch.testing.assert_close(head_logits(model, hidden), logits)


def broken(change: Callable[[Any], Any]) -> Any:
    """A Llama of a class whose forward is changed."""
    model = model_of("llama")
    kind = type(model)
    made = type("ChangedForCausalLM", (kind,), {"forward": change(kind.forward)})
    model.__class__ = made
    return model


def twice(forward: Any) -> Any:
    def changed(self: Any, input_ids: Any = None, inputs_embeds: Any = None, **kwargs: Any) -> Any:
        self.model(input_ids=input_ids, inputs_embeds=inputs_embeds)
        return forward(self, input_ids=input_ids, inputs_embeds=inputs_embeds, **kwargs)

    return changed


def by_tokens(forward: Any) -> Any:
    def changed(self: Any, input_ids: Any = None, **kwargs: Any) -> Any:
        output = forward(self, input_ids=input_ids, **kwargs)
        if input_ids is not None:
            output.logits = output.logits + input_ids[..., None]
        return output

    return changed


def not_a_number(forward: Any) -> Any:
    def changed(self: Any, **kwargs: Any) -> Any:
        output = forward(self, **kwargs)
        output.logits = output.logits * float("nan")
        return output

    return changed


def barred(forward: Any) -> Any:
    def changed(self: Any, **kwargs: Any) -> Any:
        output = forward(self, **kwargs)
        output.logits[..., 200:] = -torch.inf
        return output

    return changed


def failing(forward: Any) -> Any:
    def changed(self: Any, **kwargs: Any) -> Any:
        raise KeyError("a package that is not there")

    return changed


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (twice, "decoder ran 2 times in a forward pass, once is expected"),
        (
            by_tokens,
            r"logits that ChangedForCausalLM computes for chosen tokens differ by \S+ from those of a whole pass",
        ),
        (not_a_number, "its logits on four tokens are not finite in float32; use float32 or bfloat16"),
        (failing, r"fails on four tokens \(KeyError: 'a package that is not there'\); choose another model"),
    ],
)
def test_a_model_whose_head_cannot_be_asked_is_refused(change: Any, words: str) -> None:
    with pytest.raises(ModelError, match=f"odd: .*{words}"):
        check_head(broken(change), "odd")


def test_tokens_that_a_family_bars_are_no_fault() -> None:
    check_head(broken(barred), "barred")


def test_loading_checks_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    from emis_interp.models import loading

    seen: list[str] = []
    monkeypatch.setattr(loading, "check_head", lambda model, name: seen.append(name))
    load_model("tiny", device="cpu")
    assert seen == ["tiny"]
