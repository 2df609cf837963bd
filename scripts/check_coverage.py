"""Simulates studies with question effects and counts how often each kind of 95 % interval covers the truth that was planted.

  python scripts/check_coverage.py
  python scripts/check_coverage.py --n-studies 200 --json

A study draws questions (and, in some designs, finetuning seeds) from a population, then answers. `limits` is the project's interval,
`bootstrap` the percentile interval of the hierarchical bootstrap, `naive` takes all answers for independent (Wilson's interval).
`wrong model` designs draw question effects that are normal on the logit scale, which the beta-binomial model does not expect.
"""

import argparse
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq, root
from scipy.special import expit, logit
from scipy.stats import beta, binomtest, norm

import cli
from evals.answers import Cells
from evals.bootstrap import bootstrap_rates
from evals.rate_limits import rate_limits, sum_limits


@dataclass(frozen=True)
class Design:
    """`rate` is the population's; `icc` the share of variance between questions; `seed_sd` the seeds' spread on the logit scale.

    With `against`, a contrast of two arms on the same questions: rate minus `against`.
    """

    n_questions: int
    n_answers: int
    rate: float
    icc: float
    effects: str = "beta"
    n_seeds: int = 1
    seed_sd: float = 0.0
    against: float | None = None


DESIGNS = (
    *(Design(8, 50, rate, 0.18) for rate in (0.02, 0.05, 0.1, 0.2, 0.5)),
    *(Design(8, 100, rate, 0.18, "logit") for rate in (0.05, 0.2)),
    *(Design(24, 50, rate, icc, "logit") for rate, icc in ((0.05, 0.05), (0.05, 0.18), (0.2, 0.18))),
    *(Design(48, 50, rate, 0.18) for rate in (0.02, 0.05, 0.2)),
    *(Design(8, 50, rate, 0.18, n_seeds=4, seed_sd=0.4) for rate in (0.1, 0.3)),
    *(Design(8, 50, rate, 0.18, against=low) for rate, low in ((0.2, 0.05), (0.2, 0.2), (0.1, 0.01))),
    *(Design(24, 50, rate, 0.18, against=low) for rate, low in ((0.2, 0.05), (0.05, 0.05))),
)


def main(args: argparse.Namespace) -> dict[str, Any]:
    rng = np.random.default_rng(args.seed)
    rows = []
    with cli.progress_bar("designs", len(DESIGNS)) as advance:
        for design in DESIGNS:
            rows.append(_run(design, args.n_studies, args.n_bootstrap, rng))
            advance()
    return {"n_studies": args.n_studies, "designs": rows}


def _run(design: Design, n_studies: int, n_bootstrap: int, rng: np.random.Generator) -> dict[str, Any]:
    truth = design.rate - (design.against or 0.0)
    hits, widths = {"limits": 0, "bootstrap": 0, "naive": 0}, []
    high_side = 0
    for study in range(n_studies):
        arms = _study(design, rng)
        found = _intervals(arms, n_bootstrap, study)
        for name, (low, high) in found.items():
            hits[name] += low <= truth <= high
        high_side += truth > found["limits"][1]
        widths.append(found["limits"][1] - found["limits"][0])
    row: dict[str, Any] = {key: getattr(design, key) for key in design.__dataclass_fields__}
    row |= {name: count / n_studies for name, count in hits.items()}
    return row | {"limits_truth_above": high_side / n_studies, "limits_median_width": float(np.median(widths))}


def _intervals(arms: list[Cells], n_bootstrap: int, seed: int) -> dict[str, tuple[float, float]]:
    parts = [rate_limits(cells.only_eligible(), "macro") for cells in arms]
    factors = (1.0, -1.0)[: len(parts)]
    _, low, high = sum_limits(parts, factors)
    # One seed for both arms: they draw the same questions.
    replicates = sum(
        factor * bootstrap_rates(cells, "macro", n_bootstrap, seed) for factor, cells in zip(factors, arms, strict=True)
    )
    bounds = np.nanquantile(replicates, [0.025, 0.975])
    naive = []
    for cells in arms:
        interval = binomtest(int(cells.positive.sum()), int(cells.eligible.sum())).proportion_ci(method="wilson")
        naive.append((cells.positive.sum() / cells.eligible.sum(), interval.low, interval.high))
    (a, a_low, a_high), (b, b_low, b_high) = naive if len(naive) == 2 else (naive[0], (0.0, 0.0, 0.0))
    unpaired = a - b - np.hypot(a - a_low, b_high - b), a - b + np.hypot(a_high - a, b - b_low)
    return {"limits": (low, high), "bootstrap": (float(bounds[0]), float(bounds[1])), "naive": unpaired}


