"""Turns the contexts in which a latent fires into words for it, and the words into a score on questions that had no part in finding them.

A label without a score is a story. Contexts are stretches of an answer; terms are the words and signs whose TF-IDF weight is larger where
the latent fires than where it does not, on the selection questions; the score is how well they tell firing contexts of the report
questions. Beside it stands what the same procedure reaches after shuffling which contexts fire within each question.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import rankdata
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import balanced_accuracy_score

from emis_interp.errors import DataError
from emis_interp.fitting.reliability import auroc_by_question, auroc_estimate
from emis_interp.models.chat import EncodedChat
from emis_interp.stats.jackknife import between, jackknife_interval
from emis_interp.stats.permutation import null_p
from probes.sae.latent_comparison import null_range
from probes.sae.latent_texts import LatentTexts

CONTEXT_TOKENS = 16
N_TERMS = 8
FEWEST_CONTEXTS = 8
"""Firing and other contexts that either half must hold for a score."""
_WORDS_AND_SIGNS = r"(?u)\b\w+\b|[^\w\s]"


@dataclass(frozen=True)
class Contexts:
    """Stretches of `CONTEXT_TOKENS` tokens of the answers (the last of an answer may be shorter), in the order of the tokens.

    Attributes:
        starts: index of each one's first token among all answers' tokens.
        tokens: its tokens as text.
        report: whether its question belongs to the report half.
    """

    starts: np.ndarray
    tokens: tuple[tuple[str, ...], ...]
    questions: np.ndarray
    report: Bool[np.ndarray, "n_contexts"]

    @property
    def texts(self) -> list[str]:
        return ["".join(tokens) for tokens in self.tokens]

    def maxima(self, activations: Float[np.ndarray, "n_tokens"]) -> Float[np.ndarray, "n_contexts"]:
        """Largest activation in each."""
        return np.maximum.reduceat(activations, self.starts)


def contexts_of(tokenizer: Any, chats: Sequence[EncodedChat], texts: LatentTexts) -> Contexts:
    """The stretches of all answers."""
    starts, tokens, rows, first = [], [], [], 0
    for i, chat in enumerate(chats):
        answer = answer_tokens(tokenizer, chat)
        for start in range(0, len(answer), CONTEXT_TOKENS):
            starts.append(first + start)
            tokens.append(tuple(answer[start : start + CONTEXT_TOKENS]))
            rows.append(i)
        first += len(answer)
    of = np.array(rows)
    return Contexts(
        np.array(starts), tuple(tokens), np.asarray(texts.questions)[of], np.asarray(texts.halves)[of] == "report"
    )


def answer_tokens(tokenizer: Any, chat: EncodedChat) -> list[str]:
    """Each token of the answer as text."""
    return [str(tokenizer.decode([token])) for token in chat.input_ids[chat.response_start : chat.response_end]]


class Labeller:
    """Finds and scores labels in one set of contexts; the vocabulary is that of the selection half."""

    def __init__(self, contexts: Contexts, n_shuffles: int = 200, seed: int = 0) -> None:
        """
        Raises:
            DataError: the selection half repeats no word.
        """
        self.contexts, self.n_shuffles, self.seed = contexts, n_shuffles, seed
        texts = np.array(contexts.texts, dtype=object)
        vectorizer = TfidfVectorizer(token_pattern=_WORDS_AND_SIGNS, sublinear_tf=True, min_df=2)
        try:
            self.found: Any = vectorizer.fit_transform(texts[~contexts.report])
        except ValueError as error:
            raise DataError(
                f"no terms can be taken from {len(texts)} contexts ({error}); give more or longer texts"
            ) from None
        self.held_out: Any = vectorizer.transform(texts[contexts.report])
        self.terms = vectorizer.get_feature_names_out()

    def label(self, activations: Float[np.ndarray, "n_tokens"], logit_tokens: Sequence[str] = ()) -> dict[str, Any]:
        """Terms of a latent, and how well they and its logit tokens tell held-out contexts: parts of a `LatentLabel`.

        A context fires above an activation of 0, or, for a latent that is active in more than half of the selection contexts, above its
        median there.
        """
        maxima, report = self.contexts.maxima(activations), self.contexts.report
        chosen = maxima[~report]
        threshold = 0.0 if (chosen > 0).mean() <= 0.5 else float(np.median(chosen))
        fires = maxima > threshold
        counts = {half: int(fires[rows].sum()) for half, rows in (("selection", ~report), ("report", report))}
        sizes = {"selection": int((~report).sum()), "report": int(report.sum())}
        few = [half for half, n in counts.items() if min(n, sizes[half] - n) < FEWEST_CONTEXTS]
        if few:
            said = ", ".join(f"{counts[half]} of {sizes[half]} {half} contexts" for half in counts)
            reason = f"fires in {said}; a score needs {FEWEST_CONTEXTS} with and without in each half"
            return {"threshold": threshold, "terms": [], "detections": [], "no_detection": reason}
        weights = self._weights(fires[~report][None])
        scores = (self.held_out @ weights.T)[:, 0]
        order = np.argsort(-weights[0], kind="stable")
        terms = [str(self.terms[j]) for j in order[:N_TERMS] if weights[0, j] > 0]
        held = fires[report]
        null = self._null(fires[~report], held)
        detections = [self._detection("terms", terms, scores, held=held)]
        own = null_p(null, detections[0]["auroc"]["value"])
        detections[0]["null"] = null_range(null, own)
        words = {word for token in logit_tokens if (word := token.strip().casefold())}
        if words:
            rows = np.flatnonzero(report)
            hits = [sum(token.strip().casefold() in words for token in self.contexts.tokens[i]) for i in rows]
            detections.append(self._detection("logit tokens", sorted(words), np.array(hits, dtype=float), held=held))
        return {"threshold": threshold, "terms": terms, "detections": detections, "no_detection": None}

    def _weights(self, fires: Bool[np.ndarray, "n_draws n_selection"]) -> Float[np.ndarray, "n_draws n_terms"]:
        """Mean TF-IDF where it fires minus where it does not, the `N_TERMS` largest positive ones; the others are 0."""
        own = fires.astype(float)
        firing, other = own @ self.found, (1 - own) @ self.found
        contrast = firing / own.sum(1, keepdims=True) - other / (1 - own).sum(1, keepdims=True)
        n = min(N_TERMS, contrast.shape[1])
        kept = np.argpartition(-contrast, n - 1, axis=1)[:, :n]
        weights = np.zeros_like(contrast)
        np.put_along_axis(weights, kept, np.maximum(np.take_along_axis(contrast, kept, 1), 0.0), 1)
        return weights

    def _null(
        self, fires: Bool[np.ndarray, "n_selection"], held: Bool[np.ndarray, "n_report"]
    ) -> Float[np.ndarray, "n_draws"]:
        """AUROCs of terms found with shuffled labels; each draw keeps how often a question's contexts fire."""
        generator = np.random.default_rng(self.seed)
        questions = self.contexts.questions[~self.contexts.report]
        drawn = np.repeat(fires[None], self.n_shuffles, axis=0)
        for name in np.unique(questions):
            rows = np.flatnonzero(questions == name)
            drawn[:, rows] = generator.permuted(drawn[:, rows], axis=1)
        return _aurocs((self.held_out @ self._weights(drawn).T).T, held)

    def _detection(
        self,
        by: str,
        words: Sequence[str],
        scores: Float[np.ndarray, "n_report"],
        *,
        held: Bool[np.ndarray, "n_report"],
    ) -> dict[str, Any]:
        questions = self.contexts.questions[self.contexts.report]

        def auroc(keep: Bool[np.ndarray, " n_report"]) -> float | None:
            both = held[keep].any() and not held[keep].all()
            return float(_aurocs(scores[keep][None], held[keep])[0]) if both else None

        def accuracy(keep: Bool[np.ndarray, " n_report"]) -> float | None:
            both = held[keep].any() and not held[keep].all()
            return float(balanced_accuracy_score(held[keep], scores[keep] > 0)) if both else None

        try:
            estimate = auroc_estimate(auroc_by_question(scores, held, questions.tolist()))
            within = {key: estimate[key] for key in ("value", "low", "high")} | {"n": estimate["n_questions"]}
        except DataError:  # in no question do some contexts fire and others not
            within = None
        return {
            "by": by,
            "words": list(words),
            "n_contexts": len(held),
            "n_firing": int(held.sum()),
            "auroc": jackknife_interval(auroc, questions, between(0, 1)).as_json(),
            "within": within,
            "balanced_accuracy": jackknife_interval(accuracy, questions, between(0, 1)).as_json(),
        }


def _aurocs(
    scores: Float[np.ndarray, "n_draws n_contexts"], fires: Bool[np.ndarray, "n_contexts"]
) -> Float[np.ndarray, "n_draws"]:
    """Chance that a firing context scores above another; ties count half."""
    n_firing, n_other = int(fires.sum()), int((~fires).sum())
    ranks = rankdata(scores, axis=-1)[:, fires].sum(-1)
    return (ranks - n_firing * (n_firing + 1) / 2) / (n_firing * n_other)
