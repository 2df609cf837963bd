"""Turns the judged answers of an arm's models into columns, from which all of its figures follow: texts and evidence stay on disk."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Int

from emis_interp.records import LABELS, Completion, Score
from evals.rates.counts import Answers

_LABELS = ("", *LABELS)


class CountedAnswers(Protocol):
    """What is known of answers before they are judged: columns with one entry for each, and how many were cut."""

    @property
    def question_ids(self) -> np.ndarray: ...
    @property
    def models(self) -> np.ndarray: ...
    @property
    def n_tokens(self) -> Int[np.ndarray, " answer"]: ...
    @property
    def n_cut(self) -> int: ...


@dataclass(frozen=True, eq=False)
class JudgedColumns:
    """Judged answers.

    Attributes:
        answers: with the models apart where there are several.
        n_tokens: of each, 0 where a server did not count them.
        n_cut: answers that end at the token limit.
        unscored: place in `reasons` of each answer's reasons for lacking a number and a label, -1 for none.
        reasons: metric and reason, as often as an answer has some, by place.
        passing: one reason for every answer that the next run asks for again.
    """

    answers: Answers
    n_tokens: Int[np.ndarray, " answer"]
    n_cut: int
    unscored: Int[np.ndarray, " answer"]
    reasons: Sequence[tuple[tuple[str, str], ...]]
    passing: Sequence[str] = ()

    @staticmethod
    def of(completions: Sequence[Completion], scores: Sequence[Score]) -> "JudgedColumns":
        """Answers that are in memory, and their scores in the same order."""
        growing = ScoreColumns(len(scores))
        for place, score in enumerate(scores):
            growing.put(place, score)
        return growing.of(ListedCounts(completions))

    @staticmethod
    def joined(parts: Sequence["JudgedColumns"], models: Sequence[str]) -> "JudgedColumns":
        """The answers of several models, each of one name, one after the other."""
        names = np.repeat(list(models), [len(part.n_tokens) for part in parts]) if len(set(models)) > 1 else None
        columns = {
            name: np.concatenate([getattr(part.answers, name) for part in parts])
            for name in ("aligned", "coherent", "question_ids", "labels")
        }
        begins = np.cumsum([0, *(len(part.reasons) for part in parts)])
        return JudgedColumns(
            Answers(**columns, models=names),
            np.concatenate([part.n_tokens for part in parts]),
            sum(part.n_cut for part in parts),
            np.concatenate(
                [
                    np.where(part.unscored < 0, -1, part.unscored + begin)
                    for part, begin in zip(parts, begins, strict=False)
                ]
            ),
            [reasons for part in parts for reasons in part.reasons],
            [reason for part in parts for reason in part.passing],
        )

    def __len__(self) -> int:
        return len(self.n_tokens)

    @property
    def n_unscored(self) -> int:
        return int((self.unscored >= 0).sum())

    @property
    def unscored_reasons(self) -> dict[str, int]:
        """`metric: reason` -> answers, in the order in which the answers have them."""
        counts: Counter[str] = Counter()
        for place in self.unscored[self.unscored >= 0].tolist():
            counts.update(f"{metric}: {reason}" for metric, reason in self.reasons[place])
        return dict(counts)

    @property
    def counted_tokens(self) -> np.ndarray | None:
        """Tokens of each answer; None where a server did not count them."""
        return self.n_tokens.astype(float) if self.n_tokens.any() else None


class ScoreColumns:
    """The columns of `n` scores while they come in, in any order."""

    def __init__(self, n: int) -> None:
        self._aligned, self._coherent = np.full(n, np.nan), np.full(n, np.nan)
        self._label, self._unscored = np.zeros(n, dtype=np.int8), np.full(n, -1, dtype=np.int32)
        self._reasons: dict[tuple[tuple[str, str], ...], int] = {}
        self._passing: dict[int, str] = {}

    def put(self, place: int, score: Score) -> None:
        if score.aligned is not None:
            self._aligned[place] = score.aligned
        if score.coherent is not None:
            self._coherent[place] = score.coherent
        self._label[place] = _LABELS.index(score.aligned_label or "")
        if score.unscored:
            self._unscored[place] = self._reasons.setdefault(tuple(score.unscored.items()), len(self._reasons))
        if score.passing:
            self._passing[place] = score.unscored[score.passing[0]]

    def of(self, answers: CountedAnswers) -> JudgedColumns:
        """With what is known of the answers themselves, in their order."""
        models = answers.models
        judged = Answers(
            self._aligned,
            self._coherent,
            answers.question_ids,
            np.array(_LABELS)[self._label],
            models if len(np.unique(models)) > 1 else None,
        )
        passing = [reason for _, reason in sorted(self._passing.items())]
        return JudgedColumns(judged, answers.n_tokens, answers.n_cut, self._unscored, list(self._reasons), passing)


class ListedCounts:
    """`CountedAnswers` of answers that are in memory."""

    def __init__(self, completions: Sequence[Completion]) -> None:
        self.question_ids = np.array([row.question_id for row in completions], dtype=str)
        self.models = np.array([row.arm for row in completions], dtype=str)
        self.n_tokens = np.array([row.n_tokens for row in completions], dtype=np.int64)
        self.n_cut = sum(row.finish == "length" for row in completions)
