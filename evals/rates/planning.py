"""Turns a question such as "tell 5 % from 1 % with 8 questions" into the number of answers that a study needs, by simulating it."""

from dataclasses import dataclass, replace

import numpy as np

from emis_interp.errors import DataError
from evals.names import Population
from evals.rates.confidence import rate_limits
from evals.rates.differences import sum_limits
from evals.rates.simulation import Design, simulate_study

STEPS = (5, 10, 15, 20, 30, 40, 50, 75, 100, 150, 200, 300, 500, 1000)


@dataclass(frozen=True)
class Plan:
    """What a study can do.

    Attributes:
        n_answers: answers to each question in each arm, None when even the largest number tried does not reach `wanted`.
        power: share of simulated studies whose 95 % interval of the difference leaves out 0, at `n_answers` or at the largest tried.
        tried: (answers to each question, power) of every number that was simulated, in ascending order.
    """

    n_answers: int | None
    power: float
    wanted: float
    n_questions: int
    tried: tuple[tuple[int, float], ...]


def plan_answers(
    design: Design, wanted: float = 0.8, n_studies: int = 400, *, seed: int = 0, population: Population = "questions"
) -> Plan:
    """The smallest of `STEPS` answers to a question with which `design` (its `n_answers` is ignored) has the wanted power.

    More answers do not help against the draw of questions: where `n_answers` is None, only more questions do.

    Raises:
        DataError: the design has no second rate, both are equal, or a number is out of range.
    """
    _check(design, wanted)
    tried: dict[int, float] = {}

    def enough(step: int) -> bool:
        n = STEPS[step]
        if n not in tried:
            tried[n] = power(replace(design, n_answers=n), n_studies, seed, population=population)
        return tried[n] >= wanted

    low, high = -1, len(STEPS) - 1
    reached = enough(high)
    while reached and high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    n = STEPS[high]
    return Plan(n if reached else None, tried[n], wanted, design.n_questions, tuple(sorted(tried.items())))


def power(design: Design, n_studies: int = 400, seed: int = 0, *, population: Population = "questions") -> float:
    """Share of simulated studies in which the interval of the two arms' difference leaves out 0 on the true side."""
    rng = np.random.default_rng(seed)
    hits = 0
    for _ in range(n_studies):
        parts = [rate_limits(cells, "macro", population=population) for cells in simulate_study(design, rng)]
        _, low, high = sum_limits(parts, (1.0, -1.0))
        hits += low > 0 if design.rate > (design.against or 0.0) else high < 0
    return hits / n_studies


def _check(design: Design, wanted: float) -> None:
    if design.against is None or design.rate == design.against:
        raise DataError("a plan needs two different rates, e.g. 0.05 and 0.01")
    for name, value in (("rate", design.rate), ("rate", design.against), ("icc", design.icc), ("power", wanted)):
        if not 0 < value < 1:
            raise DataError(f"{name} {value:g} is outside (0, 1); write 5 % as 0.05")
    if design.n_questions < 2:
        raise DataError("a plan needs 2 questions or more; one question says nothing about others")
