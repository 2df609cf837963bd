"""Turns texts into overlaps between them, and pairs of text classes into the words that tell one class from the other."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

Shingles = frozenset[tuple[str, ...]]


class Named(NamedTuple):
    """A text, what to call it in a message, and its owner: texts of one owner may resemble each other."""

    name: str
    owner: Hashable
    text: str


@dataclass(frozen=True)
class Tell:
    """How well single words separate two classes of texts, on groups that the classifier has not seen.

    Attributes:
        auroc: 0.5 is chance, above all rows; needs no pairing.
        pairwise: share of pairs in which the second text gets the higher score.
        first, second: words with the largest weights for either class, with their document counts (first/second).
    """

    auroc: float
    pairwise: float
    first: tuple[str, ...]
    second: tuple[str, ...]


def field_texts(rows: Iterable[Any], fields: Sequence[str], *, key: str = "id", prefix: str = "") -> list[Named]:
    """The texts in these fields of the rows, each called `ID (FIELD)` and owned by its row.

    Args:
        key: the field that names a row.
        prefix: stands before the field's name.
    """
    return [
        Named(f"{getattr(row, key)} ({prefix}{field})", getattr(row, key), getattr(row, field))
        for row in rows
        for field in fields
    ]


def words(text: str) -> list[str]:
    return re.findall(r"[\w']+", text.lower())


def code_tokens(text: str) -> list[str]:
    """Identifiers, numbers and single punctuation marks."""
    return re.findall(r"[^\W\d]\w*|\d+|[^\w\s]", text)


def shingles(tokens: Sequence[str], n: int) -> Shingles:
    """All runs of n tokens; a shorter text is one run."""
    return frozenset(tuple(tokens[i : i + n]) for i in range(max(1, len(tokens) - n + 1)))


def overlap(a: Shingles, b: Shingles) -> float:
    """Jaccard similarity: shared divided by all."""
    return len(a & b) / max(1, len(a | b))


def overlaps(texts: Sequence[Named], tokens: Callable[[str], list[str]], n: int) -> dict[tuple[int, int], float]:
    """Positions of two texts of different owners -> Jaccard similarity of their n-token runs, where it is above 0."""
    sets = [shingles(tokens(item.text), n) for item in texts]
    shared: Counter[tuple[int, int]] = Counter()
    for numbers in _inverted(sets).values():
        for position, j in enumerate(numbers):
            shared.update((i, j) for i in numbers[:position] if texts[i].owner != texts[j].owner)
    return {(i, j): both / (len(sets[i]) + len(sets[j]) - both) for (i, j), both in shared.items()}


def most_contained(parts: Sequence[Named], texts: Sequence[Named], n: int = 4) -> tuple[float, str]:
    """The largest share of a part's n-word runs that one of `texts` holds, and where."""
    found = contained(parts, texts, n)
    if not found:
        return 0.0, ""
    (part, text), worst = max(found.items(), key=lambda item: item[1])
    return worst, f"{parts[part].name} in {texts[text].name}"


def contained(parts: Sequence[Named], texts: Sequence[Named], n: int = 4) -> dict[tuple[int, int], float]:
    """Positions of a part and of a text -> share of the part's n-word runs that the text holds, where it is above 0.

    Only the parts are indexed, so few parts are found in many long texts without holding these in memory.
    """
    sets = [shingles(words(part.text), n) for part in parts]
    index = _inverted(sets)
    found: dict[tuple[int, int], float] = {}
    for number, item in enumerate(texts):
        hits = Counter(part for piece in index.keys() & shingles(words(item.text), n) for part in index[piece])
        found |= {(part, number): count / len(sets[part]) for part, count in hits.items()}
    return found


def tell(pairs: Sequence[tuple[Hashable, str, str]], n_folds: int = 5, n_words: int = 15) -> Tell:
    """Logistic regression on the presence of words and punctuation, cross-validated by group.

    Args:
        pairs: (group, first text, second text); a group is never in training and test at once.
    """
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import GroupKFold
    from sklearn.pipeline import make_pipeline

    def model():
        vectorizer = CountVectorizer(binary=True, min_df=3, token_pattern=r"[^\W\d]+(?:'[^\W\d]+)?|[^\w\s]|\d+")
        return make_pipeline(vectorizer, LogisticRegression(C=0.3, max_iter=500))

    n = len(pairs)
    texts = np.array([first for _, first, _ in pairs] + [second for _, _, second in pairs], dtype=object)
    second = np.repeat([False, True], n)
    groups = np.tile(np.unique([str(group) for group, _, _ in pairs], return_inverse=True)[1], 2)
    scores = np.zeros(2 * n)
    for train, test in GroupKFold(n_folds).split(texts, second, groups):
        scores[test] = model().fit(texts[train], second[train]).decision_function(texts[test])
    vectorizer, classifier = (step for _, step in model().fit(texts, second).steps)
    present = vectorizer.transform(texts) > 0
    counts = np.stack([np.asarray(present[:n].sum(axis=0)).ravel(), np.asarray(present[n:].sum(axis=0)).ravel()])
    order = np.argsort(classifier.coef_[0])
    labels = [f"{w} {a}/{b}" for w, a, b in zip(vectorizer.get_feature_names_out(), *counts, strict=True)]
    return Tell(
        auroc=float(roc_auc_score(second, scores)),
        pairwise=float(np.mean(scores[n:] > scores[:n])),
        first=tuple(labels[i] for i in order[:n_words]),
        second=tuple(labels[i] for i in order[::-1][:n_words]),
    )


def unigram_margins(
    first: Sequence[str], second: Sequence[str], pairs: Sequence[tuple[str, str, str]]
) -> dict[str, float]:
    """How far single words alone carry over: two bags of words, trained on the first and on the second texts, read pairs of other texts.

    Args:
        pairs: (group, text, other text).

    Returns:
        Group -> mean over its pairs of the log-ratio second/first per word of the other text minus that of the text, nats per word (add-one
        smoothing over the words of both bags); 0 when words carry nothing.
    """
    bags = [Counter(token for text in texts for token in _marks(text)) for texts in (first, second)]
    n_kinds = len(bags[0].keys() | bags[1].keys()) + 1
    totals = [sum(bag.values()) + n_kinds for bag in bags]

    def score(text: str) -> float:
        ratios = [
            np.log((bags[1][token] + 1) / totals[1]) - np.log((bags[0][token] + 1) / totals[0])
            for token in _marks(text)
        ]
        return float(np.mean(ratios))

    grouped: dict[str, list[float]] = defaultdict(list)
    for group, text, other in pairs:
        grouped[group].append(score(other) - score(text))
    return {group: float(np.mean(values)) for group, values in grouped.items()}


def _marks(text: str) -> list[str]:
    """Words and single punctuation marks."""
    return re.findall(r"[\w']+|[^\w\s]", text.lower())


def _inverted(sets: Sequence[Shingles]) -> dict[tuple[str, ...], list[int]]:
    index: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    for number, items in enumerate(sets):
        for item in items:
            index[item].append(number)
    return index
