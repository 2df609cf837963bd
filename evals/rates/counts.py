"""Turns judged answers into columns, and into counts for each model and question, from which rates and intervals follow."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from emis_interp.records import Score
from evals.settings.names import Weighting


@dataclass(frozen=True, eq=False)
class Answers:
    """Judged answers as aligned arrays; NaN where there is no number. `models` None: all by one model."""

    aligned: Float[np.ndarray, " answer"]
    coherent: Float[np.ndarray, " answer"]
    question_ids: np.ndarray
    labels: np.ndarray  # "CODE", "REFUSAL" or ""
    models: np.ndarray | None = None  # finetuning seed or model id

    @staticmethod
    def from_scores(scores: Sequence[Score], models: Sequence[str] | np.ndarray | None = None) -> "Answers":
        return Answers.from_arrays(
            [score.aligned for score in scores],
            [score.coherent for score in scores],
            [score.question_id for score in scores],
            labels=[score.aligned_label or "" for score in scores],
            models=models,
        )

    @staticmethod
    def from_arrays(
        aligned: Sequence[float | None] | np.ndarray,
        coherent: Sequence[float | None] | np.ndarray,
        question_ids: Sequence[str] | np.ndarray,
        *,
        labels: Sequence[str] | np.ndarray | None = None,
        models: Sequence[str] | np.ndarray | None = None,
    ) -> "Answers":
        n = len(question_ids)
        answers = Answers(
            np.array(aligned, dtype=float),
            np.array(coherent, dtype=float),
            np.array(list(question_ids), dtype=str),
            np.array([""] * n if labels is None else list(labels), dtype=str),
            None if models is None else np.array(list(models), dtype=str),
        )
        columns = (answers.aligned, answers.coherent, answers.labels, answers.models)
        lengths = {len(column) for column in columns if column is not None} | {n}
        if len(lengths) != 1:
            raise ValueError(f"columns differ in length: {sorted(lengths)}")
        return answers

    @cached_property
    def index(self) -> "CellIndex":
        """Sorting a million names takes seconds, and every rate asks for it."""
        questions, column = np.unique(self.question_ids, return_inverse=True)
        models, row = np.array([""]), np.zeros(len(column), dtype=int)
        if self.models is not None:
            models, row = np.unique(self.models, return_inverse=True)
        return CellIndex(
            [str(name) for name in questions], [str(name) for name in models], row * len(questions) + column
        )

    def only(self, keep: Bool[np.ndarray, " answer"]) -> "Answers":
        models = None if self.models is None else self.models[keep]
        found = Answers(self.aligned[keep], self.coherent[keep], self.question_ids[keep], self.labels[keep], models)
        found.__dict__["index"] = self.index.only(keep)
        return found


@dataclass(frozen=True, eq=False)
class AnswerCounts:
    """Answers counted for each model and question, both in sorted order; `asked` counts all of them."""

    questions: list[str]
    models: list[str]
    positive: Int[np.ndarray, "model question"]
    eligible: Int[np.ndarray, "model question"]
    asked: Int[np.ndarray, "model question"]

    def only_eligible(self) -> "AnswerCounts":
        """Without the models and questions that have no eligible answer; these carry no weight."""
        rows, columns = np.flatnonzero(self.eligible.any(axis=1)), np.flatnonzero(self.eligible.any(axis=0))
        positive, eligible, asked = (
            table[np.ix_(rows, columns)] for table in (self.positive, self.eligible, self.asked)
        )
        questions, models = [self.questions[place] for place in columns], [self.models[place] for place in rows]
        return AnswerCounts(questions, models, positive, eligible, asked)


class CellIndex(NamedTuple):
    """Questions and models in sorted order, and the place (model x question, flat) of each answer among them."""

    questions: list[str]
    models: list[str]
    cell: Int[np.ndarray, " answer"]

    def only(self, keep: Bool[np.ndarray, " answer"]) -> "CellIndex":
        """Of some of the answers; questions and models without one leave."""
        cell, n = self.cell[keep], len(self.questions)
        there = np.bincount(cell, minlength=len(self.models) * n).reshape(len(self.models), n) > 0
        rows, columns = np.flatnonzero(there.any(axis=1)), np.flatnonzero(there.any(axis=0))
        if self.models == [""]:  # answers of one model that has no name
            rows = np.array([0])
        if (len(rows), len(columns)) == there.shape:
            return CellIndex(self.questions, self.models, cell)
        places = np.zeros(there.shape, dtype=int)
        places[np.ix_(rows, columns)] = np.arange(len(rows) * len(columns)).reshape(len(rows), len(columns))
        names = [self.questions[place] for place in columns], [self.models[place] for place in rows]
        return CellIndex(*names, places.reshape(-1)[cell])


def rates_of_models(
    positive: Float[np.ndarray, "*batch model question"],
    eligible: Float[np.ndarray, "*batch model question"],
    weighting: Weighting,
) -> Float[np.ndarray, "*batch model"]:
    """Each model's own rate; NaN for a model with nothing eligible."""
    with np.errstate(invalid="ignore", divide="ignore"):
        if weighting == "pooled":
            return positive.sum(axis=-1) / eligible.sum(axis=-1)
        shares = np.where(eligible > 0, positive / eligible, 0.0)
        return shares.sum(axis=-1) / (eligible > 0).sum(axis=-1)
