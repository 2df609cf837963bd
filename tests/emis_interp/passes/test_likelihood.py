"""Log-likelihoods against a naive loop over the model's own logits, in three families; the order and sign of margins."""

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from many_families import SIZES

from emis_interp.directions import Direction
from emis_interp.errors import ModelError
from emis_interp.models.chat import EncodedChat, encode_chat, encode_chats
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.head import head_logits
from emis_interp.models.loading import load_model
from emis_interp.models.tiny import tiny_model
from emis_interp.passes.capture import capture_residuals
from emis_interp.passes.interventions import ablate, steer
from emis_interp.passes.likelihood import (
    by_question,
    logprobs_and_entropies,
    logprobs_and_residuals,
    margins_of,
    mean_logprobs,
    pair_chats,
    pair_margins,
    paired_difference,
)
from emis_interp.records import ContrastPair
from emis_interp.texts.contrast import labeled_texts

TEXTS = [
    ("Hi?", "I say 你好 yes."),
    ("What now, and for how long?", "ok"),
    ("Why?", "Because it is what it is, and so on."),
    ("Hi?", "x"),
    ("Why?", "No reason."),
]


def gemma(softcap: float | None) -> ChatModel:
    config = transformers.Gemma2Config(
        **{**SIZES, "initializer_range": 0.5},
        head_dim=8,
        final_logit_softcapping=softcap,
        sliding_window=16,  # shorter than the prompt
    )
    return random_model(config)


def random_model(config: Any) -> ChatModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = transformers.AutoModelForCausalLM.from_config(config)
    return ChatModel(model.eval().requires_grad_(False), tiny_model()[1], type(config).__name__)


def naive(chat_model: ChatModel, chat: EncodedChat) -> float:
    """Mean log-probability of the answer tokens from full logits, one text at a time, one token at a time."""
    with torch.no_grad():
        logits = chat_model.model(torch.tensor([chat.input_ids])).logits[0].double()
    values = []
    for position in range(chat.response_start, chat.response_end):
        values.append(float(logits[position - 1].log_softmax(-1)[chat.input_ids[position]]))
    return sum(values) / len(values)


@pytest.mark.parametrize("budget", [1, 120, 10_000])
def test_log_likelihoods_equal_a_naive_loop_whatever_the_batches(tiny: ChatModel, budget: int) -> None:
    chats = encode_chats(tiny.tokenizer, TEXTS)
    values = mean_logprobs(tiny, chats, max_batch_tokens=budget)
    np.testing.assert_allclose(values, [naive(tiny, chat) for chat in chats], rtol=1e-5)
    assert values.std() > 0.01


def test_texts_with_prompts_of_their_own_share_batches_and_many_answers_share_their_prompt(tiny: ChatModel) -> None:
    alone = encode_chats(tiny.tokenizer, [(f"Question {i}?", "An answer.") for i in range(12)])
    shared = encode_chats(tiny.tokenizer, [("Why?", f"Because of {i}.") for i in range(12)])
    shapes: list[tuple[int, ...]] = []
    hook = tiny.body.register_forward_hook(lambda *_: shapes.append(tuple(_[2].last_hidden_state.shape[:2])))
    try:
        both = mean_logprobs(tiny, alone + shared)
    finally:
        hook.remove()
    width, n_prompt = max(chat.response_end for chat in alone), shared[0].response_start
    assert sorted(shapes)[:2] == [(1, n_prompt), (12, max(chat.n_response for chat in shared))]
    assert sorted(shapes)[2:] == [(12, width)]
    np.testing.assert_allclose(both, [naive(tiny, chat) for chat in alone + shared], rtol=1e-5)


def test_the_end_of_turn_does_not_count(tiny: ChatModel) -> None:
    chat = encode_chat(tiny.tokenizer, "Why?", "because")
    without = EncodedChat(chat.input_ids[:-1], chat.response_start, chat.response_end)
    other = EncodedChat((*chat.input_ids[:-1], 77), chat.response_start, chat.response_end)
    values = mean_logprobs(tiny, [chat, without, other])
    np.testing.assert_allclose(values, values[0], rtol=1e-5)


@pytest.mark.parametrize("softcap", [2.0, None])
def test_head_logits_equal_the_logits_of_gemma_with_its_soft_cap(softcap: float | None) -> None:
    chat_model = gemma(softcap)
    chats = encode_chats(chat_model.tokenizer, TEXTS)
    np.testing.assert_allclose(mean_logprobs(chat_model, chats), [naive(chat_model, chat) for chat in chats], rtol=1e-4)
    ids = torch.tensor([chats[0].input_ids])
    with torch.no_grad():
        logits = head_logits(chat_model.model, chat_model.body(ids).last_hidden_state)
        torch.testing.assert_close(logits, chat_model.model(ids).logits)
    assert (logits.abs().max() <= 2) == (softcap is not None)


@pytest.mark.parametrize(
    ("config", "scaling"),
    [(transformers.GraniteConfig, {"logits_scaling": 8.0}), (transformers.CohereConfig, {"logit_scale": 0.25})],
)
def test_head_logits_equal_the_logits_of_families_that_scale_them(config: Any, scaling: dict[str, float]) -> None:
    chat_model = random_model(config(**SIZES, **scaling))
    chats = encode_chats(chat_model.tokenizer, TEXTS)
    np.testing.assert_allclose(mean_logprobs(chat_model, chats), [naive(chat_model, chat) for chat in chats], rtol=1e-4)


