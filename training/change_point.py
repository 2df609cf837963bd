"""Turns a measured series of training into the step at which its slope changes, with an interval, or into the reason why there is none."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

N_PLACES = 200


@dataclass(frozen=True)
class ChangePoint:
    """Where a series bends.

    Attributes:
        step: of the bend, in optimiser steps; None when there is none to speak of, and `reason` says why.
        low, high: 2.5th and 97.5th percentile over resampled questions.
        slope_before, slope_after: per step, in units of the series.
        p_bend: share of straight series with the same noise that a bent line fits better by as much (small: there is a bend).
    """

    step: float | None
    low: float | None
    high: float | None
    slope_before: float | None
    slope_after: float | None
    p_bend: float | None
    reason: str = ""


def change_point(
    steps: Float[np.ndarray, "n_steps"],
    series: Float[np.ndarray, "n_questions n_steps"],
    n_bootstrap: int = 1000,
    seed: int = 0,
    alpha: float = 0.05,
) -> ChangePoint:
    """Fit two straight lines that meet (continuous segmented regression, Muggeo 2003) to the mean over questions.

    The bend may lie at any of `N_PLACES` places between the second and the last but one step. Whether there is one at all is tested
    against the straight fit plus whole residual curves of questions with random signs (a wild bootstrap, which keeps the noise of a
    question's curve correlated over steps); the interval of the bend comes from drawing questions again.

    Args:
        steps: increasing, at least 5.
        series: one row per question, e.g. margin shifts against step 0.
        alpha: a bend is stated when `p_bend` is below it.
    """
    if len(steps) < 5 or len(series) < 3:
        return ChangePoint(None, None, None, None, None, None, "needs 5 steps and 3 questions or more")
    mean, residuals = series.mean(0), series - series.mean(0)
    bends, gains = _best_bends(steps, mean[None])
    random = np.random.default_rng(seed)
    # A mean of n curves with signs +-1 has 1 / n of their variance; n / (n - 1) undoes the centring.
    signs = random.choice([-1.0, 1.0], size=(n_bootstrap, len(series)))
    noise = signs @ residuals / len(series) * np.sqrt(len(series) / (len(series) - 1))
    null = np.polyval(np.polyfit(steps, mean, 1), steps) + noise
    p_bend = float((1 + (_best_bends(steps, null)[1] >= gains[0]).sum()) / (1 + n_bootstrap))
    if p_bend >= alpha:
        return ChangePoint(None, None, None, None, None, p_bend, "a straight line fits as well")
    drawn = random.integers(len(series), size=(n_bootstrap, len(series)))
    low, high = np.percentile(_best_bends(steps, series[drawn].mean(1))[0], [2.5, 97.5])
    _, before, turn = np.linalg.lstsq(_design(steps, bends[0]), mean, rcond=None)[0]
    return ChangePoint(float(bends[0]), float(low), float(high), float(before), float(before + turn), p_bend)


def _best_bends(
    steps: Float[np.ndarray, "n_steps"], curves: Float[np.ndarray, "replicate n_steps"]
) -> tuple[Float[np.ndarray, "replicate"], Float[np.ndarray, "replicate"]]:
    """For each curve the best place of a bend, and how much it lowers the squared error of a straight line."""
    places = np.linspace(steps[1], steps[-2], N_PLACES)
    bases = np.stack([np.linalg.qr(_design(steps, place))[0] for place in places])
    explained = (np.einsum("ct,ptk->cpk", curves, bases) ** 2).sum(-1)
    straight = np.linalg.qr(_design(steps, steps[-1])[:, :2])[0]
    best = explained.argmax(1)
    gains = explained[np.arange(len(curves)), best] - ((curves @ straight) ** 2).sum(-1)
    return places[best], gains


def _design(steps: np.ndarray, place: float) -> Float[np.ndarray, "n_steps 3"]:
    """Columns: level, slope, change of slope from `place` on."""
    return np.stack([np.ones_like(steps), steps, np.maximum(0, steps - place)], axis=1)
