"""Turns designs of studies into how often each kind of 95 % interval covers the truth that was planted in their simulation.

A study draws questions (and, in some designs, finetuning seeds) from a population, then answers. Designs with the effects `logit` draw
question effects that are normal on the logit scale, which the beta-binomial model does not expect.
"""

from typing import Any

import numpy as np
from scipy.stats import binomtest

from emis_interp.process import Bars, no_bars
from emis_interp.stats.interval import mean_interval, square_and_add
from emis_interp.stats.seeds import with_seeds
from evals.rates.bootstrap import bootstrap_rates
from evals.rates.confidence import rate_limits
from evals.rates.counts import AnswerCounts
from evals.rates.differences import sum_limits
from evals.rates.estimands import ESTIMANDS
from evals.rates.score_simulation import ScoreDesign, interval, percentile_limits, simulate_scores, truth
from evals.rates.simulation import Design, simulate_study
from evals.results.intraclass import of_runs
from evals.results.result_files import read_results
from evals.settings.results import CoverageSettings

DESIGNS = (
    *(Design(8, 50, rate, 0.18) for rate in (0.02, 0.05, 0.1, 0.2, 0.5)),
    Design(8, 50, 0.05, 0.35),
    *(Design(8, 100, rate, 0.18, "logit") for rate in (0.05, 0.2)),
    *(Design(24, 50, rate, icc, "logit") for rate, icc in ((0.05, 0.05), (0.05, 0.18), (0.2, 0.18))),
    *(Design(48, 50, rate, 0.18) for rate in (0.02, 0.05, 0.2)),
    *(Design(8, 50, rate, 0.18, n_seeds=4, seed_sd=0.4) for rate in (0.1, 0.3)),
    *(
        Design(k, 50, rate, 0.18, against=low, shared=shared)
        for rate, low in ((0.2, 0.2), (0.05, 0.05), (0.2, 0.05), (0.1, 0.01), (0.02, 0.02))
        for k in (8, 24, 48)
        for shared in (1.0, 0.0)
    ),
    *(Design(k, 50, 0.2, 0.18, "logit", against=0.05) for k in (8, 24)),
    *(Design(8, 50, rate, 0.18, n_seeds=4, seed_sd=0.4, against=low) for rate, low in ((0.2, 0.2), (0.2, 0.05))),
)
SCORE_DESIGNS = (
    *(ScoreDesign("mean score", k, 20, centre, sd) for k in (8, 24) for centre in (0.0, 2.0, 3.5) for sd in (0.3, 1.0)),
    *(
        ScoreDesign("AUROC", k, 10, centre, sd)
        for k in (3, 8, 15)
        for centre, sd in ((0.5, 0.5), (1.5, 0.8), (2.5, 0.8))
    ),
    *(ScoreDesign("rank correlation", k, 15, r, sd) for k in (4, 8, 24) for r, sd in ((0.3, 1.0), (0.8, 0.3))),
)

SEED_DESIGNS = tuple(
    {"n_questions": k, "n_seeds": seeds, "n_control_seeds": other, "seed_sd": sd}
    for k in (8, 25)
    for seeds, other in ((2, 2), (3, 1), (3, 3), (5, 5))
    for sd in (0.2, 1.0)
)
"""Arm minus control on the same questions; `seed_sd` is the seeds' spread in units of the questions' own."""

PARTS: dict[str, Any] = {"rates": DESIGNS, "scores": SCORE_DESIGNS, "seeds": SEED_DESIGNS}


def run(settings: CoverageSettings, bars: Bars = no_bars) -> dict[str, Any]:
    """Coverage of every design, or with `runs` how much of the variance of real files lies between questions."""
    if settings.runs is not None:
        results = read_results(settings.runs)
        return {"intraclass": {name: of_runs(results, estimand) for name, estimand in ESTIMANDS.items()}}
    rng = np.random.default_rng(settings.seed)
    rows, score_rows, seed_rows = [], [], []
    designs, score_designs, seed_designs = (
        chosen if settings.part in (part, "all") else () for part, chosen in PARTS.items()
    )
    with bars("designs", len(designs) + len(score_designs) + len(seed_designs)) as advance:
        for design in designs:
            rows.append(_run(design, settings.n_studies, settings.n_bootstrap, rng=rng))
            advance()
        for design in score_designs:
            score_rows.append(_run_scores(design, settings.n_studies, settings.n_bootstrap, rng=rng))
            advance()
        for design in seed_designs:
            seed_rows.append(_run_seeds(design, settings.n_studies, rng))
            advance()
    return {"n_studies": settings.n_studies, "designs": rows, "score_designs": score_rows, "seed_designs": seed_rows}


def _run(design: Design, n_studies: int, n_bootstrap: int, *, rng: np.random.Generator) -> dict[str, Any]:
    truth = design.rate - (design.against or 0.0)
    hits, widths = {"limits": 0, "bootstrap": 0, "naive": 0}, []
    high_side = 0
    for study in range(n_studies):
        arms = simulate_study(design, rng)
        found = _intervals(arms, n_bootstrap, study)
        for name, (low, high) in found.items():
            hits[name] += low <= truth <= high
        high_side += truth > found["limits"][1]
        widths.append(found["limits"][1] - found["limits"][0])
    row: dict[str, Any] = {key: getattr(design, key) for key in design.__dataclass_fields__}
    row |= {name: count / n_studies for name, count in hits.items()}
    return row | {"limits_truth_above": high_side / n_studies, "limits_median_width": float(np.median(widths))}


