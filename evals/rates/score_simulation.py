"""Turns a design into simulated scores whose mean, AUROC or rank correlation is known: what the jackknife's coverage is measured on."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy.special import expit

from emis_interp.stats.interval import Interval
from emis_interp.stats.jackknife import answers_mean, between, groups_mean
from emis_interp.stats.rank_correlation import spearman, spearman_interval

Figure = Literal["mean score", "AUROC", "rank correlation"]
WITHIN = 1.5
"""Standard deviation of answers to one question, logits of a score."""
POPULATION = 40_000
"""Questions that the true value of a figure is taken over."""


@dataclass(frozen=True)
class ScoreDesign:
    """Questions are drawn, then answers.

    `centre` is the mean logit of a score / 100; the distance of the two classes in standard deviations for an AUROC; the correlation
    within questions for a rank correlation. `between` is the standard deviation of questions on the same scale. Numbers of answers to a
    question vary from half of `n_answers` to twice as many.
    """

    figure: Figure
    n_questions: int
    n_answers: int
    centre: float
    between: float


Study = list[Float[np.ndarray, "answer 2"]]
"""For each question: a score twice; class (0 or 1) and projection; two judges' scores."""


def simulate_scores(design: ScoreDesign, rng: np.random.Generator) -> Study:
    counts = rng.integers(max(4, design.n_answers // 2), 2 * design.n_answers, design.n_questions)
    shifts = design.between * rng.normal(size=(design.n_questions, 2))
    return [_SIMULATED[design.figure](design, n, shift, rng) for n, shift in zip(counts, shifts, strict=True)]


def interval(design: ScoreDesign, study: Study) -> Interval:
    """The project's interval."""
    if design.figure == "AUROC":
        return groups_mean(np.array([_auroc(rows) for rows in study]), between(0, 1))
    rows, ids = np.concatenate(study), np.repeat(np.arange(len(study)).astype(str), [len(one) for one in study])
    if design.figure == "mean score":
        return answers_mean(rows[:, 0], ids, (0, 100))
    return spearman_interval(rows[:, 0], rows[:, 1], ids)


def value(design: ScoreDesign, study: Study) -> float | None:
    """The figure itself."""
    if design.figure == "AUROC":
        return float(np.mean([_auroc(rows) for rows in study]))
    rows = np.concatenate(study)
    return float(rows[:, 0].mean()) if design.figure == "mean score" else spearman(rows[:, 0], rows[:, 1])


def percentile_limits(
    design: ScoreDesign, study: Study, n_bootstrap: int, *, rng: np.random.Generator
) -> tuple[float, float]:
    """Percentile interval of the bootstrap over questions and their answers (within its class, for an AUROC)."""
    found = []
    for _ in range(n_bootstrap):
        drawn = [study[index] for index in rng.integers(0, len(study), len(study))]
        again = value(design, [rows[_drawn_again(design, rows, rng)] for rows in drawn])
        found.append(np.nan if again is None else again)
    low, high = np.nanquantile(found, [0.025, 0.975])
    return float(low), float(high)


@cache
def truth(design: ScoreDesign) -> float:
    """The figure over the population, numbers of answers as in a study."""
    rng = np.random.default_rng(1)
    many = ScoreDesign(design.figure, POPULATION, design.n_answers, design.centre, design.between)
    found = value(many, simulate_scores(many, rng))
    assert found is not None
    return found


def _scores(design: ScoreDesign, n: int, shift: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    one = _rounded(design.centre + shift[0] + WITHIN * rng.normal(size=n))
    return np.stack([one, one], axis=1)


def _projections(design: ScoreDesign, n: int, shift: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    label = (np.arange(n) % 2).astype(float)
    return np.stack([label, label * (design.centre + shift[0]) + rng.normal(size=n)], axis=1)


def _judges(design: ScoreDesign, n: int, shift: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    both = rng.normal(size=n)
    own = np.sqrt(design.centre) * both + np.sqrt(1 - design.centre) * rng.normal(size=(2, n))
    moved = np.array([shift[0], 0.7 * shift[0] + np.sqrt(1 - 0.7**2) * shift[1]])
    return _rounded(1 + moved[:, None] + WITHIN * own).T


_SIMULATED: dict[str, Callable[[ScoreDesign, int, np.ndarray, np.random.Generator], np.ndarray]] = {
    "mean score": _scores,
    "AUROC": _projections,
    "rank correlation": _judges,
}


def _rounded(logits: np.ndarray) -> np.ndarray:
    """Scores in steps of five, as judges give them."""
    return np.round(100 * expit(logits) / 5) * 5


def _auroc(rows: np.ndarray) -> float:
    positive, negative = rows[rows[:, 0] == 1, 1], rows[rows[:, 0] == 0, 1]
    return float((positive[:, None] > negative).mean() + 0.5 * (positive[:, None] == negative).mean())


def _drawn_again(design: ScoreDesign, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if design.figure != "AUROC":
        return rng.integers(0, len(rows), len(rows))
    return np.concatenate([rng.choice(part, len(part)) for part in (np.flatnonzero(rows[:, 0] == k) for k in (0, 1))])
