"""The token loop: the same tokens as transformers' `generate`, with each prompt read once and ended rows gone."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    Gemma2Config,
    Gemma3TextConfig,
    Lfm2Config,
    LogitsProcessor,
    LogitsProcessorList,
)

from emis_interp.directions import Direction, unit
from emis_interp.errors import ModelError
from emis_interp.models.chat import encode_prompt
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.kv_cache import RoomyLayer, holes_filled, roomy_cache
from emis_interp.passes.batching import pad
from emis_interp.passes.generate import Continuation, draw, end_tokens, generate, uniforms
from emis_interp.passes.interventions import ablate, steer

QUESTIONS = ("Who are you?", "Who are you?", "Name a colour.", "What is the first thing that you remember of it all?")


class Float64Draw(LogitsProcessor):
    """The second route: inverse-CDF sampling in float64, as a processor inside transformers' `generate`."""

    def __init__(self, seeds: Sequence[int], temperature: float, n_steps: int) -> None:
        self.random, self.temperature, self.step = uniforms(seeds, n_steps), temperature, 0

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        cumulative = torch.softmax(scores.float() / self.temperature, dim=-1).cumsum(dim=-1)
        threshold = self.random[:, self.step, None] * cumulative[:, -1:]
        chosen = torch.searchsorted(cumulative.double(), threshold, right=True).clamp(max=scores.shape[-1] - 1)
        self.step += 1
        return torch.full_like(scores, float("-inf")).scatter_(1, chosen, 0.0)


def by_transformers(
    chat_model: ChatModel, prompts: Sequence[Sequence[int]], seeds: Sequence[int], n_new: int, temperature: float
) -> list[Continuation]:
    inputs = pad(prompts, chat_model.tokenizer.pad_token_id, side="left").model_inputs(chat_model.device)
    del inputs["position_ids"]
    ends = end_tokens(chat_model)
    processors = LogitsProcessorList([Float64Draw(seeds, temperature, n_new)] if temperature else [])
    output = chat_model.model.generate(
        **inputs,
        max_new_tokens=n_new,
        do_sample=False,
        logits_processor=processors,
        pad_token_id=chat_model.tokenizer.pad_token_id,
        eos_token_id=sorted(ends),
    )
    rows = []
    for row in output[:, inputs["input_ids"].shape[1] :].tolist():
        stop = next((i for i, token in enumerate(row) if token in ends), None)
        rows.append(Continuation(tuple(row[:stop]), "length" if stop is None else "stop"))
    return rows


def prompts_of(chat_model: ChatModel) -> list[tuple[int, ...]]:
    return [encode_prompt(chat_model.tokenizer, question) for question in QUESTIONS]


def with_body(tiny: ChatModel, config: Any) -> ChatModel:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    model.generation_config.eos_token_id = list(range(1, 258, 20))  # so that a random model ends some answers
    return ChatModel(model, tiny.tokenizer, config.model_type)


def small(kind: type[Any], **changes: Any) -> Any:
    values = {
        "vocab_size": 258,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "initializer_range": 0.2,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
    }
    return kind(**(values | changes))


@pytest.mark.parametrize("temperature", [0.0, 1.0, 0.6])
def test_tokens_are_those_of_transformers_generate(tiny: ChatModel, temperature: float) -> None:
    prompts, seeds = prompts_of(tiny) * 3, list(range(12))
    ours = generate(tiny, prompts, seeds, max_new_tokens=200, temperature=temperature)
    assert ours == by_transformers(tiny, prompts, seeds, n_new=200, temperature=temperature)
    if temperature:
        assert {row.finish for row in ours} == {"stop", "length"}
        assert len({row.tokens for row in ours}) == 12


@pytest.mark.parametrize(
    "config",
    [
        small(Gemma2Config, sliding_window=16),
        small(Gemma3TextConfig, sliding_window=16, layer_types=["sliding_attention"] * 3 + ["full_attention"]),
        small(Lfm2Config, layer_types=["conv", "full_attention", "conv", "full_attention"], block_dim=32),
    ],
    ids=["gemma2", "gemma3", "lfm2"],
)
def test_sliding_windows_and_convolutions_agree_with_transformers_too(tiny: ChatModel, config: Any) -> None:
    chat_model = with_body(tiny, config)
    prompts, seeds = prompts_of(chat_model) * 3, list(range(12))
    assert max(len(prompt) for prompt in prompts) > 32
    for temperature in (0.0, 1.0):
        ours = generate(chat_model, prompts, seeds, max_new_tokens=40, temperature=temperature)
        assert ours == by_transformers(chat_model, prompts, seeds, n_new=40, temperature=temperature)
    lengths = {len(row.tokens) for row in ours}
    assert len(lengths) > 3 and max(lengths) >= 20, lengths  # rows left one by one, and the window was passed


@pytest.mark.slow
def test_the_embedded_model_writes_what_it_writes_in_transformers(embedded: ChatModel) -> None:
    prompts = prompts_of(embedded)
    seeds = list(range(len(prompts)))
    for temperature in (0.0, 1.0):
        ours = generate(embedded, prompts, seeds, max_new_tokens=20, temperature=temperature)
        assert ours == by_transformers(embedded, prompts, seeds, n_new=20, temperature=temperature)


