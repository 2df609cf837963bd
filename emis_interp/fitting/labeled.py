"""Joins activations with the class and the question of their texts, and weighs texts so that questions count the same."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from emis_interp.errors import DataError


@dataclass(frozen=True)
class LabeledActivations:
    """Activations with their class and question.

    Attributes:
        x: float32.
        lengths: tokens of each answer; None where nobody asks how much of a separation is length.
    """

    x: Float[Tensor, "n_texts n_layers d_model"]
    misaligned: Bool[np.ndarray, "n_texts"]
    questions: tuple[str, ...]
    lengths: Float[np.ndarray, "n_texts"] | None = None

    def __post_init__(self) -> None:
        if self.lengths is not None and len(self.lengths) != len(self.x):
            raise DataError(f"{len(self.x)} activations, {len(self.lengths)} lengths; counts must agree")
        if not len(self.x) == len(self.misaligned) == len(self.questions):
            raise DataError(
                f"{len(self.x)} activations, {len(self.misaligned)} labels, {len(self.questions)} questions; counts must agree"
            )

    @cached_property
    def cells(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Rows (misaligned, aligned) of every question that has both classes, in the order of the questions.

        Raises:
            DataError: no question has both classes.
        """
        names, labels = np.asarray(self.questions), np.asarray(self.misaligned, dtype=bool)
        found = {}
        for question in dict.fromkeys(self.questions):
            of_question = names == question
            rows = np.flatnonzero(of_question & labels), np.flatnonzero(of_question & ~labels)
            if len(rows[0]) and len(rows[1]):
                found[question] = rows
        if not found:
            raise DataError(
                "no question has both a misaligned and an aligned answer; give paired texts or lower the thresholds"
            )
        return found

    def only(self, questions: set[str]) -> "LabeledActivations":
        keep = np.array([question in questions for question in self.questions])
        return self.rows(np.flatnonzero(keep))

    def without(self, question: str) -> "LabeledActivations":
        return self.rows(np.flatnonzero(np.asarray(self.questions) != question))

    def rows(self, indices: np.ndarray) -> "LabeledActivations":
        chosen = torch.from_numpy(np.asarray(indices))
        lengths = None if self.lengths is None else self.lengths[indices]
        return LabeledActivations(
            self.x[chosen], self.misaligned[indices], tuple(self.questions[i] for i in indices), lengths
        )

    def at(self, layers: list[int]) -> "LabeledActivations":
        """The same texts at some of the layers."""
        return LabeledActivations(self.x[:, layers], self.misaligned, self.questions, self.lengths)

    def centred(self) -> tuple[Float[Tensor, "n n_layers d_model"], Bool[np.ndarray, "n"], Float[np.ndarray, "n"]]:
        """Texts of questions with both classes, minus the midpoint of their question's class means; their class; and weights with which
        every question, and within it every class, counts the same (they sum to 1)."""
        parts, labels, weights = [], [], []
        for positive, negative in self.cells.values():
            middle = (self.x[positive].mean(0) + self.x[negative].mean(0)) / 2
            for rows, label in ((positive, True), (negative, False)):
                parts.append(self.x[rows] - middle)
                labels += [label] * len(rows)
                weights += [0.5 / (len(self.cells) * len(rows))] * len(rows)
        return torch.cat(parts), np.array(labels), np.array(weights)
