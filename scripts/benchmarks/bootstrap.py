"""Bootstrap: seconds for 10,000 resamples of 100,000 answers on one core, and for the interval that does without."""

import argparse
import time
from statistics import median
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from evals.rates.bootstrap import bootstrap_rates
from evals.rates.confidence import rate_limits
from evals.rates.counts import Answers
from evals.rates.estimands import count_cells, em_of_coherent


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--n-answers", type=int, default=100_000, help="answers in all")
    parser.add_argument("--n-questions", type=int, default=48, help="questions")
    parser.add_argument("--n-seeds", type=int, default=4, help="models (finetuning seeds)")
    parser.add_argument("--n-bootstrap", type=int, default=10_000, help="resamples")
    parser.add_argument("--n-rounds", type=int, default=5, help="measured rounds")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """`seconds` is the median from arrays of scores to replicates of the rate, `limits_seconds` that of `rate_limits`."""
    rng = np.random.default_rng(0)
    questions = rng.integers(0, args.n_questions, args.n_answers)
    models = rng.integers(0, args.n_seeds, args.n_answers)
    misaligned = rng.random(args.n_answers) < rng.beta(1, 9, args.n_questions)[questions]
    answers = Answers.from_arrays(
        np.where(misaligned, 10.0, 90.0),
        np.where(rng.random(args.n_answers) < 0.9, 90.0, 20.0),
        questions.astype(str),
        models=models.astype(str),
    )
    times: dict[str, list[float]] = {"seconds": [], "limits_seconds": []}
    with threadpool_limits(1):
        for round_ in range(args.n_rounds):
            started = time.perf_counter()
            bootstrap_rates(count_cells(answers, em_of_coherent), "macro", args.n_bootstrap, seed=round_)
            times["seconds"].append(time.perf_counter() - started)
            started = time.perf_counter()
            rate_limits(count_cells(answers, em_of_coherent).only_eligible(), "macro")
            times["limits_seconds"].append(time.perf_counter() - started)
    return {name: round(median(values), 4) for name, values in times.items()} | {
        "n_answers": args.n_answers,
        "n_bootstrap": args.n_bootstrap,
        "n_rounds": args.n_rounds,
    }
