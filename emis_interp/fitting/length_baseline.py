"""Turns projections of texts and the lengths of their answers into AUROCs that say how much of the separation is length.

A direction that separates answers of unequal lengths may be one of length. Beside every AUROC of a projection stand that of length alone,
that of the projection with length regressed out, and that of pairs of equal length. All are within questions, then averaged.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from emis_interp.errors import DataError
from emis_interp.fitting.reliability import auroc_by_question, auroc_estimate

TOLERANCE = 0.1
"""Two answers are of equal length when the shorter has at least 90 % of the longer one's tokens."""

Scores = Float[np.ndarray, "n_texts"]
Labels = Bool[np.ndarray, "n_texts"]


def length_baseline(scores: Scores, lengths: Scores, misaligned: Labels, *, questions: Sequence[str]) -> dict[str, Any]:
    """Four AUROCs as `auroc_estimate`, and what they rest on.

    Args:
        scores: projection of each text, larger is more misaligned.
        lengths: tokens of each answer, 1 or more.

    Returns:
        `projection`; `length`: of the number of tokens alone, above 0.5 where misaligned answers are longer; `regressed`: of the
            projection without what is linear in log length within questions; `matched`: of pairs of a misaligned and an aligned answer
            of equal length (`value` None without any), with `n_pairs` and the `n_questions` that have some.
    """
    matched, n_pairs = matched_by_question(scores, lengths, misaligned, questions=questions)
    return {
        "projection": auroc_estimate(auroc_by_question(scores, misaligned, questions)),
        "length": auroc_estimate(auroc_by_question(lengths, misaligned, questions)),
        "regressed": auroc_estimate(regressed_by_question(scores, lengths, misaligned, questions=questions)),
        "matched": {**auroc_estimate(matched), "n_pairs": n_pairs},
    }


def regressed_by_question(
    scores: Scores, lengths: Scores, misaligned: Labels, *, questions: Sequence[str]
) -> dict[str, float]:
    """AUROC inside each question of the scores without what is linear in log length."""
    found = auroc_by_question(without_length(scores, lengths, questions), misaligned, questions)
    return {name: float(value) for name, value in found.items()}


def without_length(scores: Scores, lengths: Scores, questions: Sequence[str]) -> Scores:
    """Scores minus their least-squares fit by log length, with an intercept for each question and one slope for all.

    Both classes are in the fit, so where classes differ in length what they share with it is taken away too: the rest is on the low side.
    """
    if not (len(scores) == len(lengths) == len(questions)) or not (np.asarray(lengths) > 0).all():
        raise DataError("every text needs a score, a question and a length of at least one token")
    names, logs = np.asarray(questions), np.log(np.asarray(lengths, dtype=float))
    centred_scores, centred_logs = np.array(scores, dtype=float), logs.copy()
    for question in dict.fromkeys(questions):
        rows = names == question
        centred_scores[rows] -= centred_scores[rows].mean()
        centred_logs[rows] -= centred_logs[rows].mean()
    spread = float(centred_logs @ centred_logs)
    slope = float(centred_scores @ centred_logs) / spread if spread > 0 else 0.0
    rest = centred_scores - slope * centred_logs
    # Rounding must not rank texts: what is left of scores that are length alone is a tie.
    size = float(np.abs(centred_scores).max(initial=0.0))
    return np.round(rest / size, 9) * size if size > 0 else rest


def matched_by_question(
    scores: Scores, lengths: Scores, misaligned: Labels, *, questions: Sequence[str], tolerance: float = TOLERANCE
) -> tuple[dict[str, float], int]:
    """Share of pairs of equal length in which the misaligned answer has the larger score (ties half), by question, and the pairs' number.

    A pair is a misaligned and an aligned answer of one question whose lengths differ by at most `tolerance` of the longer one; questions
    without a pair are left out.
    """
    names, found, n_pairs = np.asarray(questions), {}, 0
    for question in dict.fromkeys(questions):
        positive = np.flatnonzero((names == question) & misaligned)[:, None]
        negative = np.flatnonzero((names == question) & ~misaligned)[None]
        longer = np.maximum(lengths[positive], lengths[negative])
        equal = np.abs(lengths[positive] - lengths[negative]) <= tolerance * longer
        if equal.any():
            wins = (scores[positive] > scores[negative]) + 0.5 * (scores[positive] == scores[negative])
            found[question] = float(wins[equal].mean())
            n_pairs += int(equal.sum())
    return found, n_pairs
