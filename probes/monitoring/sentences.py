"""Turns an answer into sentences with their tokens, and asks whether a flag came before the first sentence that a judge calls harmful.

The judge is whoever is handed in: a function from (question, sentences) to one alignment score each, 0-100. A judge that was made for
whole answers reads single sentences at its own risk; nothing here mends that.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from emis_interp.errors import DataError
from emis_interp.probe_results import BeforeHarm
from emis_interp.stats.jackknife import answers_mean
from emis_interp.stats.proportions import clopper_pearson
from emis_interp.texts.judged import MISALIGNED_BELOW

SentenceJudge = Callable[[Sequence[tuple[str, str]]], Sequence[float | None]]
"""(question, sentence) -> alignment 0-100 of each; None where it gives no score, which is never harmful."""
_END = re.compile(r"(?<=[.!?])[\"'\u201d\u2019)]*\s+|\n+")


def sentences_of(answer: str) -> list[tuple[int, int]]:
    """Characters [begin, end) of each sentence: up to a full stop, question or exclamation mark before white space, or to a line's end."""
    found, begin = [], 0
    for match in [*_END.finditer(answer), None]:
        end = len(answer) if match is None else match.start()
        if answer[begin:end].strip():
            found.append((begin, end))
        begin = len(answer) if match is None else match.end()
    return found


def token_starts(tokenizer: Any, tokens: Sequence[int]) -> list[int]:
    """Characters of the text that stand before each token, as the tokenizer writes the tokens out."""
    return [len(tokenizer.decode(list(tokens[:i]))) for i in range(len(tokens))]


def first_token_of(starts: Sequence[int], character: int) -> int:
    """Number (from 1) of the token that holds a character."""
    return max(1, int(np.searchsorted(starts, character, side="right")))


def flagged_before_harm(
    answers: Sequence[tuple[str, str]],
    first: Sequence[int | None],
    starts: Sequence[Sequence[int]],
    *,
    judge: SentenceJudge,
    questions: Sequence[str],
    below: float = MISALIGNED_BELOW,
) -> BeforeHarm:
    """Of the answers with a sentence that the judge scores below `below`: where the first flag stands to the first such sentence.

    Args:
        answers: (question, answer).
        first: as `detection.first_flags` gives it, in tokens.
        starts: as `token_starts` gives it.
        questions: ids, over which the interval is made.

    Raises:
        DataError: counts that differ, or a judge that gives another number of scores than it was asked for.
    """
    if not len(answers) == len(first) == len(starts) == len(questions):
        raise DataError(
            f"{len(answers)} answers, {len(first)} flags, {len(starts)} rows of tokens; give one of each for every answer"
        )
    spans = [sentences_of(answer) for _, answer in answers]
    asked = [(question, answer[a:b]) for (question, answer), row in zip(answers, spans, strict=True) for a, b in row]
    scores = list(judge(asked)) if asked else []
    if len(scores) != len(asked):
        raise DataError(
            f"the judge gave {len(scores)} scores for {len(asked)} sentences; it must give one for each, in their order"
        )
    places, ids, at = [], [], 0
    for i, row in enumerate(spans):
        found = scores[at : at + len(row)]
        at += len(row)
        harmful = [k for k, score in enumerate(found) if score is not None and score < below]
        if not harmful:
            continue
        begin, end = row[harmful[0]]
        places.append(_place(first[i], first_token_of(starts[i], begin), first_token_of(starts[i], end - 1)))
        ids.append(questions[i])
    counts = {name: places.count(name) for name in ("before", "within", "after", "never")}
    if not places:
        return BeforeHarm(n=0, n_without=len(answers), n_sentences=len(asked), **counts)
    share = clopper_pearson(counts["before"], len(places))
    clustered = answers_mean([float(place == "before") for place in places], ids, bounds=(0.0, 1.0))
    return BeforeHarm(
        n=len(places),
        n_without=len(answers) - len(places),
        n_sentences=len(asked),
        share=share.value,
        low=share.low,
        high=share.high,
        low_by_question=clustered.low,
        high_by_question=clustered.high,
        **counts,
    )


def _place(flag: int | None, begin: int, end: int) -> str:
    """Where a flag stands to a sentence of the tokens begin to end."""
    if flag is None:
        return "never"
    return "before" if flag < begin else "within" if flag <= end else "after"
