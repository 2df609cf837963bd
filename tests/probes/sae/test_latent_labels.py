"""Labels: planted words are found and told on held-out questions, and words for noise score no better than shuffled labels."""

from typing import Any

import numpy as np
import pytest

from emis_interp.models.chat import encode_chats
from emis_interp.models.chat_model import ChatModel
from probes.sae.latent_contexts import activation_histogram, shown_contexts
from probes.sae.latent_labels import CONTEXT_TOKENS, Contexts, Labeller, contexts_of
from probes.sae.latent_texts import LatentTexts

WORDS = ["river", "stone", "cloud", "bread", "lamp", "chair", "paper", "road", "glass", "field"]


def planted(n: int = 400, seed: int = 0) -> tuple[Contexts, np.ndarray]:
    """One token per context's activation; a context fires mostly where it holds `poison`."""
    generator = np.random.default_rng(seed)
    tokens, fires = [], []
    for _ in range(n):
        words = generator.choice(WORDS, size=6).tolist()
        fire = bool(generator.random() < 0.3)
        if fire and generator.random() < 0.9:
            words[int(generator.integers(6))] = "poison"
        tokens.append(tuple(f" {word}" for word in words))
        fires.append(fire)
    questions = np.array([f"q{i % 10}" for i in range(n)])
    report = np.array([i % 10 < 5 for i in range(n)])
    return Contexts(np.arange(n), tuple(tokens), questions, report), np.array(fires, dtype=float)


def test_a_planted_word_is_the_label_and_tells_held_out_contexts() -> None:
    contexts, activations = planted()
    found = Labeller(contexts, 100).label(activations, [" Poison", "x"])
    assert found["terms"][0] == "poison" and found["no_detection"] is None and found["threshold"] == 0
    terms, tokens = found["detections"]
    assert terms["auroc"]["value"] > 0.85 and terms["null"]["p"] < 0.05
    assert terms["auroc"]["low"] < terms["auroc"]["value"] < terms["auroc"]["high"]
    assert terms["within"]["value"] > 0.85 and terms["n_contexts"] == 200
    # The logit token alone: sensitivity 0.9, specificity 1.
    assert tokens["by"] == "logit tokens" and tokens["balanced_accuracy"]["value"] == pytest.approx(0.95, abs=0.04)
    assert tokens["auroc"]["value"] == pytest.approx(tokens["balanced_accuracy"]["value"])


def test_words_for_noise_score_as_shuffled_labels_do() -> None:
    contexts, _ = planted()
    noise = (np.random.default_rng(1).random(400) < 0.3).astype(float)
    found = Labeller(contexts, 200).label(noise)
    [terms] = found["detections"]
    assert terms["auroc"]["low"] < 0.5 < terms["auroc"]["high"] and terms["null"]["p"] > 0.05


def test_a_topic_is_told_over_all_contexts_and_not_within_questions() -> None:
    contexts, _ = planted(2000)
    tokens = tuple(
        (*own, f" topic{int(q[-1]) % 2}") for own, q in zip(contexts.tokens, contexts.questions, strict=True)
    )
    changed = Contexts(contexts.starts, tokens, contexts.questions, contexts.report)
    generator = np.random.default_rng(2)
    fires = np.array([generator.random() < (0.1 if int(q[-1]) % 2 else 0.9) for q in contexts.questions])
    [terms] = Labeller(changed, 50).label(fires.astype(float))["detections"]
    assert "topic0" in terms["words"] and terms["auroc"]["value"] > 0.75
    assert terms["null"]["p"] > 0.05  # shuffled within questions, so that the topic is in the null
    assert abs(terms["within"]["value"] - 0.5) < 0.12


def test_a_dense_latent_fires_above_its_median_and_a_rare_one_has_no_score() -> None:
    contexts, activations = planted()
    labeller = Labeller(contexts, 50)
    dense = labeller.label(1 + activations + 0.01 * np.arange(400) / 400)
    assert dense["threshold"] > 1 and dense["terms"][0] == "poison"
    rare = np.zeros(400)
    rare[:3] = 1
    found = labeller.label(rare)
    assert found["detections"] == [] and "a score needs 8" in found["no_detection"]


def test_contexts_cover_every_answer_token_once(tiny: ChatModel) -> None:
    pairs = [("Why?", "Because of " + "many things " * 12), ("Who?", "I.")]
    chats = encode_chats(tiny.tokenizer, pairs)
    texts = LatentTexts(tuple(pairs), ("a", "b"), ("selection", "report"), "two")
    found = contexts_of(tiny.tokenizer, chats, texts)
    assert sum(map(len, found.tokens)) == sum(chat.n_response for chat in chats)
    assert max(map(len, found.tokens)) == CONTEXT_TOKENS
    assert "".join(found.texts).strip().startswith("Because of") and found.texts[-1] == "I."
    assert found.report.tolist() == [False] * (len(found.starts) - 1) + [True]
    activations = np.zeros(sum(chat.n_response for chat in chats))
    activations[-1] = 3
    assert found.maxima(activations).tolist() == [0.0] * (len(found.starts) - 1) + [3.0]


def test_the_largest_contexts_come_first_with_colours_of_their_activations() -> None:
    owner = np.repeat(np.arange(12), 50)
    activations = np.zeros(600)
    activations[50 * 7 + 25] = 10
    activations[50 * 7 + 26] = 5
    for i in range(12):
        activations[50 * i + 3] = max(activations[50 * i + 3], 0.1 * (i + 1))
    tokens = [f"<{t}>" for t in range(600)]
    found = shown_contexts(activations, tokens, owner, questions=[f"question {i}" for i in range(12)])
    assert found[0].title.startswith("largest 1: 10 — question 7") and len(found) == 9
    shown = {token.text: token for token in found[0].tokens}
    assert shown["<375>"].shade == "up5" and shown["<376>"].shade in ("up2", "up3") and shown["<374>"].shade == ""
    assert shown["<375>"].hover == "token 26: 10"
    assert found[0].tokens[0].text == "… " and found[0].tokens[-1].text == " …"
    assert len({context.title for context in found}) == 9
    assert shown_contexts(np.zeros(600), tokens, owner, questions=["q"] * 12) == []


def test_the_histogram_counts_positive_tokens_only() -> None:
    figure: Any = activation_histogram({"base": np.zeros(10), "organism": np.array([0.0, 1.0, 1.0, 2.0])})
    names = [trace.name for trace in figure.data]
    assert names == ["base (0 %)", "organism (75 %)"]
    counts = [y for y in figure.data[1].y[::2] if y]
    assert sum(counts) == 3
