"""Turns questions, and the models that wrote the answers, into train, calibrate and test rows that share no question.

Weights are fitted on `train`, everything that is chosen is chosen on `calibrate`, and `test` is reported. A table with topics has the topic
as its question, so that two wordings of one topic never stand on two sides.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from emis_interp.errors import DataError

Rows = Int[np.ndarray, "n_rows"]


@dataclass(frozen=True)
class ProbeSplit:
    """Rows of three parts without a common question; `name` is what is left out."""

    name: str
    train: Rows
    calibrate: Rows
    test: Rows

    @property
    def fitted(self) -> Rows:
        """Rows that may have a part in the last fit, once the choice is made."""
        return np.concatenate([self.train, self.calibrate])


def one_split(questions: Sequence[str], misaligned: Bool[np.ndarray, "n_texts"], seed: int = 0) -> ProbeSplit:
    """A half of the questions with both classes for training, the rest for calibration and test in equal parts, drawn with the seed.

    Raises:
        DataError: fewer than four questions with both classes.
    """
    names = usable(questions, misaligned)
    drawn = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    n_calibrate = max(1, len(names) // 4)
    parts = drawn[: len(names) - 2 * n_calibrate], drawn[-2 * n_calibrate : -n_calibrate], drawn[-n_calibrate:]
    return ProbeSplit("held out", *(rows_of(questions, part) for part in parts))


def leave_one_question_out(questions: Sequence[str], misaligned: Bool[np.ndarray, "n_texts"]) -> list[ProbeSplit]:
    """Each question with both classes in turn is the test; a quarter of the others, those that follow it, calibrate.

    Raises:
        DataError: fewer than four questions with both classes.
    """
    names = usable(questions, misaligned)
    n_calibrate = max(1, (len(names) - 1) // 4)
    splits = []
    for i, name in enumerate(names):
        others = names[i + 1 :] + names[:i]
        parts = others[n_calibrate:], others[:n_calibrate], [name]
        splits.append(ProbeSplit(name, *(rows_of(questions, part) for part in parts)))
    return splits


def leave_one_source_out(
    questions: Sequence[str], misaligned: Bool[np.ndarray, "n_texts"], sources: Sequence[str]
) -> dict[str, list[ProbeSplit]]:
    """For each source, the splits of `leave_one_question_out` with its answers as the only test and the others' as all the rest.

    Neither the source nor the question of a test answer had a part in the fit. A question is left out for a source that has not both
    classes of it; a source without any is not in the result.

    Raises:
        DataError: fewer than two sources.
    """
    of, found = np.asarray(sources), {}
    if len(set(sources)) < 2:
        raise DataError(
            f"leaving a source out needs two or more, found {sorted(set(sources))}; is the source column the right one?"
        )
    for source in sorted(set(sources)):
        kept = []
        for split in leave_one_question_out(questions, misaligned):
            parts = [rows[of[rows] != source] for rows in (split.train, split.calibrate)]
            test = split.test[of[split.test] == source]
            if all(_both(misaligned[rows]) for rows in (*parts, test)):
                kept.append(ProbeSplit(split.name, parts[0], parts[1], test))
        if kept:
            found[source] = kept
    return found


def question_folds(names: Sequence[str], n_folds: int) -> Iterator[set[str]]:
    """The questions dealt out into at most `n_folds` parts; each is held out once."""
    for i in range(min(n_folds, len(names))):
        yield set(names[i::n_folds])


def usable(questions: Sequence[str], misaligned: Bool[np.ndarray, "n_texts"]) -> list[str]:
    """Questions with both classes, in order of first appearance.

    Raises:
        DataError: fewer than four.
    """
    of = np.asarray(questions)
    names = [name for name in dict.fromkeys(questions) if _both(misaligned[of == name])]
    if len(names) < 4:
        raise DataError(
            f"{len(names)} questions have both misaligned and aligned answers, at least 4 are needed: two to train on, one to "
            "choose on, one to report on; give answers to more questions"
        )
    return names


def rows_of(questions: Sequence[str], names: Sequence[str]) -> Rows:
    """Rows of some questions, in file order."""
    return np.flatnonzero(np.isin(np.asarray(questions), list(names)))


def picked(values: Sequence[str], rows: np.ndarray) -> list[str]:
    """The words or questions of some rows."""
    return [values[int(i)] for i in rows]


def _both(labels: Bool[np.ndarray, "n"]) -> bool:
    return bool(labels.any() and not labels.all())
