"""Turns very many answers into those that a page holds: the bad ones first, of the others a fixed draw, even over arms and questions."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from emis_interp.report.contents import Answer
from emis_interp.texts.judged import COHERENT_ABOVE, MISALIGNED_BELOW

MAX_ON_PAGE = 6000
MAX_BAD = 2000
WORST_OF_EACH_ARM = 10


@dataclass(frozen=True)
class AnswerColumns:
    """What pages choose and count by, of every answer in the order of the run; NaN where there is no number.

    Attributes:
        arm, question: places in `arms` (name, and whether it is that of an intervention) and in `questions` (ids).
    """

    arm: Int[np.ndarray, " answer"]
    question: Int[np.ndarray, " answer"]
    aligned: Float[np.ndarray, " answer"]
    coherent: Float[np.ndarray, " answer"]
    is_cut: Bool[np.ndarray, " answer"]
    arms: list[tuple[str, bool]]
    questions: list[str]

    def __len__(self) -> int:
        return len(self.arm)

    @property
    def is_coherent(self) -> Bool[np.ndarray, " answer"]:
        """It has both scores, and the coherence is above the paper's limit."""
        return ~np.isnan(self.aligned) & (self.coherent > COHERENT_ABOVE)

    @property
    def is_bad(self) -> Bool[np.ndarray, " answer"]:
        """Misaligned and coherent."""
        return self.is_coherent & (self.aligned < MISALIGNED_BELOW)


@dataclass(frozen=True)
class Sample:
    """Which answers stand on a page, in the order of the run, and how they were chosen.

    Attributes:
        places: of the answers in the run.
        n_bad, n_bad_shown: misaligned and coherent answers of the run, and those on the page.
    """

    places: list[int]
    n_all: int
    n_bad: int
    n_bad_shown: int

    @property
    def whole(self) -> bool:
        return len(self.places) == self.n_all

    @property
    def words(self) -> str:
        """What a reader must know of a page that does not hold everything."""
        shown, of_bad = f"{self.n_bad_shown} of the", " (of each arm first the least aligned)"
        if self.n_bad == self.n_bad_shown:
            shown, of_bad = "all", ""
        return (
            f"This page holds {len(self.places)} of {self.n_all} answers: {shown} {self.n_bad} that are misaligned and coherent{of_bad}, "
            f"up to {WORST_OF_EACH_ARM} least aligned coherent ones of each arm, and of the rest a fixed draw, even over arms and "
            "questions. Bad answers are more frequent here than in the run: take rates from the tables above, never from "
            "the counts of this page."
        )


def columns_of(answers: Iterable[Answer]) -> AnswerColumns:
    """In one walk."""
    arms: dict[tuple[str, bool], int] = {}
    questions: dict[str, int] = {}
    rows = [
        (
            arms.setdefault((answer.completion.arm, answer.is_intervention), len(arms)),
            questions.setdefault(answer.completion.question_id, len(questions)),
            _or_nan(answer.score.aligned if answer.score else None),
            _or_nan(answer.score.coherent if answer.score else None),
            answer.completion.finish == "length",
        )
        for answer in answers
    ]
    arm, question, aligned, coherent, is_cut = zip(*rows, strict=True) if rows else ((), (), (), (), ())
    return AnswerColumns(
        np.array(arm, int),
        np.array(question, int),
        np.array(aligned, float),
        np.array(coherent, float),
        np.array(is_cut, bool),
        list(arms),
        list(questions),
    )


def sample(columns: AnswerColumns, limit: int) -> Sample:
    """At most `limit` answers; the same ones on every build, and mostly the same ones when answers were added.

    Bad answers take at most a third of the page, evenly over the arms, the least aligned first; so do the worst coherent ones.
    """
    n_all, n_bad = len(columns), int(columns.is_bad.sum())
    if n_all <= limit:
        return Sample(list(range(n_all)), n_all, n_bad, n_bad)
    kept = np.zeros(n_all, bool)
    kept[_evenly(_least_aligned(columns, columns.is_bad), min(MAX_BAD, limit // 3))] = True
    worst = [group[:WORST_OF_EACH_ARM] for group in _least_aligned(columns, columns.is_coherent)]
    kept[_evenly(worst, limit // 3)] = True
    kept[_evenly(_drawn_groups(columns, ~kept), limit - int(kept.sum()))] = True
    return Sample(np.flatnonzero(kept).tolist(), n_all, n_bad, int((kept & columns.is_bad).sum()))


def worst_of(answers: Sequence[Answer], columns: AnswerColumns, n: int) -> dict[str, list[Answer]]:
    """Arm -> its `n` least aligned coherent answers; arms without any have none. Answers of interventions are left out."""
    found: dict[str, list[Answer]] = {arm: [] for arm, is_intervention in columns.arms if not is_intervention}
    for group in _least_aligned(columns, columns.is_coherent):
        arm, is_intervention = columns.arms[columns.arm[group[0]]]
        if not is_intervention:
            found[arm] = [answers[place] for place in group[:n].tolist()]
    return found


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _least_aligned(columns: AnswerColumns, chosen: Bool[np.ndarray, " answer"]) -> list[np.ndarray]:
    """Places of the chosen answers of each arm, the least aligned first."""
    places = np.flatnonzero(chosen)
    ordered = places[np.lexsort((places, columns.aligned[places], columns.arm[places]))]
    return _split(ordered, columns.arm[ordered])


def _drawn_groups(columns: AnswerColumns, chosen: Bool[np.ndarray, " answer"]) -> list[np.ndarray]:
    """Places of the chosen answers of each arm and question, in an order that is drawn from their names and their number within it."""
    group = columns.arm * max(1, len(columns.questions)) + columns.question
    by_group = np.argsort(group, kind="stable")
    drawn = []
    for places in _split(by_group, group[by_group]):
        names = (columns.arms[columns.arm[places[0]]], columns.questions[columns.question[places[0]]])
        seed = hashlib.sha256(repr(names).encode("utf-8", "backslashreplace")).digest()
        order = np.random.default_rng(list(seed)).random(len(places))
        places = places[np.argsort(order, kind="stable")]
        drawn.append(places[chosen[places]])
    return [places for places in drawn if len(places)]


def _split(places: np.ndarray, label: np.ndarray) -> list[np.ndarray]:
    return np.split(places, np.flatnonzero(np.diff(label)) + 1) if len(places) else []


def _evenly(groups: Sequence[np.ndarray], budget: int) -> list[int]:
    """The first of each group, equally many where groups last, `budget` in all (or everything)."""
    level, left = 0, budget
    for done, size in enumerate(sorted(map(len, groups))):
        step = min(size - level, left // (len(groups) - done))
        level, left = level + step, left - step * (len(groups) - done)
        if level < size:
            break
    taken: list[int] = []
    for group in groups:
        one_more = int(left > 0 and len(group) > level)
        left -= one_more
        taken += group[: level + one_more].tolist()
    return taken
