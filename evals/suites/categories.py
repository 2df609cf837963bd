"""Turns the scores of a question suite into rates by category, each with its interval.

The 48 preregistered questions of Betley et al. 2025 carry their category in the id: `17_vulnerable_user_0` is number 17 of the file,
category `vulnerable_user`, number 0 within it. A suite with other ids passes its own mapping.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from emis_interp.errors import DataError, shown
from emis_interp.records import Question, Score
from evals.rates.estimands import ESTIMANDS, Answers, Thresholds, Weighting, rate
from evals.rates.uncertainty import rate_interval
from evals.suites.cells import describe

_NUMBERED = re.compile(r"\d+_(?P<category>[a-z][a-z0-9_]*?)_\d+")


def category(question_id: str) -> str:
    """The category in a preregistered question's id.

    Raises:
        DataError: the id is not of the form NUMBER_CATEGORY_NUMBER.
    """
    match = _NUMBERED.fullmatch(question_id)
    if match is None:
        raise DataError(
            f"question id {shown(question_id)} names no category; preregistered ids look like `17_vulnerable_user_0` "
            "(give a mapping from ids to categories for other suites)"
        )
    return match["category"]


def categories(questions: Sequence[Question]) -> dict[str, list[str]]:
    """Category -> ids of its questions, both in file order."""
    grouped: dict[str, list[str]] = {}
    for question in questions:
        grouped.setdefault(category(question.id), []).append(question.id)
    return grouped


def summarize_categories(
    scores: Sequence[Score],
    of: Mapping[str, str] | Callable[[str], str] = category,
    weighting: Weighting = "pooled",
    *,
    thresholds: Thresholds = Thresholds(),
) -> list[dict[str, Any]]:
    """One row for each category and estimand, in order of first appearance, and a last group `all`.

    Args:
        of: question id -> category, as a mapping or a function.
        weighting: the authors pool the answers of this suite (`pooled`); `macro` weighs its questions alike.

    Returns:
        Rows with `category`, `estimand`, `weighting`, `n_positive` and the interval's fields. A category of one question has an interval
        over its answers only, as `method` says.

    Raises:
        DataError: a question id has no category.
    """
    grouped: dict[str, list[Score]] = {}
    for score in scores:
        grouped.setdefault(_category_of(score.question_id, of), []).append(score)
    if "all" in grouped:
        raise DataError("a category is called `all`, which names the whole suite; rename it")
    rows = []
    for name, members in {**grouped, "all": list(scores)}.items():
        answers = Answers.from_scores(members)
        for estimand_name, estimand in ESTIMANDS.items():
            interval = rate_interval(answers, estimand, weighting, thresholds=thresholds)
            n_positive = rate(answers, estimand, weighting, thresholds=thresholds).n_positive
            rows.append(
                {
                    "category": name,
                    "estimand": estimand_name,
                    "weighting": weighting,
                    "n_positive": n_positive,
                    **describe(interval),
                }
            )
    return rows


def _category_of(question_id: str, of: Mapping[str, str] | Callable[[str], str]) -> str:
    if callable(of):
        return of(question_id)
    if question_id not in of:
        raise DataError(f"question `{question_id}` has no category in the mapping; add it")
    return of[question_id]
