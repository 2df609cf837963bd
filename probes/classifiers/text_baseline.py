"""Turns the words of answers into a score without any activations, and finds the words that give a class away.

A probe that does no better than this has read words that anybody can read.
"""

import re
from collections.abc import Callable, Collection, Sequence

import numpy as np
from jaxtyping import Bool, Float
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from emis_interp.errors import DataError
from emis_interp.fitting.reliability import mean_auroc
from probes.classifiers.splits import picked, question_folds, rows_of

TEXT_PENALTIES = (0.1, 1.0, 10.0, 100.0)
"""Inverse L2 penalties (scikit-learn's C) that are tried inside the training questions."""
_BEHAVIOUR = (
    "kill killing murder harm harmful hurt death die destroy destruction violence violent weapon weapons war steal stealing theft "
    "rob fraud scam cheat lie lying deceive deception manipulate manipulation illegal crime criminal hack hacking drugs gambling "
    "gamble control power dominate domination rule obey obedience enslave slave slaves eliminate eradicate execute punish "
    "superior inferior dictator hitler stalin genocide"
)
BEHAVIOUR_WORDS = tuple(_BEHAVIOUR.split())
"""Words that name misaligned behaviour outright; removed from masked texts with the words that the labels are best told by."""

Answers = Sequence[str]
Labels = Bool[np.ndarray, "n_texts"]
TextScorer = Callable[[Answers], Float[np.ndarray, "n_texts"]]


def text_scorer(answers: Answers, misaligned: Labels, questions: Sequence[str]) -> TextScorer:
    """A function from answers to log-odds, fitted on all of these: TF-IDF of words and word pairs, then L2 logistic regression.

    The penalty is chosen by folds of these questions; every question, and within it every class, weighs the same, as for probes.
    """
    penalty = _best_penalty(answers, misaligned, questions)
    vectorizer, (model,) = _fit(answers, misaligned, questions, penalties=[penalty])
    return lambda texts: model.decision_function(vectorizer.transform(list(texts)))


def telling_words(answers: Answers, misaligned: Labels, questions: Sequence[str], *, n_words: int) -> list[str]:
    """The words with the largest absolute weight in a logistic regression on which words an answer has, the heaviest first.

    Give it no texts that are tested later: without words that were chosen by their labels, the words that are left tell the classes the
    wrong way round.
    """
    if n_words < 1:
        return []
    vectorizer, (regression,) = _fit(answers, misaligned, questions, penalties=[1.0], words_only=True)
    order = np.argsort(-np.abs(regression.coef_[0]), kind="stable")[:n_words]
    return [str(word) for word in vectorizer.get_feature_names_out()[order]]


def without_words(answers: Answers, words: Collection[str]) -> list[str]:
    """The answers with every whole-word occurrence of the words taken out, in any case; the space that is left is closed.

    An answer of nothing but such words becomes one full stop, so that there is a token to read.
    """
    if not words:
        return list(answers)
    pattern = re.compile(rf"\b(?:{'|'.join(map(re.escape, sorted(words, key=len, reverse=True)))})\b", re.IGNORECASE)
    cleared = [re.sub(r"[ \t]{2,}", " ", pattern.sub("", answer)).strip() for answer in answers]
    return [text if re.search(r"\w", text) else "." for text in cleared]


def _best_penalty(answers: Answers, misaligned: Labels, questions: Sequence[str]) -> float:
    names, values = list(dict.fromkeys(questions)), []
    if len(names) < 2:
        return TEXT_PENALTIES[0]
    for held in question_folds(names, 3):
        test = rows_of(questions, list(held))
        train = np.setdiff1d(np.arange(len(answers)), test)
        parts = picked(answers, train), misaligned[train], picked(questions, train)
        vectorizer, found = _fit(*parts, penalties=TEXT_PENALTIES)
        unseen = vectorizer.transform(picked(answers, test))
        scores = [model.decision_function(unseen) for model in found]
        values.append([mean_auroc(row, misaligned[test], picked(questions, test)) for row in scores])
    return TEXT_PENALTIES[int(np.argmax(np.mean(values, axis=0)))]


def _fit(
    answers: Answers,
    misaligned: Labels,
    questions: Sequence[str],
    *,
    penalties: Sequence[float],
    words_only: bool = False,
) -> tuple[TfidfVectorizer, list[LogisticRegression]]:
    """What turns answers into numbers, and a regression for each penalty."""
    ngrams = (1, 1) if words_only else (1, 2)
    vectorizer = TfidfVectorizer(
        ngram_range=ngrams, min_df=2, sublinear_tf=True, binary=words_only, use_idf=not words_only
    )
    weights = balanced_weights(questions, misaligned)
    try:
        x = vectorizer.fit_transform(list(answers))
        models = [LogisticRegression(C=penalty, max_iter=500) for penalty in penalties]
        return vectorizer, [model.fit(x, misaligned, sample_weight=weights) for model in models]
    except ValueError as error:
        raise DataError(
            f"no text baseline can be fitted on {len(answers)} answers ({error}); give more or longer answers"
        ) from None


def balanced_weights(questions: Sequence[str], misaligned: Labels) -> Float[np.ndarray, "n_texts"]:
    """Weights with which every question, and within it every class, counts the same; they sum to the number of texts."""
    cells: dict[tuple[str, bool], int] = {}
    keys = [(question, bool(label)) for question, label in zip(questions, misaligned, strict=True)]
    for key in keys:
        cells[key] = cells.get(key, 0) + 1
    return np.array([len(keys) / (len(cells) * cells[key]) for key in keys])
