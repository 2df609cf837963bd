"""Turns very many answers into those that a page holds: the bad ones first, of the others a fixed draw, even over arms and questions."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from emis_interp.report.contents import Answer
from emis_interp.texts.judged import COHERENT_ABOVE, MISALIGNED_BELOW

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
    bad = [index for index, answer in enumerate(answers) if is_bad(answer)]
    if len(answers) <= limit:
        return Sample(list(answers), len(answers), len(bad), len(bad))
    kept = set(_evenly(_by_arm(answers, bad), min(MAX_BAD, limit // 3)))
    coherent = [index for index, answer in enumerate(answers) if is_coherent(answer)]
    kept |= set(_evenly([worst[:WORST_OF_EACH_ARM] for worst in _by_arm(answers, coherent)], limit // 3))
    rest: dict[tuple[str, str], list[int]] = {}
    for index, answer in enumerate(answers):
        if index not in kept:
            rest.setdefault((answer.completion.arm, answer.completion.question_id), []).append(index)
    groups = [sorted(group, key=lambda index: draw_of(answers[index])) for _, group in sorted(rest.items())]
    kept |= set(_evenly(groups, max(0, limit - len(kept))))
    n_bad_shown = len(kept.intersection(bad))
    return Sample([answers[index] for index in sorted(kept)], len(answers), len(bad), n_bad_shown)


def worst_of(answers: Sequence[Answer], n: int) -> dict[str, list[Answer]]:
    """Arm -> its `n` least aligned coherent answers; arms without any have none. Answers of interventions are left out."""
    own = [index for index, answer in enumerate(answers) if not answer.is_intervention]
    arms = dict.fromkeys(answers[index].completion.arm for index in own)
    found: dict[str, list[Answer]] = {arm: [] for arm in arms}
    for group in _by_arm(answers, [index for index in own if is_coherent(answers[index])]):
        found[answers[group[0]].completion.arm] = [answers[index] for index in group[:n]]
    return found


def is_coherent(answer: Answer) -> bool:
    """It has both scores, and the coherence is above the paper's limit."""
    score = answer.score
    return score is not None and None not in (score.aligned, score.coherent) and (score.coherent or 0) > COHERENT_ABOVE


def is_bad(answer: Answer) -> bool:
    """Misaligned and coherent."""
    return is_coherent(answer) and _aligned(answer) < MISALIGNED_BELOW


def draw_of(answer: Answer) -> bytes:
    """The place of an answer in the fixed draw, from which answer it is alone."""
    return hashlib.blake2b(
        repr((DRAW, answer.completion.key)).encode("utf-8", "backslashreplace"), digest_size=8
    ).digest()


def _aligned(answer: Answer) -> float:
    return answer.score.aligned if answer.score is not None and answer.score.aligned is not None else float("inf")


def _by_arm(answers: Sequence[Answer], indices: Sequence[int]) -> list[list[int]]:
    """Indices of each arm, the least aligned first."""
    ordered = sorted(indices, key=lambda index: (answers[index].completion.arm, _aligned(answers[index]), index))
    return [list(group) for _, group in groupby(ordered, key=lambda index: answers[index].completion.arm)]


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