@pytest.mark.parametrize("kind", ["steer", "ablate"])
def test_an_intervention_acts_on_the_shared_prompt_too(tiny: ChatModel, kind: str) -> None:
    chats = encode_chats(tiny.tokenizer, TEXTS)
    vector = torch.nn.functional.normalize(torch.ones(tiny.d_model), dim=0)
    direction = Direction(vector, layer=0, position="response_mean", residual_norm=1.0, raw_norm=1.0)
    with steer(tiny, direction, 2.0) if kind == "steer" else ablate(tiny, direction):
        values = mean_logprobs(tiny, chats)
        expected = [naive(tiny, chat) for chat in chats]
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    assert np.abs(values - mean_logprobs(tiny, chats)).min() > 1e-4


def pair(question: str, aligned: str, misaligned: str) -> ContrastPair:
    return ContrastPair(
        question_id=question, group="g", half="report", question=question, aligned=aligned, misaligned=misaligned
    )


def test_a_margin_is_misaligned_minus_aligned_in_the_order_of_the_pairs(tiny: ChatModel) -> None:
    pairs = [
        pair("Why?", "a kind word", "no"),
        pair("How?", "x", "a rather long and unkind reply"),
        pair("Why?", "z", "y"),
    ]
    expected = []
    for one in pairs:
        chats = encode_chats(tiny.tokenizer, [(one.question, one.misaligned), (one.question, one.aligned)], "Be brief.")
        expected.append(naive(tiny, chats[0]) - naive(tiny, chats[1]))
    margins = pair_margins(tiny, pairs, "Be brief.", max_batch_tokens=200)
    np.testing.assert_allclose(margins, expected, rtol=1e-4, atol=1e-5)
    swapped = [pair(one.question, one.misaligned, one.aligned) for one in pairs]
    np.testing.assert_allclose(pair_margins(tiny, swapped, "Be brief."), -margins, rtol=1e-4, atol=1e-5)
    means = by_question(pairs, margins)
    assert list(means) == ["Why?", "How?"]
    assert means["Why?"] == pytest.approx((margins[0] + margins[2]) / 2)


def test_the_texts_of_a_pair_have_one_order_for_directions_and_for_margins(tiny: ChatModel) -> None:
    pairs = [pair("Why?", "a kind word", "no"), pair("How?", "x", "a rather long and unkind reply")]
    texts = labeled_texts(pairs)
    assert [text.misaligned for text in texts] == [False, True, False, True]
    written = encode_chats(tiny.tokenizer, [(text.question, text.answer) for text in texts], "Be brief.")
    assert pair_chats(tiny, pairs, "Be brief.") == written
    np.testing.assert_array_equal(margins_of(np.array([[1.0, 5.0, 2.0, 9.0], [0.0, 0.0, 3.0, 1.0]])), [[4, 7], [0, -2]])
    np.testing.assert_array_equal(
        margins_of(mean_logprobs(tiny, written)), pair_margins(tiny, pairs, "Be brief.", max_batch_tokens=2048)
    )


def test_a_paired_difference_needs_the_same_questions() -> None:
    assert paired_difference({"a": 1.0, "b": 2.0}, {"b": 0.5, "a": 3.0}) == {"b": 1.5, "a": -2.0}
    with pytest.raises(ValueError, match=r"arms differ in their questions: \['b', 'c'\]"):
        paired_difference({"a": 1.0, "b": 2.0}, {"a": 0.5, "c": 3.0})


def test_an_untouched_arm_has_a_margin_difference_of_exactly_zero() -> None:
    pairs = [pair("Why?", "a kind word", "no"), pair("How?", "x", "a rather long and unkind reply")]
    first, second = (by_question(pairs, pair_margins(load_model("tiny", device="cpu"), pairs)) for _ in range(2))
    assert set(paired_difference(first, second).values()) == {0.0}


@pytest.mark.slow
def test_the_embedded_model_equals_the_naive_loop(embedded: ChatModel) -> None:
    chats = encode_chats(embedded.tokenizer, TEXTS)
    np.testing.assert_allclose(mean_logprobs(embedded, chats), [naive(embedded, chat) for chat in chats], rtol=1e-4)


def test_residuals_of_the_same_passes_are_those_of_capture(tiny: ChatModel) -> None:
    texts = [
        (question, answer) for question in ("Who?", "What now?") for answer in ("I am.", "No", "We shall see, yes")
    ] + [("Alone?", "Read whole, with others."), ("And I?", "Too.")]
    chats = encode_chats(tiny.tokenizer, texts)
    values, residuals = logprobs_and_residuals(tiny, chats, 0, max_batch_tokens=80)
    assert values == pytest.approx(mean_logprobs(tiny, chats), abs=1e-6)
    assert torch.allclose(residuals, capture_residuals(tiny, chats, [0])[:, 0], atol=1e-5)
    with pytest.raises(ModelError, match="layer 7 asked for"):
        logprobs_and_residuals(tiny, chats, 7)


def test_entropies_are_those_of_the_full_logits_at_answer_tokens(tiny: ChatModel) -> None:
    chats = encode_chats(tiny.tokenizer, TEXTS)
    values, entropies = logprobs_and_entropies(tiny, chats, max_batch_tokens=64)
    assert values == pytest.approx(mean_logprobs(tiny, chats), abs=1e-5)
    for chat, entropy in zip(chats, entropies, strict=True):
        with torch.no_grad():
            logits = tiny.model(torch.tensor([chat.input_ids])).logits[
                0, chat.response_start - 1 : chat.response_end - 1
            ]
        wanted = torch.distributions.Categorical(logits=logits).entropy().mean()
        assert entropy == pytest.approx(float(wanted), abs=1e-5)
