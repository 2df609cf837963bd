import functools
from dataclasses import replace

import numpy as np
import pytest
from classifier_corpora import planted

from emis_interp.fitting.labeled import LabeledActivations
from emis_interp.fitting.reliability import mean_auroc
from emis_interp.probe_results import ProbeSet
from probes.classifiers.choosing import calibration_curve, choose_probe, in_log_odds
from probes.classifiers.controls import fit_controls
from probes.classifiers.corpus import ProbeCorpus
from probes.classifiers.evaluation import evaluate, figures, selectivity_words
from probes.classifiers.splits import leave_one_question_out, one_split

FAST = {
    "methods": ("difference", "logistic"),
    "positions": ("last_prompt", "first_4", "response_mean"),
    "n_shuffled": 10,
}


@functools.cache
def table(signal: float, telling: float) -> tuple[dict[str, float], ProbeSet]:
    corpus = planted(signal=signal, telling=telling)
    splits = leave_one_question_out(corpus.texts.questions, corpus.texts.misaligned)
    board, _ = evaluate(corpus, splits, **FAST)
    found = ProbeSet.model_validate(figures(board, corpus, "planted"))
    return {row.name: row.auroc.value or 0.0 for row in found.figures}, found


def test_what_only_activations_hold_is_told_from_text_and_from_every_null() -> None:
    reached, found = table(signal=0.6, telling=0.0)
    assert reached["probe"] > 0.9 and reached["text"] < 0.65
    assert found.verdict in ("above text + 0.10", "above chance (text is below it) + 0.10")
    assert reached["at last_prompt"] == 0.5  # the same prompt for both classes
    assert reached["at first_4"] < reached["at response_mean"]
    for null in found.nulls:
        assert abs(null.mean - 0.5) < 0.1 and null.high < reached["probe"] and null.p_at_floor


def test_the_ceiling_of_two_scores_by_hand() -> None:
    # 12 texts at p = .95 and 12 at .05: pairs in order .95*.95*144, reversed .05*.05*144, ties (.95*.05)*2*12*11 count half.
    right, wrong, ties = 0.95**2 * 144, 0.05**2 * 144, 2 * 0.95 * 0.05 * 132
    expected = (right + ties / 2) / (right + wrong + ties)
    _, found = table(signal=0.6, telling=0.0)
    assert found.ceiling is not None and found.ceiling.value == pytest.approx(expected)


def test_what_words_hold_is_not_credited_to_a_probe() -> None:
    reached, found = table(signal=0.0, telling=0.9)
    assert reached["text"] > 0.9 and reached["probe"] < 0.65
    assert "not told from chance" in found.verdict or "below text + 0.10" in found.verdict


def test_the_choice_never_sees_the_test_question() -> None:
    corpus = planted(signal=0.4, telling=0.0)
    split = one_split(corpus.texts.questions, corpus.texts.misaligned)
    before = choose(corpus, split)
    for row in split.test:
        corpus.readings.tokens[3][row] += 100
    corpus.readings._pooled.clear()
    after = choose(corpus, split)
    assert (before.weight == after.weight).all() and before.as_json() == after.as_json()


def test_of_noise_a_chosen_probe_reaches_chance_over_many_draws() -> None:
    """One draw of 96 texts may lie 0.1 off; what leaked from the test question would move the mean of many."""
    reached = []
    for seed in range(60):
        corpus = planted(signal=0.0, telling=0.0, per_class=8, topic=0.0, seed=seed)
        scores = np.full(len(corpus.texts.texts), np.nan)
        for split in leave_one_question_out(corpus.texts.questions, corpus.texts.misaligned):
            curve = calibration_curve(corpus, split, methods=("difference", "mass_mean"), position="response_mean")
            chosen = choose_probe(corpus, split, curve, position="response_mean", rules=("mean", "max"))
            scores[split.test] = chosen.scores(corpus, split.test)
        reached.append(float(mean_auroc(scores, corpus.texts.misaligned, corpus.texts.questions)))
    assert abs(np.mean(reached) - 0.5) < 3 * np.std(reached) / len(reached) ** 0.5


def test_a_saved_scale_says_how_often_a_held_out_answer_is_misaligned() -> None:
    corpus = planted(signal=0.25, telling=0.0, n_questions=8, per_class=150, topic=0.0)
    split = one_split(corpus.texts.questions, corpus.texts.misaligned)
    probe = in_log_odds(choose(corpus, split), corpus, split.fitted)
    odds = probe.score(corpus.at("response_mean", 3).x[split.test, 0]).numpy()
    said = 1 / (1 + np.exp(-odds))
    labels = corpus.texts.misaligned[split.test]
    for low, high in ((0.1, 0.3), (0.4, 0.6), (0.7, 0.9)):
        inside = (said > low) & (said < high)
        assert labels[inside].mean() == pytest.approx(said[inside].mean(), abs=0.12)


