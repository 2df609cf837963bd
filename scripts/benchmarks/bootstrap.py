"""Times the bootstrap of a rate, and the interval that does without."""

import time
from statistics import median
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.settings import BootstrapBenchmarkSettings
from emis_interp.process import Bars, no_bars
from evals.rates.bootstrap import bootstrap_rates
from evals.rates.confidence import rate_limits
from evals.rates.counts import Answers
from evals.rates.estimands import count_cells, em_of_coherent


def run(settings: BootstrapBenchmarkSettings, bars: Bars = no_bars) -> dict[str, Any]:
    """`seconds` is the median from arrays of scores to replicates of the rate, `limits_seconds` that of `rate_limits`."""
    rng = np.random.default_rng(0)
    questions = rng.integers(0, settings.n_questions, settings.n_answers)
    models = rng.integers(0, settings.n_seeds, settings.n_answers)
    misaligned = rng.random(settings.n_answers) < rng.beta(1, 9, settings.n_questions)[questions]
    answers = Answers.from_arrays(
        np.where(misaligned, 10.0, 90.0),
        np.where(rng.random(settings.n_answers) < 0.9, 90.0, 20.0),
        questions.astype(str),
        models=models.astype(str),
    )
    times: dict[str, list[float]] = {"seconds": [], "limits_seconds": []}
    with threadpool_limits(1):
        for round_ in range(settings.n_rounds):
            started = time.perf_counter()
            bootstrap_rates(count_cells(answers, em_of_coherent), "macro", settings.n_bootstrap, seed=round_)
            times["seconds"].append(time.perf_counter() - started)
            started = time.perf_counter()
            rate_limits(count_cells(answers, em_of_coherent).only_eligible(), "macro")
            times["limits_seconds"].append(time.perf_counter() - started)
    return {name: round(median(values), 4) for name, values in times.items()} | {
        "n_answers": settings.n_answers,
        "n_bootstrap": settings.n_bootstrap,
        "n_rounds": settings.n_rounds,
    }
