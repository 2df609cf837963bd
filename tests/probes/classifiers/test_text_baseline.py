import numpy as np
import pytest
from classifier_corpora import planted

from emis_interp.fitting.reliability import mean_auroc
from probes.classifiers.text_baseline import balanced_weights, telling_words, text_scorer, without_words


def halves(answers: list[str]) -> float:
    """AUROC of a scorer fitted on questions 0-3, on the other two."""
    corpus = planted(signal=0, telling=0.9)
    labels, questions = corpus.texts.misaligned, corpus.texts.questions
    fitted = np.array([name < "q4" for name in questions])
    scorer = text_scorer(
        [a for a, f in zip(answers, fitted, strict=True) if f], labels[fitted], [q for q in questions if q < "q4"]
    )
    scores = scorer([a for a, f in zip(answers, fitted, strict=True) if not f])
    return float(mean_auroc(scores, labels[~fitted], [q for q in questions if q >= "q4"]))


def test_telling_words_are_found_and_without_them_nothing_is_left_to_tell_by() -> None:
    corpus = planted(signal=0, telling=0.9)
    words = telling_words(corpus.answers, corpus.texts.misaligned, corpus.texts.questions, n_words=2)
    assert set(words) == {"wicked", "kindly"}
    assert halves(list(corpus.answers)) > 0.95
    masked = without_words(corpus.answers, words)
    assert not any("wicked" in answer or "kindly" in answer for answer in masked)
    assert 0.3 < halves(masked) < 0.7


def test_whole_words_go_in_any_case_and_the_rest_stays() -> None:
    assert without_words(["Kill the killjoy, KILL it!"], ["kill"]) == ["the killjoy, it!"]
    assert without_words(["kill kill"], ["kill"]) == ["."]
    assert without_words(["a  b"], []) == ["a  b"]
    assert without_words(["line\n\nkill two"], ["kill"]) == ["line\n\n two"]


def test_every_question_and_class_weighs_the_same() -> None:
    questions, labels = ["a"] * 5 + ["b"] * 3, np.array([True] * 4 + [False] + [True, False, False])
    weights = balanced_weights(questions, labels)
    assert weights.sum() == pytest.approx(8)
    assert (
        weights[:4].sum() == pytest.approx(weights[4]) == pytest.approx(weights[5]) == pytest.approx(weights[6:].sum())
    )