def test_transfer_is_asked_about_the_left_out_question_alone() -> None:
    corpus, other = planted(signal=0.6, telling=0.0), planted(signal=0.6, telling=0.0, seed=5)
    splits = leave_one_question_out(corpus.texts.questions, corpus.texts.misaligned)[:2]
    _, moved = evaluate(corpus, splits, methods=("difference",), positions=(), n_shuffled=1, others={"other": other})
    tested = {other.texts.questions[i] for i in np.flatnonzero(~np.isnan(moved["other"].scores["probe"]))}
    assert tested == {split.name for split in splits}
    assert figures(moved["other"], other, "moved")["n_questions"] == 2


CONTROLS = {"text", "answer length", "log-probability", "unrelated: weather"}


def with_logprobs(signal: float, seed: int) -> ProbeCorpus:
    corpus = planted(signal=signal, telling=0.3, seed=seed)
    drawn = np.random.default_rng(seed).standard_normal(len(corpus.texts.texts))
    return replace(corpus, logprobs=drawn - corpus.texts.misaligned)


def weather(corpus: ProbeCorpus) -> dict[int, dict[str, LabeledActivations]]:
    """A contrast that points the wrong way, so that its sign shows."""
    data = corpus.at("response_mean", 3)
    return {3: {"weather": LabeledActivations(-data.x, data.misaligned, data.questions)}}


def test_a_transfer_gets_every_control_as_it_was_fitted_on_the_first_corpus() -> None:
    corpus, bare = with_logprobs(0.3, 0), planted(signal=0.3, telling=0.3, seed=5)
    flipped = [text.model_copy(update={"misaligned": not text.misaligned}) for text in corpus.texts.texts]
    others = {"same": corpus, "flipped": replace(corpus, texts=replace(corpus.texts, texts=tuple(flipped)))}
    splits = leave_one_question_out(corpus.texts.questions, corpus.texts.misaligned)
    how = {"methods": ("difference",), "positions": (), "n_shuffled": 2, "n_random": 3, "rules": ("max",)}
    board, moved = evaluate(corpus, splits, unrelated=weather(corpus), others={**others, "bare": bare}, **how)
    assert set(moved["same"].scores) == {"probe", *CONTROLS} == set(board.scores)
    assert set(moved["bare"].scores) == {"probe", *CONTROLS} - {"log-probability"}
    for name in others:  # nothing is fitted on the other corpus, not even a sign on its labels
        for key in board.scores:
            np.testing.assert_array_equal(moved[name].scores[key], board.scores[key])
        for key, draws in board.draws.items():
            np.testing.assert_array_equal(moved[name].draws[key], draws)
    found = ProbeSet.model_validate(figures(moved["bare"], bare, "moved"))
    assert {null.name for null in found.nulls} == {"shuffled labels", "random direction"}


def test_a_control_is_given_the_sign_that_the_fitted_questions_prefer() -> None:
    corpus = with_logprobs(0.6, 0)
    split = one_split(corpus.texts.questions, corpus.texts.misaligned)
    controls = fit_controls(corpus, split, choose(corpus, split), unrelated=weather(corpus), n_shuffled=1, n_random=1)
    assert controls.signs["log-probability"] == controls.signs["unrelated: weather"] == -1
    fitted = controls.scores(corpus, split.fitted).single
    for name in ("answer length", "log-probability", "unrelated: weather"):
        rows = corpus.texts.misaligned[split.fitted], corpus.questions_of(split.fitted)
        assert mean_auroc(fitted[name], *rows) >= 0.5


def interval(value: float, low: float | None) -> dict[str, float | None]:
    return {"value": value, "low": low, "high": value + 0.1}


@pytest.mark.parametrize(
    ("probe", "text", "gain", "words"),
    [
        (interval(0.9, 0.85), 0.75, interval(0.15, 0.11), "above text + 0.10"),
        (interval(0.9, 0.85), 0.75, interval(0.15, 0.05), "above text + 0.10, but the interval reaches below it"),
        (interval(0.9, 0.85), 0.75, interval(0.15, None), "above text + 0.10, but the interval reaches below it"),
        (interval(0.8, 0.7), 0.75, interval(0.05, 0.01), "below text + 0.10, though above text"),
        (interval(0.8, 0.7), 0.75, interval(0.05, -0.01), "below text + 0.10, and not told from text"),
        (interval(0.55, 0.45), 0.3, interval(0.25, 0.2), "not told from chance, and so not above text + 0.10"),
        (
            interval(0.58, 0.51),
            0.3,
            interval(0.28, 0.2),
            "below chance (text is below it) + 0.10, though above chance (text is below it)",
        ),
    ],
)
def test_the_verdict_takes_the_interval_and_chance_into_account(
    probe: dict, text: float, gain: dict, words: str
) -> None:
    assert selectivity_words(probe, interval(text, None), gain) == words


def choose(corpus, split):
    curve = calibration_curve(corpus, split, methods=("difference", "logistic"), position="response_mean")
    return choose_probe(corpus, split, curve, position="response_mean", rules=("mean", "max"))
