"""Turns every latent's mean activation by question, in two models that read the same texts, into which latents changed, beside two nulls.

A change is tested by a paired t test over questions (the cluster: answers to one question share their topic), and the family of all
latents by Benjamini and Hochberg's (1995) false discovery rate. Beside the number of latents found stands what the same procedure finds
where nothing changed: when the two models are swapped in random questions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

from emis_interp.errors import DataError

FEWEST_QUESTIONS = 3
"""From which on a t interval over questions says anything."""
RATE = 0.05
AT_ONCE = 25
"""Swaps that are computed together: of 100,000 latents 20 MB a table."""


@dataclass(frozen=True)
class LatentChanges:
    """The change of every latent's mean activation, over questions; what is NaN was not tested.

    Attributes:
        mean: of the questions' differences, in the dictionary's units of activation; positive: larger in the first model.
        low, high: 95 % t interval over questions.
        t: the paired statistic.
        p, q: two-sided p of the t test, and the same corrected for all tested latents (Benjamini-Hochberg).
        tested: latents whose difference varies over questions; a latent that never fires in either model is not one.
    """

    mean: Float[np.ndarray, "n_latents"]
    low: Float[np.ndarray, "n_latents"]
    high: Float[np.ndarray, "n_latents"]
    t: Float[np.ndarray, "n_latents"]
    p: Float[np.ndarray, "n_latents"]
    q: Float[np.ndarray, "n_latents"]
    tested: Bool[np.ndarray, "n_latents"]
    n_questions: int

    def found(self, rate: float = RATE) -> Bool[np.ndarray, "n_latents"]:
        """Latents of which at most a share `rate` is expected to be false."""
        return self.tested & (np.nan_to_num(self.q, nan=1.0) <= rate)


def latent_changes(differences: Float[np.ndarray, "n_questions n_latents"], *, level: float = 0.95) -> LatentChanges:
    """Every latent's change, from one difference per question.

    Raises:
        DataError: fewer than `FEWEST_QUESTIONS` questions.
    """
    n_questions, n_latents = differences.shape
    if n_questions < FEWEST_QUESTIONS:
        raise DataError(
            f"{n_questions} questions: a change of latents is tested over questions and needs {FEWEST_QUESTIONS} or more; give texts "
            "that answer more questions"
        )
    values = differences.astype(float)
    tested = varying(values)
    columns = {name: np.full(n_latents, np.nan) for name in ("low", "high", "t", "p", "q")}
    if tested.any():
        found: Any = stats.ttest_1samp(values[:, tested], 0.0, axis=0)
        limits = found.confidence_interval(level)
        fitted = (limits.low, limits.high, found.statistic, found.pvalue, stats.false_discovery_control(found.pvalue))
        for name, column in zip(columns, fitted, strict=True):
            columns[name][tested] = column
    return LatentChanges(mean=values.mean(0), **columns, tested=tested, n_questions=n_questions)


def varying(differences: Float[np.ndarray, "n_questions n_latents"]) -> Bool[np.ndarray, "n_latents"]:
    """Latents whose differences vary over questions by more than rounding."""
    return np.ptp(differences, axis=0) > 1e-7 * np.abs(differences).max(axis=0)


@dataclass(frozen=True)
class SwapNull:
    """What is found when the two models are swapped in random questions.

    Attributes:
        p: of every latent's |t| among its own swaps, (1 + k) / (1 + n); NaN where it was not tested.
        n_found: latents that pass the false discovery rate, by swap.
        largest: largest |t| of any latent, by swap.
        all_swaps: whether these are all swaps there are (few questions have few), so that more draws cannot help.
    """

    p: Float[np.ndarray, "n_latents"]
    n_found: Float[np.ndarray, "n_permutations"]
    largest: Float[np.ndarray, "n_permutations"]
    all_swaps: bool


def swap_null(
    differences: Float[np.ndarray, "n_questions n_latents"], n: int = 200, *, rate: float = RATE, seed: int = 0
) -> SwapNull:
    """The null of no change: each question's two models are swapped for all latents at once, which keeps how latents go together.

    Swapping all questions changes no |t|, so that Q questions have 2^(Q - 1) - 1 swaps besides the data; where these are at most n, each
    is taken once.
    """
    values = differences.astype(float)
    n_questions, n_latents = values.shape
    tested = varying(values)
    kept = values[:, tested]
    signs, every = _signs(n_questions, n, seed)
    own = np.abs(latent_changes(values).t[tested])
    squares = (kept**2).mean(0)  # a swap leaves it as it is
    reached, n_found, largest = np.zeros(kept.shape[1]), np.zeros(len(signs)), np.zeros(len(signs))
    for start in range(0, len(signs) if tested.any() else 0, AT_ONCE):
        rows = slice(start, start + AT_ONCE)
        means = signs[rows] @ kept / n_questions
        variances = np.maximum(squares - means**2, np.finfo(float).tiny) / (n_questions - 1)
        t = np.abs(means) / np.sqrt(variances)
        reached += (t >= own - 1e-9 * np.maximum(1.0, own)).sum(0)
        drawn = stats.false_discovery_control(2 * stats.t.sf(t, n_questions - 1), axis=1)
        n_found[rows], largest[rows] = (drawn <= rate).sum(1), t.max(1)
    p = np.full(n_latents, np.nan)
    p[tested] = (1 + reached) / (1 + len(signs))
    return SwapNull(p, n_found, largest, every)


def _signs(n_questions: int, n: int, seed: int) -> tuple[Float[np.ndarray, "n_permutations n_questions"], bool]:
    """Signs of the questions in every swap, the first question's always +1, and whether they are all there are."""
    if 2 ** (n_questions - 1) - 1 <= n:
        rows = [(1, *rest) for rest in product((1, -1), repeat=n_questions - 1)][1:]
        return np.array(rows, dtype=float).reshape(-1, n_questions), True
    generator = np.random.default_rng(seed)
    signs = generator.choice([-1.0, 1.0], size=(n, n_questions))
    return signs * signs[:, :1], False


def strongest_latents(
    changes: LatentChanges, norms: Float[np.ndarray, "n_latents"], n: int, *, rate: float = RATE
) -> tuple[list[int], list[int]]:
    """Up to n rising and n falling latents: the largest |change| x decoder norm, that is the largest change of the residual.

    Those that pass the false discovery rate come first; where fewer than n pass, the largest of the others that were tested follow.
    """
    effects = np.where(changes.tested, changes.mean * norms, 0.0)
    passed = changes.found(rate)

    def ranked(sign: int) -> list[int]:
        rows = np.flatnonzero(sign * effects > 0)
        order = sorted(rows, key=lambda j: (not passed[j], -sign * effects[j]))
        return [int(j) for j in order[:n]]

    return ranked(1), ranked(-1)


def question_means(
    values: Float[np.ndarray, "n_texts n_latents"], questions: Sequence[str], names: Sequence[str]
) -> Float[np.ndarray, "n_questions n_latents"]:
    """Mean over the texts of each of `names`, every text with the same weight."""
    of = np.asarray(questions)
    return np.stack([values[of == name].mean(0) for name in names])
