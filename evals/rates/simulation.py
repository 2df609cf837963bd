"""Turns a design of a study into simulated counts with a planted rate: what coverage and power are measured on."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq, root
from scipy.special import expit, logit
from scipy.stats import beta, norm

from evals.rates.counts import AnswerCounts


@dataclass(frozen=True)
class Design:
    """`rate` is the population's; `icc` the share of variance between questions; `seed_sd` the seeds' spread on the logit scale.

    With `against`, a contrast of two arms on the same questions: rate minus `against`. `shared` is the correlation of the questions'
    difficulty between the arms: 1 (their rates rise together) to 0 (each arm has hard questions of its own).
    """

    n_questions: int
    n_answers: int
    rate: float
    icc: float
    effects: str = "beta"
    n_seeds: int = 1
    seed_sd: float = 0.0
    against: float | None = None
    shared: float = 1.0


def simulate_study(design: Design, rng: np.random.Generator) -> list[AnswerCounts]:
    """Counts of one arm, or with `against` of two: questions, then seeds, then answers are drawn."""
    ranks = rng.random(design.n_questions)
    arms = []
    for rate in (design.rate, design.against):
        if rate is None:
            continue
        if arms and design.shared < 1:
            own = rng.normal(0, np.sqrt(1 - design.shared**2), design.n_questions)
            ranks = norm.cdf(design.shared * norm.ppf(ranks) + own)
        chance = _question_rates(design, rate, ranks)
        shifted = np.broadcast_to(chance, (design.n_seeds, design.n_questions))
        if design.n_seeds > 1:
            shifts = rng.normal(0, design.seed_sd, (design.n_seeds, 1))
            shifted = expit(logit(chance.clip(1e-9, 1 - 1e-9)) + shifts)
        asked = np.full(shifted.shape, design.n_answers)
        names = [[str(i) for i in range(n)] for n in (design.n_questions, design.n_seeds)]
        arms.append(AnswerCounts(names[0], names[1], rng.binomial(asked, shifted), asked, asked))
    return arms


def _question_rates(
    design: Design, rate: float, ranks: Float[np.ndarray, " question"]
) -> Float[np.ndarray, " question"]:
    if design.n_seeds > 1:
        rate = _before_seeds(rate, design.icc, design.seed_sd)
    if design.effects == "beta":
        strength = 1 / design.icc - 1
        return beta.ppf(ranks, rate * strength, (1 - rate) * strength)
    mean, spread = _logit_normal(rate, design.icc)
    return expit(mean + spread * norm.ppf(ranks))


@cache
def _logit_normal(rate: float, icc: float) -> tuple[float, float]:
    """Mean and standard deviation on the logit scale that give this mean and variance icc x rate x (1 - rate)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    weights = weights / weights.sum()

    def miss(at: Float[np.ndarray, "2"]) -> list[float]:
        values = expit(at[0] + np.exp(at[1]) * nodes)
        mean = weights @ values
        return [np.log(mean / rate), np.log((weights @ values**2 - mean**2) / (icc * rate * (1 - rate)))]

    at = root(miss, [logit(rate) - 0.5, 0.0]).x
    return float(at[0]), float(np.exp(at[1]))


@cache
def _before_seeds(rate: float, icc: float, seed_sd: float) -> float:
    """The rate of questions that, after the seeds' shifts on the logit scale, is `rate` on average."""
    grid = (np.arange(400) + 0.5) / 400
    nodes, weights = np.polynomial.hermite_e.hermegauss(30)
    strength = 1 / icc - 1

    def excess(start: float) -> float:
        chance = beta.ppf(grid, start * strength, (1 - start) * strength).clip(1e-9, 1 - 1e-9)
        return float(expit(logit(chance)[:, None] + seed_sd * nodes).mean(axis=0) @ (weights / weights.sum())) - rate

    return float(brentq(excess, 1e-4, 0.999))  # pyright: ignore[reportArgumentType]
