"""Checks the planner against what must be true of any power, and the simulator against its planted rate."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import check_coverage
import cli
from emis_interp.errors import DataError
from evals.rates import score_simulation
from evals.rates.planning import plan_answers, power
from evals.rates.simulation import Design, simulate_study

ROOT = Path(__file__).parents[3]
EASY = Design(8, 50, 0.4, 0.1, against=0.05)


def test_power_is_about_the_error_rate_where_the_arms_are_nearly_equal_and_high_where_they_are_far_apart() -> None:
    assert power(replace(EASY, rate=0.0501), 100) <= 0.1
    assert power(EASY, 100) > 0.9


def test_a_plan_takes_the_smallest_number_that_reaches_the_wanted_power() -> None:
    plan = plan_answers(EASY, n_studies=60)
    tried = dict(plan.tried)
    assert plan.n_answers is not None and tried[plan.n_answers] == plan.power >= 0.8
    assert all(reached < 0.8 for n, reached in tried.items() if n < plan.n_answers)


def test_what_only_more_questions_can_tell_is_said_to_be_out_of_reach() -> None:
    plan = plan_answers(Design(2, 50, 0.06, 0.3, against=0.05), n_studies=30)
    assert plan.n_answers is None and plan.power < 0.8 and plan.tried[-1][0] == 1000


@pytest.mark.parametrize(
    ("design", "words"),
    [
        (replace(EASY, against=None), "two different rates"),
        (replace(EASY, rate=0.05), "two different rates"),
        (replace(EASY, rate=5.0), "write 5 % as 0.05"),
        (replace(EASY, n_questions=1), "2 questions or more"),
    ],
)
def test_impossible_plans_are_refused_in_words(design: Design, words: str) -> None:
    with pytest.raises(DataError, match=words):
        plan_answers(design)


@pytest.mark.parametrize(
    "design",
    [
        Design(400, 50, 0.1, 0.18),
        Design(400, 50, 0.1, 0.18, "logit"),
        Design(400, 10, 0.1, 0.18, n_seeds=40, seed_sd=0.5),
    ],
)
def test_simulated_studies_have_the_planted_rate_and_spread(design: Design) -> None:
    rng = np.random.default_rng(1)
    studies = [simulate_study(design, rng)[0] for _ in range(8)]
    assert np.mean([cells.positive.sum() / cells.eligible.sum() for cells in studies]) == pytest.approx(0.1, abs=0.008)
    if design.n_seeds == 1:
        within = 0.1 * 0.9 * (1 - 0.18) / 50
        spread = np.mean([(cells.positive / cells.eligible).var() for cells in studies]) - within
        assert spread == pytest.approx(0.18 * 0.1 * 0.9, rel=0.2)


def script(*words: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, *words, "--json"], cwd=ROOT, capture_output=True, text=True, timeout=600, check=True
    )
    return json.loads(done.stdout)


def test_the_plan_command_says_what_it_simulated() -> None:
    said = script("scripts/evaluate.py", "plan", "0.4", "0.05", "--n-studies", "40", "--population", "suite")
    assert (said["rate"], said["against"], said["n_questions"], said["population"]) == (0.4, 0.05, 8, "suite")
    assert said["n_answers"] <= 15 and said["power"] >= 0.8


def test_the_coverage_command_counts_hits_of_every_kind_of_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_simulation, "POPULATION", 1_000)
    words = ["--n-studies", "6", "--n-bootstrap", "40"]
    said = check_coverage.VERB.do(cli.parser_of(check_coverage.VERB, None).parse_args(words))
    assert said["n_studies"] == 6
    of = {name: sum(row[name] for row in said["designs"]) / len(said["designs"]) for name in ("limits", "naive")}
    assert of["limits"] > 0.88 and of["naive"] < 0.8


def test_the_bootstrap_benchmark_reports_seconds() -> None:
    said = script("scripts/benchmark.py", "bootstrap", "--n-answers", "2000", "--n-bootstrap", "200", "--n-rounds", "1")
    assert said["n_answers"] == 2000 and said["seconds"] > 0 and said["limits_seconds"] > 0
