"""Models with a recurrent state: sampled and read from a cache as in one pass, or refused before a number is wrong."""

from typing import Any

import pytest
import torch
import transformers
from many_families import FAMILIES, SIZES

from emis_interp.directions import Direction
from emis_interp.errors import ModelError
from emis_interp.models.chat import encode_chat
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.continuing import problems_of
from emis_interp.models.loading import load_model
from emis_interp.models.tiny import tiny_tokenizer
from emis_interp.passes.generate import generate
from emis_interp.passes.interventions import Steer, apply
from emis_interp.passes.likelihood import mean_logprobs
from emis_interp.passes.sweeps import SteerCell, greedy_answers

LINEAR: Any = {
    "layer_types": ["linear_attention", "full_attention"],
    "head_dim": 8,
    **{f"linear_num_{kind}_heads": 2 for kind in ("key", "value")},
    **{f"linear_{kind}_head_dim": 8 for kind in ("key", "value")},
}
MOE: Any = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
MAMBA: Any = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 1, "mamba_d_state": 8}
HYBRID: dict[str, dict[str, Any]] = {
    "qwen3_next": {**LINEAR, **MOE, "shared_expert_intermediate_size": 16},
    "qwen3_5_text": LINEAR,
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "falcon_h1": FAMILIES["falcon_h1"][1],
    "granitemoehybrid": {**FAMILIES["granitemoehybrid"][1], **MAMBA, "layer_types": ["mamba", "attention"]},
    "bamba": {**MAMBA, "attn_layer_indices": [1]},
}
NO_CACHE = "takes no key-value cache"
OTHER = (
    r"computes other numbers from a key-value cache than in one pass \(hidden states differ by \d+% of the largest\)"
)
# What is said of sampling and of reading, None where it is right.
REFUSED: dict[str, tuple[dict[str, Any], str | None, str]] = {
    "mamba": ({}, NO_CACHE, NO_CACHE),
    "rwkv": ({}, NO_CACHE, NO_CACHE),
    "openai-gpt": ({"n_layer": 2, "n_head": 4, "n_embd": 32}, NO_CACHE, NO_CACHE),
    "jamba": (
        {"attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 4, "use_mamba_kernels": False},
        None,
        OTHER,
    ),
    "recurrent_gemma": (
        {"lru_width": 32, "block_types": ["recurrent", "attention"]},
        OTHER,
        r"does not go on from a key-value cache \(AttributeError",
    ),
    "minimax": (
        {"num_local_experts": 4, "head_dim": 8, "layer_types": ["linear_attention", "full_attention"], "block_size": 4},
        r"does not go on from a key-value cache \(ValueError: MiniMax uses cache of its own",
        OTHER,
    ),
}
PROMPTS = [(0, 87, 66, 90, 3), (0, 9, 8), (0, 9, 8), tuple(range(30, 50))]


def model_of(family: str, settings: dict[str, Any]) -> ChatModel:
    config = transformers.CONFIG_MAPPING[family](**{**SIZES, **settings})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = transformers.AutoModelForCausalLM.from_config(config).eval()
        for parameter in model.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
    return ChatModel(model, tiny_tokenizer(), family)


def logits(made: ChatModel, ids: tuple[int, ...]) -> torch.Tensor:
    with torch.no_grad():
        return made.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]


@pytest.mark.parametrize("family", HYBRID)
def test_a_recurrent_state_goes_on_as_in_one_pass(family: str) -> None:
    made = model_of(family, HYBRID[family])
    texts = [("Why?", "Because it is so."), ("Why?", "No."), ("Why not, my friend?", "Long."), ("Why?", "Because.")]
    chats = [encode_chat(made.tokenizer, question, answer) for question, answer in texts]
    expected = []
    for chat in chats:
        span = range(chat.response_start, chat.response_end)
        found = logits(made, chat.input_ids).log_softmax(-1)
        expected.append(float(sum(found[i - 1, chat.input_ids[i]] for i in span)) / len(span))
    assert list(mean_logprobs(made, chats)) == pytest.approx(expected, abs=1e-5)
    answers = [answer.tokens for answer in generate(made, PROMPTS, [0] * 4, max_new_tokens=4, temperature=0.0)]
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        greedy = logits(made, prompt + answer).argmax(-1)[len(prompt) - 1 : -1]
        assert tuple(greedy.tolist()) == answer


@pytest.mark.parametrize("family", REFUSED)
def test_a_model_that_does_not_go_on_from_a_cache_is_refused_where_it_would(family: str) -> None:
    settings, sampling, reading = REFUSED[family]
    made = model_of(family, settings)
    chat = encode_chat(made.tokenizer, "Why?", "No.")
    cell = SteerCell(Direction(torch.ones(made.d_model), 0, 1.0, residual_norm=1.0), 0.0)
    uses = [
        (reading, lambda: mean_logprobs(made, [chat])),
        (sampling, lambda: generate(made, PROMPTS, [0] * 4, max_new_tokens=2, temperature=0.0)),
        (sampling, lambda: greedy_answers(made, [cell], PROMPTS, max_new_tokens=2)),
    ]
    for words, use in uses:
        if words is None:
            assert len(use()) > 0
            continue
        with pytest.raises(ModelError, match=rf"^{family}: \w+ {words}.*choose another model") as error:
            use()
        assert "\n" not in str(error.value)


def test_what_is_found_at_load_holds_under_interventions(tmp_path: Any) -> None:
    settings, _, _ = REFUSED["recurrent_gemma"]
    made = model_of("recurrent_gemma", settings)
    made.model.save_pretrained(tmp_path)
    made.tokenizer.save_pretrained(tmp_path)
    loaded = load_model(str(tmp_path), device="cpu")
    with (
        apply(loaded, Steer({0: torch.ones(loaded.d_model)}, positions="generated")),
        pytest.raises(ModelError, match="cannot be sampled from here"),
    ):
        generate(loaded, PROMPTS, [0] * 4, max_new_tokens=2, temperature=0.0)


def test_an_intervention_in_force_is_no_fault_of_the_model() -> None:
    made = model_of("lfm2", HYBRID["lfm2"])
    with apply(made, Steer({0: torch.ones(made.d_model)}, positions="generated")):
        assert problems_of(made.model) == (None, None)
    assert problems_of(made.model) == (None, None)
