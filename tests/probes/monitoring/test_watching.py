"""The stream: what a monitor scores while a model writes is what a second reading of the same text gives, whatever the batch does."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor

from emis_interp.config.run_config import SamplingConfig
from emis_interp.directions import Direction, unit, wording_key
from emis_interp.errors import ModelError
from emis_interp.models.chat import EncodedChat, encode_chats, encode_prompt, end_tokens
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.tiny import tiny_model
from emis_interp.passes.batching import pad
from emis_interp.passes.generate import Continuation, generate
from emis_interp.passes.interventions import Steer, ablate, apply, steer
from emis_interp.passes.sweeps import SteerCell, text_logprobs
from emis_interp.records import Question
from evals.samplers.hf import HFSampler
from evals.sampling import plan_prompts
from probes.classifiers.probe import LinearProbe
from probes.monitoring.scorers import DirectionScorer, TokenScorer, fitted_on, load_scorer
from probes.monitoring.watching import Monitor, Seen, score_chats

QUESTIONS = ("Who?", "What is it that you want?", "Who?", "Name a colour.", "Who?", "Name a colour.", "Who?")
VECTOR = unit(torch.randn(32, generator=torch.Generator().manual_seed(5)))
OTHER = unit(torch.randn(32, generator=torch.Generator().manual_seed(6)))


def scorer(layer: int = 1) -> DirectionScorer:
    return DirectionScorer(Direction(VECTOR, layer, raw_norm=1.0, residual_norm=3.0))


def pushed(layer: int = 1) -> Direction:
    return Direction(unit(VECTOR + OTHER), layer, raw_norm=1.0, residual_norm=3.0)


def exact(**adapters: Any) -> ChatModel:
    """The tiny model in float64, ending some of its answers."""
    model, tokenizer = tiny_model()
    if adapters:
        torch.manual_seed(3)
        model = get_peft_model(model, LoraConfig(**adapters))
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.3)
    model.generation_config.eos_token_id = list(range(1, 258, 20))
    return ChatModel(model.double().eval(), tokenizer, "exact")


def prompts_of(chat_model: ChatModel) -> list[tuple[int, ...]]:
    return [encode_prompt(chat_model.tokenizer, question) for question in QUESTIONS]


def alone(chat_model: ChatModel, ids: Sequence[int], layer: int = 1) -> np.ndarray:
    """Scores of every token of one unpadded text, by a hook of the test's own on what the next module reads."""
    found: list[Tensor] = []
    body = chat_model.body
    later = body.layers[layer + 1] if layer + 1 < len(body.layers) else body.norm

    def keep(module: Any, inputs: Any, kwargs: Any) -> None:
        found.append(inputs[0] if inputs else kwargs["hidden_states"])

    handle = later.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        with torch.no_grad():
            body(input_ids=torch.tensor([list(ids)]), use_cache=False)
    finally:
        handle.remove()
    return (found[0][0] @ VECTOR.double() / 3.0).numpy()


def check(
    chat_model: ChatModel, prompts: Sequence[Sequence[int]], written: Sequence[Continuation], *, seen: Seen, layer: int
) -> None:
    assert len(seen) == len(prompts)
    for i, (prompt, answer) in enumerate(zip(prompts, written, strict=True)):
        n_read = len(answer.tokens) - (answer.finish == "length")
        expected = alone(chat_model, [*prompt, *answer.tokens], layer)
        assert (seen[i].call, seen[i].row) == (0, i)
        assert seen[i].prompt == pytest.approx(expected[: len(prompt)], abs=1e-9)
        assert len(seen[i].answer) == n_read
        assert seen[i].answer == pytest.approx(expected[len(prompt) : len(prompt) + n_read], abs=1e-9)


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("adapter", [False, True])
def test_streamed_scores_are_those_of_a_second_reading(layer: int, adapter: bool) -> None:
    chat_model = exact(**({"r": 4, "target_modules": ["q_proj", "down_proj"]} if adapter else {}))
    prompts = prompts_of(chat_model)
    with Monitor(scorer(layer)).watch(chat_model) as seen:
        written = generate(chat_model, prompts, range(7), max_new_tokens=40, temperature=1.0)
    assert {row.finish for row in written} == {"stop", "length"}  # rows end early, and some are cut
    assert len({len(prompt) for prompt in prompts}) > 1
    check(chat_model, prompts, written, seen=seen, layer=layer)


