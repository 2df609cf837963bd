"""Turns very many answers into those that a page holds: the bad ones first, of the others a fixed draw, even over arms and questions."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from emis_interp.records import Key
from emis_interp.report.answer_log import Answer, AnswerLog, Columns, columns_of

MAX_ON_PAGE = 6000
MAX_BAD = 2000
WORST_OF_EACH_ARM = 10
DRAW = "answers of the page"


@dataclass(frozen=True)
class Sample:
    """Which answers stand on a page, in the order of the run, and how they were chosen.

    Attributes:
        n_bad, n_bad_shown: misaligned and coherent answers of the run, and those on the page.
    """

    answers: list[Answer]
    n_all: int
    n_bad: int
    n_bad_shown: int

    @property
    def whole(self) -> bool:
        return len(self.answers) == self.n_all

    @property
    def words(self) -> str:
        """What a reader must know of a page that does not hold everything."""
        bad, of_bad = (
            ("all", "")
            if self.n_bad == self.n_bad_shown
            else (f"{self.n_bad_shown} of the", " (of each arm first the least aligned)")
        )
        return (
            f"This page holds {len(self.answers)} of {self.n_all} answers: {bad} {self.n_bad} that are misaligned and coherent{of_bad}, "
            f"up to {WORST_OF_EACH_ARM} least aligned coherent ones of each arm, and of the rest a fixed draw, even over arms and "
            "questions. Bad answers are more frequent here than in the run: take rates from the tables above, never from "
            "the counts of this page."
        )


def sample(answers: Sequence[Answer], limit: int) -> Sample:
    """At most `limit` answers; the same ones on every build, and mostly the same ones when the run has grown.

    Bad answers take at most a third of the page, evenly over the arms, the least aligned first; so do the worst coherent ones.
    """
    columns = columns_of(answers)
    bad = np.flatnonzero(columns.is_bad).tolist()
    if len(answers) <= limit:
        return Sample(list(answers), len(answers), len(bad), len(bad))
    kept = set(_evenly(_by_arm(columns, bad), min(MAX_BAD, limit // 3)))
    coherent = _by_arm(columns, np.flatnonzero(columns.is_coherent).tolist())
    kept |= set(_evenly([worst[:WORST_OF_EACH_ARM] for worst in coherent], limit // 3))
    rest: dict[tuple[str, str], list[int]] = {}
    for place in range(len(answers)):
        if place not in kept:
            rest.setdefault(columns.key(place)[:2], []).append(place)
    groups = [sorted(group, key=lambda place: draw_of(columns.key(place))) for _, group in sorted(rest.items())]
    kept |= set(_evenly(groups, max(0, limit - len(kept))))
    return Sample(answers_at(answers, sorted(kept)), len(answers), len(bad), len(kept.intersection(bad)))


def worst_of(answers: Sequence[Answer], n: int) -> dict[str, list[Answer]]:
    """Arm -> its `n` least aligned coherent answers; arms without any have none. Answers of interventions are left out."""
    columns = columns_of(answers)
    own = np.array([not is_intervention for _, is_intervention in columns.arms], dtype=bool)
    found: dict[str, list[Answer]] = {name: [] for name, is_intervention in columns.arms if not is_intervention}
    for group in _by_arm(columns, np.flatnonzero(columns.is_coherent & own[columns.arm]).tolist()):
        found[columns.key(group[0])[0]] = answers_at(answers, group[:n])
    return found


def draw_of(key: Key) -> bytes:
    """The place of an answer in the fixed draw, from which answer it is alone."""
    return hashlib.blake2b(repr((DRAW, key)).encode("utf-8", "backslashreplace"), digest_size=8).digest()


def answers_at(answers: Sequence[Answer], places: Sequence[int]) -> list[Answer]:
    return list(answers.at(places)) if isinstance(answers, AnswerLog) else [answers[place] for place in places]


def _by_arm(columns: Columns, places: Sequence[int]) -> list[list[int]]:
    """Places of each arm, the least aligned first."""
    names = [name for name, _ in columns.arms]
    ordered = sorted(places, key=lambda place: (names[columns.arm[place]], columns.aligned[place], place))
    return [list(group) for _, group in groupby(ordered, key=lambda place: names[columns.arm[place]])]


def _evenly(groups: Sequence[Sequence[int]], budget: int) -> list[int]:
    """The first of each group, equally many where groups last, `budget` in all (or everything)."""
    level, left = 0, budget
    for done, size in enumerate(sorted(map(len, groups))):
        step = min(size - level, left // (len(groups) - done))
        level, left = level + step, left - step * (len(groups) - done)
        if level < size:
            break
    taken = []
    for group in groups:
        one_more = int(left > 0 and len(group) > level)
        left -= one_more
        taken += group[: level + one_more]
    return taken