def _study(design: Design, rng: np.random.Generator) -> list[Cells]:
    ranks = rng.random(design.n_questions)  # one difficulty for both arms: their rates rise together
    arms = []
    for rate in (design.rate, design.against):
        if rate is None:
            continue
        chance = _question_rates(design, rate, ranks)
        shifted = np.broadcast_to(chance, (design.n_seeds, design.n_questions))
        if design.n_seeds > 1:
            shifts = rng.normal(0, design.seed_sd, (design.n_seeds, 1))
            shifted = expit(logit(chance.clip(1e-9, 1 - 1e-9)) + shifts)
        asked = np.full(shifted.shape, design.n_answers)
        names = [[str(i) for i in range(n)] for n in (design.n_questions, design.n_seeds)]
        arms.append(Cells(names[0], names[1], rng.binomial(asked, shifted), asked, asked))
    return arms


def _question_rates(
    design: Design, rate: float, ranks: Float[np.ndarray, " question"]
) -> Float[np.ndarray, " question"]:

    if design.n_seeds > 1:
        rate = _before_seeds(design, rate)
    if design.effects == "beta":
        strength = 1 / design.icc - 1
        return beta.ppf(ranks, rate * strength, (1 - rate) * strength)
    mean, spread = _logit_normal(rate, design.icc)
    return expit(mean + spread * norm.ppf(ranks))


_FOUND: dict[tuple[float, ...], tuple[float, float]] = {}


def _logit_normal(rate: float, icc: float) -> tuple[float, float]:
    """Mean and standard deviation on the logit scale that give this mean and variance icc x rate x (1 - rate)."""
    if (rate, icc) not in _FOUND:
        nodes, weights = np.polynomial.hermite_e.hermegauss(80)
        weights = weights / weights.sum()

        def miss(at: np.ndarray) -> list[float]:
            values = expit(at[0] + np.exp(at[1]) * nodes)
            mean = weights @ values
            return [np.log(mean / rate), np.log((weights @ values**2 - mean**2) / (icc * rate * (1 - rate)))]

        at = root(miss, [logit(rate) - 0.5, 0.0]).x
        _FOUND[rate, icc] = float(at[0]), float(np.exp(at[1]))
    return _FOUND[rate, icc]


def _before_seeds(design: Design, rate: float) -> float:
    """The rate of questions that, after the seeds' shifts, is `rate` on average."""

    key = (rate, design.icc, design.seed_sd)
    if key not in _FOUND:
        grid = (np.arange(400) + 0.5) / 400
        nodes, weights = np.polynomial.hermite_e.hermegauss(30)
        strength = 1 / design.icc - 1

        def mean_of(start: float) -> float:
            chance = beta.ppf(grid, start * strength, (1 - start) * strength).clip(1e-9, 1 - 1e-9)
            return float(
                expit(logit(chance)[:, None] + design.seed_sd * nodes).mean(axis=0) @ (weights / weights.sum())
            )

        _FOUND[key] = float(brentq(lambda start: mean_of(start) - rate, 1e-4, 0.999)), 0.0  # pyright: ignore[reportArgumentType]
    return _FOUND[key][0]


def say(result: dict[str, Any]) -> str:
    head = "questions answers seeds  rate  against   icc  effects   limits  (truth above)  bootstrap  naive  width"
    lines = [f"coverage of 95 % intervals over {result['n_studies']} simulated studies each", head]
    for row in result["designs"]:
        against = "-" if row["against"] is None else f"{row['against']:.2f}"
        lines.append(
            f"{row['n_questions']:>9} {row['n_answers']:>7} {row['n_seeds']:>5}  {row['rate']:.2f}  {against:>7}  {row['icc']:.2f}  "
            f"{row['effects']:<7}  {row['limits']:>7.3f}  {row['limits_truth_above']:>13.3f}  {row['bootstrap']:>9.3f}  "
            f"{row['naive']:>5.3f}  {row['limits_median_width']:.3f}"
        )
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--n-studies", type=int, default=1000, help="studies of each design")
    top.add_argument("--n-bootstrap", type=int, default=500, help="resamples of each bootstrap interval")
    top.add_argument("--seed", type=int, default=0, help="of the simulation")
    cli.add_output_flags(top)
    return top


if __name__ == "__main__":
    cli.run(main, parser(), say)