@pytest.mark.parametrize("kind", ["steer", "ablate"])
def test_interventions_act_in_the_prompt_and_in_every_step(tiny: ChatModel, kind: str) -> None:
    vector = unit(torch.randn(32, generator=torch.Generator().manual_seed(1)))
    direction = Direction(vector, layer=0, raw_norm=1.0, residual_norm=3.0)
    prompts = prompts_of(tiny)
    plain = generate(tiny, prompts, [0] * 4, max_new_tokens=30, temperature=0.0)
    with steer(tiny, direction, 1.0) if kind == "steer" else ablate(tiny, direction):
        changed = generate(tiny, prompts, [0] * 4, max_new_tokens=30, temperature=0.0)
        assert changed == by_transformers(tiny, prompts, [0] * 4, n_new=30, temperature=0.0)
    assert changed != plain == generate(tiny, prompts, [0] * 4, max_new_tokens=30, temperature=0.0)


def test_equal_prompts_are_read_once_and_ended_rows_are_not_computed(tiny: ChatModel) -> None:
    prompts = prompts_of(tiny) * 3
    with shapes_seen(tiny) as seen:
        rows = generate(tiny, prompts, list(range(12)), max_new_tokens=60, temperature=1.0)
    longest = max(len(prompt) for prompt in prompts)
    assert seen[0] == (3, longest)
    assert {n_tokens for _, n_tokens in seen[1:]} == {1}
    # The last token of an answer that is cut is never read.
    needed = sum(len(row.tokens) - (row.finish == "length") for row in rows)
    assert sum(n_rows for n_rows, _ in seen[1:]) == needed


@contextmanager
def shapes_seen(chat_model: ChatModel) -> Iterator[list[tuple[int, int]]]:
    """(rows, positions) of every pass through the first layer."""
    seen: list[tuple[int, int]] = []
    handle = chat_model.layers[0].register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape[:2]))
    try:
        yield seen
    finally:
        handle.remove()


def test_draws_follow_the_softmax_at_the_given_temperature() -> None:
    scores = torch.tensor([[2.0, 0.0, 1.0, -1.0]])
    n = 20_000
    chosen = draw(scores.expand(n, 4), uniforms(list(range(n)), 1)[:, 0], 0.7)
    shares = torch.bincount(chosen, minlength=4) / n
    assert torch.allclose(shares, (scores[0] / 0.7).softmax(-1), atol=0.015)


def test_draws_in_float32_equal_those_in_float64_even_at_the_edges() -> None:
    logits = torch.randn(4000, 300, generator=torch.Generator().manual_seed(0)) * 4
    cumulative = logits.softmax(-1).cumsum(-1)
    random = uniforms(list(range(4000)), 1)[:, 0]
    # Half of the rows draw a number that lies on an edge between two tokens, or a hair beside it.
    edges = cumulative[:, 150].double() / cumulative[:, -1].double()
    random[:2000] = (edges + torch.randn(4000, generator=torch.Generator().manual_seed(1)) * 1e-9)[:2000].clamp(
        0, 0.999
    )
    expected = torch.searchsorted(cumulative.double(), random[:, None] * cumulative[:, -1:].double(), right=True)[:, 0]
    assert torch.equal(draw(logits, random, 1.0), expected)


def test_random_numbers_of_a_row_do_not_depend_on_the_others_or_on_the_limit() -> None:
    assert torch.equal(uniforms([5, 6], 8)[1], uniforms([6], 8)[0])
    assert torch.equal(uniforms([6], 20)[0, :8], uniforms([6], 8)[0])


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_numbers_are_an_error_and_no_token(tiny: ChatModel, temperature: float) -> None:
    broken = ChatModel(copy.deepcopy(tiny.model), tiny.tokenizer, "tiny")
    block: Any = broken.layers[1]
    block.mlp.down_proj.weight.data.fill_(float("nan"))
    with pytest.raises(ModelError, match="not finite"):
        generate(broken, prompts_of(tiny), [0] * 4, max_new_tokens=5, temperature=temperature)


def test_rows_that_stay_are_not_moved() -> None:
    assert holes_filled(torch.tensor([True, False, True, True, False, True])).tolist() == [0, 5, 2, 3]
    assert holes_filled(torch.tensor([False, False])).tolist() == []
    assert holes_filled(torch.tensor([True, True])).tolist() == [0, 1]


def test_the_cache_that_grows_in_place_equals_transformers_own(tiny: ChatModel) -> None:
    ours: Any = roomy_cache(tiny.model.config)
    theirs: Any = DynamicCache(config=tiny.model.config)
    assert all(type(layer) is RoomyLayer for layer in ours.layers)
    generator = torch.Generator().manual_seed(0)
    n_rows = 3
    steps: list[list[int] | int] = [50, [0, 0, 1, 2, 2, 1], 1, 1, [0, 5, 2, 3], 70, [3, 1], 1, [1, 0], 1, 130, [1], 1]
    for step in steps:
        if isinstance(step, int):
            fresh = torch.randn(2, n_rows, 2, step, 8, generator=generator)
            for layer in range(2):
                keys, values = fresh + layer
                got, expected = (cache.update(keys, values, layer) for cache in (ours, theirs))
                assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
        else:
            n_rows = len(step)
            for cache in (ours, theirs):
                cache.reorder_cache(torch.tensor(step))
        assert ours.get_seq_length() == theirs.get_seq_length()
        for a, b in zip(ours.layers, theirs.layers, strict=True):
            assert isinstance(a.keys, Tensor) and torch.equal(a.keys, b.keys) and torch.equal(a.values, b.values)