@pytest.mark.parametrize("outside", [True, False])
@pytest.mark.parametrize("how", ["steer", "ablate", "rows"])
def test_under_an_intervention_the_score_is_of_what_the_model_really_computes(how: str, outside: bool) -> None:
    chat_model, layer = exact(), 1
    prompts = prompts_of(chat_model)
    rows = torch.randn(7, 32, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    rows[0] = rows[4]

    def around(i: int | None = None) -> Any:
        if how == "steer":
            return steer(chat_model, pushed(), 0.7)
        return (
            ablate(chat_model, pushed())
            if how == "ablate"
            else apply(chat_model, Steer({layer: rows if i is None else rows[i]}))
        )

    if outside:  # the intervention comes into force before the monitor, or behind it
        with around(), Monitor(scorer()).watch(chat_model) as seen:
            written = generate(chat_model, prompts, range(7), max_new_tokens=30, temperature=1.0)
    else:
        with Monitor(scorer()).watch(chat_model) as seen, around():
            written = generate(chat_model, prompts, range(7), max_new_tokens=30, temperature=1.0)
    for i, (prompt, answer) in enumerate(zip(prompts, written, strict=True)):
        with around(i):
            expected = alone(chat_model, [*prompt, *answer.tokens])
        assert seen[i].prompt == pytest.approx(expected[: len(prompt)], abs=1e-9)
        n = len(seen[i].answer)
        assert n >= len(answer.tokens) - 1
        assert seen[i].answer == pytest.approx(expected[len(prompt) : len(prompt) + n], abs=1e-9)
    untouched = alone(chat_model, prompts[0])
    assert np.abs(untouched - np.asarray(seen[0].prompt)).max() > 0.01  # the intervention moves what is scored


@pytest.mark.parametrize("batch_size", [2, 3, 8])
def test_the_sampler_gives_scores_in_the_order_of_its_plan(batch_size: int) -> None:
    chat_model = exact()
    questions = [Question(id=str(i), paraphrases=(text,)) for i, text in enumerate(reversed(QUESTIONS))]
    plan = plan_prompts("arm", questions, 2, seed=0)
    config = SamplingConfig(samples_per_paraphrase=2, max_new_tokens=12, batch_size=batch_size)
    with Monitor(scorer()).watch(chat_model) as seen:
        HFSampler(chat_model).sample(plan, frozenset(), config, on_batch=lambda rows: None)
    assert [(text.call, text.row) for text in seen] == [(0, i) for i in range(len(plan))]
    for item, text in zip(plan, seen, strict=True):
        expected = alone(chat_model, encode_prompt(chat_model.tokenizer, item.question))
        assert text.prompt == pytest.approx(expected, abs=1e-9)


def test_calls_stand_apart_and_are_numbered() -> None:
    chat_model = exact()
    prompts = prompts_of(chat_model)
    with Monitor(scorer()).watch(chat_model) as seen:
        for seed in (0, 50):
            generate(chat_model, prompts[:2], [seed, seed + 1], max_new_tokens=5, temperature=1.0)
        generate(chat_model, prompts, range(7), max_new_tokens=1, temperature=1.0)
    assert [(text.call, text.row) for text in seen] == [(0, 0), (0, 1), (1, 0), (1, 1), *((2, i) for i in range(7))]
    assert all(len(text.answer) == 0 for text in seen[4:])  # one token, which is never read


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_is_never_scored(side: Any) -> None:
    chat_model = exact()
    texts = prompts_of(chat_model)
    batch = pad(texts, chat_model.tokenizer.pad_token_id, side)
    with Monitor(scorer()).watch(chat_model) as seen, torch.no_grad():
        chat_model.body(**batch.model_inputs(chat_model.device), use_cache=False)
    for ids, text in zip(texts, seen, strict=True):
        assert text.prompt == pytest.approx(alone(chat_model, ids), abs=1e-9)
        assert len(text.answer) == 0


def test_in_transformers_own_loop_nothing_behind_the_end_of_a_row_is_scored() -> None:
    chat_model = exact()
    prompts, ends = prompts_of(chat_model), sorted(end_tokens(chat_model))
    inputs = pad(prompts, chat_model.tokenizer.pad_token_id, side="left").model_inputs(chat_model.device)
    del inputs["position_ids"]
    torch.manual_seed(0)
    with Monitor(scorer()).watch(chat_model) as seen:
        output = chat_model.model.generate(
            **inputs,
            max_new_tokens=40,
            do_sample=True,
            pad_token_id=chat_model.tokenizer.pad_token_id,
            eos_token_id=ends,
        )
    lengths = set()
    for i, (prompt, row) in enumerate(zip(prompts, output[:, inputs["input_ids"].shape[1] :].tolist(), strict=True)):
        answer = row[: next((k for k, token in enumerate(row) if token in ends), len(row) - 1)]
        lengths.add(len(answer))
        assert np.concatenate([seen[i].prompt, seen[i].answer]) == pytest.approx(
            alone(chat_model, [*prompt, *answer]), abs=1e-9
        )
    assert len(lengths) > 2


def test_a_second_reading_by_capture_agrees_with_the_stream() -> None:
    chat_model = exact()
    prompts = prompts_of(chat_model)
    with Monitor(scorer()).watch(chat_model) as seen:
        written = generate(chat_model, prompts, range(7), max_new_tokens=20, temperature=1.0)
    chats = [
        EncodedChat((*prompt, *answer.tokens), len(prompt), len(prompt) + len(answer.tokens))
        for prompt, answer in zip(prompts, written, strict=True)
        if answer.tokens
    ]
    again = score_chats(scorer(), chat_model, chats, max_batch_tokens=100)
    for text, chat, found in zip(
        (t for t, a in zip(seen, written, strict=True) if a.tokens), chats, again, strict=True
    ):
        assert (
            found.prompt is not None
            and text.prompt is not None
            and found.prompt[0] == pytest.approx(text.prompt[-1], abs=1e-9)
        )
        assert len(found.answer) == chat.n_response
        assert found.answer[: len(text.answer)] == pytest.approx(text.answer, abs=1e-9)


def test_the_answers_are_the_same_with_and_without_a_monitor_and_no_hook_is_left() -> None:
    chat_model = exact()
    prompts = prompts_of(chat_model)
    plain = generate(chat_model, prompts, range(7), max_new_tokens=20, temperature=1.0)
    with Monitor(scorer()).watch(chat_model):
        assert generate(chat_model, prompts, range(7), max_new_tokens=20, temperature=1.0) == plain
    with pytest.raises(RuntimeError, match="mine"), Monitor(scorer()).watch(chat_model):
        raise RuntimeError("mine")
    assert not chat_model.body._forward_pre_hooks and not chat_model.layers[1]._forward_hooks


def test_an_alarm_ends_the_generation_and_what_was_seen_stays() -> None:
    chat_model = exact()
    told: list[tuple[list[int], list[float]]] = []

    def stop(texts: list[int], scores: list[float]) -> None:
        told.append((texts, scores))
        if len(told) == 4:
            raise StopIteration("alarm")

    with pytest.raises(StopIteration, match="alarm"), Monitor(scorer(), on_scores=stop).watch(chat_model) as seen:
        generate(chat_model, prompts_of(chat_model)[:2], [1, 2], max_new_tokens=40, temperature=1.0)
    assert max(len(text.answer) for text in seen) == 3
    row = told[-1][0][0]
    assert seen[row].answer[-1] == pytest.approx(told[-1][1][0])
    assert told[0] == ([0, 1], [pytest.approx(text.prompt[-1]) for text in seen if text.prompt is not None])


def test_a_scorer_of_another_model_and_a_sweep_are_refused() -> None:
    chat_model = exact()
    wide = DirectionScorer(replace(scorer().direction, vector=torch.ones(5)))
    with pytest.raises(ModelError, match="d_model 5, the residuals 32"), Monitor(wide).watch(chat_model):
        pass
    with pytest.raises(ModelError, match="layer 9 asked for"), Monitor(scorer(9)).watch(chat_model):
        pass
    assert isinstance(scorer(), TokenScorer)
    cells = [SteerCell(pushed(), 0.0), SteerCell(pushed(), 0.5)]
    with Monitor(scorer()).watch(chat_model) as seen:
        text_logprobs(chat_model, cells, encode_chats(chat_model.tokenizer, [("Who?", "Me."), ("Why?", "So.")]))
    with pytest.raises(ModelError, match="one text several times"):
        _ = seen.texts


def test_a_text_whose_beginning_was_not_watched_has_no_prompt(tmp_path: Path) -> None:
    chat_model = exact()
    ids = torch.tensor([list(prompts_of(chat_model)[1])])
    with torch.no_grad():
        cache = chat_model.body(input_ids=ids[:, :-3], use_cache=True).past_key_values
        with Monitor(scorer()).watch(chat_model) as seen:
            chat_model.body(input_ids=ids[:, -3:], past_key_values=cache, use_cache=True)
    assert seen[0].prompt is None
    assert seen[0].answer == pytest.approx(alone(chat_model, ids[0].tolist())[-3:], abs=1e-9)


def test_a_saved_probe_is_a_scorer_by_its_folder_or_file_and_says_what_it_was_fitted_on(tmp_path: Path) -> None:
    weight = torch.randn(32, generator=torch.Generator().manual_seed(3))
    card = {"model": "tiny", "fitted_questions": ["q"], "fitted_wordings": [wording_key("Why?")]}
    LinearProbe(weight, -0.5, 1, card=card).save(tmp_path / "probe")
    residuals = torch.randn(5, 32)
    for path in (tmp_path, tmp_path / "probe", tmp_path / "probe.safetensors"):
        loaded = load_scorer(path)
        assert isinstance(loaded, TokenScorer) and torch.allclose(loaded.score(residuals), residuals @ weight - 0.5)
        known = fitted_on(loaded)
        assert known is not None and known.has("why? ") and not known.has("Who?")