def _run_scores(design: ScoreDesign, n_studies: int, n_bootstrap: int, *, rng: np.random.Generator) -> dict[str, Any]:
    """Coverage of the jackknife over the studies that have an interval, and of the percentile interval over a fifth of all."""
    planted, hits, above, n_with, hits_bootstrap, n_bootstrapped = truth(design), 0, 0, 0, 0, max(1, n_studies // 5)
    for number in range(n_studies):
        study = simulate_scores(design, rng)
        found = interval(design, study)
        if found.low is not None and found.high is not None:
            n_with += 1
            hits += found.low <= planted <= found.high
            above += planted > found.high
        if number < n_bootstrapped:
            low, high = percentile_limits(design, study, min(n_bootstrap, 200), rng=rng)
            hits_bootstrap += low <= planted <= high
    row: dict[str, Any] = {key: getattr(design, key) for key in design.__dataclass_fields__}
    row |= {"truth": planted, "n_without_interval": n_studies - n_with, "bootstrap": hits_bootstrap / n_bootstrapped}
    return row | {"jackknife": hits / n_with, "jackknife_truth_above": above / n_with}


def _run_seeds(design: dict[str, Any], n_studies: int, rng: np.random.Generator) -> dict[str, Any]:
    """Coverage of the interval of a mean margin difference: questions, seeds and their cells are drawn; a control of one seed is given."""
    hits, k = 0, design["n_questions"]
    for _ in range(n_studies):
        shifts, arms = rng.normal(size=k), []
        for n_seeds in (design["n_seeds"], design["n_control_seeds"]):
            own = design["seed_sd"] * rng.normal(size=(n_seeds, 1)) if n_seeds > 1 else np.zeros((1, 1))
            arms.append(own + 0.5 * design["seed_sd"] * rng.normal(size=(n_seeds, k)))
        values = shifts + arms[0].mean(0) - arms[1].mean(0)
        means = [{str(i): float(mean) for i, mean in enumerate(arm.mean(1))} for arm in arms]
        found = with_seeds(mean_interval(values), *means)
        hits += found.low is not None and found.high is not None and found.low <= 0 <= found.high
    return {**design, "coverage": hits / n_studies}


def _intervals(arms: list[AnswerCounts], n_bootstrap: int, seed: int) -> dict[str, tuple[float, float]]:
    parts = [rate_limits(cells.only_eligible(), "macro") for cells in arms]
    factors = (1.0, -1.0)[: len(parts)]
    _, low, high = sum_limits(parts, factors)
    # One seed for both arms: they draw the same questions.
    replicates = sum(
        factor * bootstrap_rates(cells, "macro", n_bootstrap, seed=seed)
        for factor, cells in zip(factors, arms, strict=True)
    )
    bounds = np.nanquantile(replicates, [0.025, 0.975])
    naive = []
    for cells in arms:
        interval = binomtest(int(cells.positive.sum()), int(cells.eligible.sum())).proportion_ci(method="wilson")
        naive.append((cells.positive.sum() / cells.eligible.sum(), interval.low, interval.high))
    return {
        "limits": (low, high),
        "bootstrap": (float(bounds[0]), float(bounds[1])),
        "naive": square_and_add(naive, factors),
    }


def say(result: dict[str, Any]) -> str:
    if "intraclass" in result:
        return "\n".join(
            f"{name}: intraclass correlation, median {row['all']['median']:.2f} over {row['all']['n_runs']} runs, "
            f"{row['low_rate']['median']:.2f} over the {row['low_rate']['n_runs']} with a rate below 12 % ({row['n_left_out']} left out)"
            for name, row in result["intraclass"].items()
        )
    head = (
        "questions answers seeds  rate  against  shared   icc  effects   limits  (truth above)  bootstrap  naive  width"
    )
    lines = [f"coverage of 95 % intervals over {result['n_studies']} simulated studies each", head]
    for row in result["designs"]:
        against = "-" if row["against"] is None else f"{row['against']:.2f}"
        shared = "-" if row["against"] is None else f"{row['shared']:.1f}"
        lines.append(
            f"{row['n_questions']:>9} {row['n_answers']:>7} {row['n_seeds']:>5}  {row['rate']:.2f}  {against:>7}  "
            f"{shared:>6}  {row['icc']:.2f}  {row['effects']:<7}  {row['limits']:>7.3f}  "
            f"{row['limits_truth_above']:>13.3f}  {row['bootstrap']:>9.3f}  {row['naive']:>5.3f}  {row['limits_median_width']:.3f}"
        )
    lines += [
        "",
        "figure            questions answers  centre  between   truth  jackknife  (truth above)  none  bootstrap",
    ]
    for row in result["score_designs"]:
        lines.append(
            f"{row['figure']:<18}{row['n_questions']:>8} {row['n_answers']:>7}  {row['centre']:>6.1f}  {row['between']:>7.1f}  "
            f"{row['truth']:>6.2f}  {row['jackknife']:>9.3f}  {row['jackknife_truth_above']:>13.3f}  "
            f"{row['n_without_interval']:>4}  {row['bootstrap']:>9.3f}"
        )
    lines += ["", "questions  seeds  control's seeds  seeds' spread  coverage"]
    for row in result["seed_designs"]:
        lines.append(
            f"{row['n_questions']:>9}  {row['n_seeds']:>5}  {row['n_control_seeds']:>15}  {row['seed_sd']:>13.1f}  {row['coverage']:.3f}"
        )
    return "\n".join(lines)
