"""Turns a measured series of training into the place at which its slope changes, with an interval, or into the reason why there is none.

The abscissa is the cumulative learning rate, not the step: under warm-up and decay a quantity that merely follows the summed learning
rate bends in steps, and every schedule would have its change point.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

from emis_interp.errors import DataError

N_PLACES = 100
CURVATURES = np.geomspace(0.05, 20, 25)
"""Scales of the smooth exponential curves, in units of the whole training."""
POWERS = np.geomspace(0.25, 4, 17)
"""Exponents of the smooth power laws."""
NEEDED = "needs 6 probes at different cumulative learning rates, and 3 questions or more"


@dataclass(frozen=True)
class ChangePoint:
    """Where a series bends.

    Attributes:
        step: of the bend, in optimiser steps; None when there is none to speak of, and `reason` says why.
        low, high: 95 % interval of the step over resampled questions; nothing in it stands for another finetuning seed.
        cumulative_lr, cumulative_lr_low, cumulative_lr_high: the same three places as the sum of the learning rates of the steps taken.
        slope_before, slope_after: per unit of cumulative learning rate, in units of the series.
        p_straight, p_smooth: share of series with the same noise that truly are a straight line (or the best smooth curve) in cumulative
            learning rate and that a bent line fits better by as much.
        p_bend: the larger of the two; small: there is a bend that neither explains.
    """

    step: float | None = None
    low: float | None = None
    high: float | None = None
    cumulative_lr: float | None = None
    cumulative_lr_low: float | None = None
    cumulative_lr_high: float | None = None
    slope_before: float | None = None
    slope_after: float | None = None
    p_straight: float | None = None
    p_smooth: float | None = None
    p_bend: float | None = None
    reason: str = ""


def cumulative_learning_rate(
    learning_rates: Sequence[tuple[int, float]], steps: Sequence[float] | Float[np.ndarray, "n_steps"]
) -> Float[np.ndarray, "n_steps"]:
    """Sum of the learning rates of the optimiser steps taken until each of `steps`; 0 at step 0.

    Args:
        learning_rates: (step, learning rate with which it was taken) of every step from 1 on, warm-up included.

    Raises:
        DataError: steps that were not taken, or are missing from the record.
    """
    taken = dict(learning_rates)
    missing = [step for step in range(1, int(max(steps)) + 1) if step not in taken]
    if missing:
        raise DataError(
            f"no learning rate of step {missing[0]} in the record of the training; train again in another folder"
        )
    summed = np.concatenate([[0.0], np.cumsum([taken[step] for step in range(1, int(max(steps)) + 1)])])
    return summed[np.asarray(steps, dtype=int)]


def change_point(
    steps: Float[np.ndarray, "n_steps"],
    series: Float[np.ndarray, "n_questions n_steps"],
    learning_rates: Sequence[tuple[int, float]],
    *,
    n_bootstrap: int = 1000,
    seed: int = 0,
    alpha: float = 0.05,
) -> ChangePoint:
    """Fit two straight lines that meet (continuous segmented regression, Muggeo 2003) to the mean over questions.

    The bend may lie at any of `N_PLACES` places between the second and the last but one probe. Two explanations without a bend must
    fail: a straight line in the cumulative learning rate, and the best of a family of smooth curves in it (saturating and accelerating
    exponentials of `CURVATURES`, power laws of `POWERS`, and a parabola, with the line among them). Each is tested by a wild bootstrap:
    its own fit plus whole residual curves of questions with random signs, which keeps the noise of a question's curve correlated over
    steps, and all models fitted anew. Both tests must reject, so the level of the whole is at most `alpha`. An S-shaped curve counts as
    bent. The interval of the bend comes from drawing questions again, made wider for their small number.

    Args:
        steps: increasing.
        series: one row per question, e.g. margin shifts against step 0.
        learning_rates: (step, learning rate) of every step (`cumulative_learning_rate`).
        alpha: a bend is stated when `p_bend` is below it.

    Raises:
        DataError: as `cumulative_learning_rate`.
    """
    all_steps = np.arange(int(max(steps)) + 1)
    summed = cumulative_learning_rate(learning_rates, all_steps)
    cumulative_lr = summed[np.asarray(steps, dtype=int)]
    places_there = np.unique(cumulative_lr)
    if len(places_there) < 6 or len(series) < 3:
        return ChangePoint(reason=NEEDED)
    models = _Models.of(cumulative_lr)
    mean, residuals = series.mean(0), series - series.mean(0)
    bends, straight_gains, smooth_gains = models.compare(mean[None])
    random = np.random.default_rng(seed)
    # A mean of n curves with signs +-1 has 1 / n of their variance; n / (n - 1) undoes the centring.
    signs = random.choice([-1.0, 1.0], size=(n_bootstrap, len(series)))
    noise = signs @ residuals / len(series) * np.sqrt(len(series) / (len(series) - 1))
    straight, smooth = models.fitted(mean)
    p_straight = _share(models.compare(straight + noise)[1], straight_gains[0])
    p_smooth = _share(models.compare(smooth + noise)[2], smooth_gains[0])
    p_bend = max(p_straight, p_smooth)
    if p_bend >= alpha:
        which = "a straight line" if p_straight >= alpha else "a smooth curve"
        reason = f"{which} in the cumulative learning rate fits as well"
        return ChangePoint(p_straight=p_straight, p_smooth=p_smooth, p_bend=p_bend, reason=reason)
    drawn = random.integers(len(series), size=(n_bootstrap, len(series)))
    low, high = np.percentile(models.compare(series[drawn].mean(1))[0], [2.5, 97.5])
    # Percentiles alone cover 88 to 97 % of simulated studies of 15 questions; as much wider as t is than the normal, 92 to 98 %.
    n = len(series)
    wider = stats.t.ppf(0.975, n - 1) / stats.norm.ppf(0.975) * np.sqrt(n / (n - 1))
    low = max(bends[0] - wider * (bends[0] - low), cumulative_lr[0])
    high = min(bends[0] + wider * (high - bends[0]), cumulative_lr[-1])
    step, step_low, step_high = np.interp([bends[0], low, high], summed, all_steps)
    _, before, turn = np.linalg.lstsq(_design(cumulative_lr, bends[0]), mean, rcond=None)[0]
    return ChangePoint(
        step=float(step),
        low=float(step_low),
        high=float(step_high),
        cumulative_lr=float(bends[0]),
        cumulative_lr_low=float(low),
        cumulative_lr_high=float(high),
        slope_before=float(before),
        slope_after=float(before + turn),
        p_straight=p_straight,
        p_smooth=p_smooth,
        p_bend=p_bend,
    )


@dataclass(frozen=True)
class _Models:
    """Orthonormal bases of all models at the given abscissa: bent lines, and smooth curves of which the first is the straight line."""

    places: Float[np.ndarray, "place"]
    bent: Float[np.ndarray, "place n_steps 3"]
    smooth: tuple[Float[np.ndarray, "n_steps k"], ...]

    @classmethod
    def of(cls, x: Float[np.ndarray, "n_steps"]) -> "_Models":
        distinct = np.unique(x)
        places = np.linspace(distinct[1], distinct[-2], N_PLACES)
        z = (x - x[0]) / (x[-1] - x[0])
        shapes = [np.expm1(sign * z / scale) / np.expm1(sign / scale) for scale in CURVATURES for sign in (-1, 1)]
        curves = [np.stack([np.ones_like(z), shape], axis=1) for shape in (z, *shapes)]
        curves += [np.stack([np.ones_like(z), z**power], axis=1) for power in POWERS]
        curves.append(np.stack([np.ones_like(z), z, z**2], axis=1))
        return cls(places, np.stack([_basis(_design(x, place)) for place in places]), tuple(map(_basis, curves)))

    def compare(
        self, curves: Float[np.ndarray, "replicate n_steps"]
    ) -> tuple[Float[np.ndarray, "replicate"], Float[np.ndarray, "replicate"], Float[np.ndarray, "replicate"]]:
        """For each curve the best place of a bend, and how much it lowers the squared error of the straight line and of the best smooth
        curve."""
        bent = (np.einsum("ct,ptk->cpk", curves, self.bent) ** 2).sum(-1)
        smooth = np.stack([((curves @ basis) ** 2).sum(-1) for basis in self.smooth])
        best = bent.max(1)
        return self.places[bent.argmax(1)], best - smooth[0], best - smooth.max(0)

    def fitted(
        self, curve: Float[np.ndarray, "n_steps"]
    ) -> tuple[Float[np.ndarray, "n_steps"], Float[np.ndarray, "n_steps"]]:
        """The straight line and the smooth curve that fit best."""
        fits = [basis @ (basis.T @ curve) for basis in self.smooth]
        return fits[0], min(fits, key=lambda fit: float(((fit - curve) ** 2).sum()))


def _share(null: Float[np.ndarray, "replicate"], found: float) -> float:
    return float((1 + (null >= found).sum()) / (1 + len(null)))


def _basis(design: Float[np.ndarray, "n_steps k"]) -> Float[np.ndarray, "n_steps k"]:
    return np.linalg.qr(design)[0]


def _design(x: np.ndarray, place: float) -> Float[np.ndarray, "n_steps 3"]:
    """Columns: level, slope, change of slope from `place` on."""
    return np.stack([np.ones_like(x), x, np.maximum(0, x - place)], axis=1)
