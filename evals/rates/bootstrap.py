"""Turns counts of each model and question into bootstrap replicates of a rate: models x questions x answers drawn again.

An answer is positive, eligible or neither, so that a cell's resample is two binomial draws however many answers it holds.
"""

import numpy as np
from jaxtyping import Float

from evals.rates.counts import AnswerCounts, Weighting, rates_of_models

CHUNK_CELLS = 500_000


def bootstrap_rates(
    cells: AnswerCounts, weighting: Weighting = "pooled", n_bootstrap: int = 10_000, *, seed: int = 0
) -> Float[np.ndarray, " replicate"]:
    """Replicates of the mean over models of each model's rate.

    Models and questions are crossed: both are drawn with replacement on their own (the pigeonhole bootstrap; Owen 2007, Annals of
    Applied Statistics 1), then the answers of every drawn cell. A factor with one level is kept as it is. NaN where a replicate has
    no eligible answer.
    """
    rng = np.random.default_rng(seed)
    n_models, n_questions = cells.asked.shape
    asked = np.maximum(cells.asked, 1)
    share_eligible = cells.eligible / asked
    share_positive = np.divide(
        cells.positive, cells.eligible, out=np.zeros(cells.asked.shape), where=cells.eligible > 0
    )
    all_eligible = bool((cells.eligible == cells.asked).all())
    step = max(1, CHUNK_CELLS // (n_models * n_questions))
    replicates = np.empty(n_bootstrap)
    for start in range(0, n_bootstrap, step):
        n = min(step, n_bootstrap - start)
        rows = rng.integers(0, n_models, (n, n_models))[:, :, None]
        columns = rng.integers(0, n_questions, (n, n_questions))[:, None, :]
        drawn = cells.asked[rows, columns]
        eligible = drawn if all_eligible else rng.binomial(drawn, share_eligible[rows, columns])
        positive = rng.binomial(eligible, share_positive[rows, columns])
        rates = rates_of_models(positive, eligible, weighting)
        there = ~np.isnan(rates)
        with np.errstate(invalid="ignore"):
            replicates[start : start + n] = np.where(there, rates, 0.0).sum(axis=1) / there.sum(axis=1)
    return replicates
