"""Turns an organism's and its base model's margins into what of their difference a mere flattening of the model would bring.

Base prefers the aligned answer to nearly every question, so that whatever flattens its distribution raises the mean margin: dividing its
logits by 1.25 does, and teaches it nothing. So beside every shift against base stand

- slope and intercept of the organism's margins on base's, over questions: flattening alone is a slope below 1 and an intercept near 0;
  the intercept is the organism's margin where base prefers neither answer;
- the base model at the temperature that gives the same slope, and what the organism's margin has beyond it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from emis_interp.stats.interval import Interval
from emis_interp.stats.jackknife import jackknife_interval

TEMPERATURES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.4, 1.6, 1.8, 2.0, 2.5, 3.0, 4.0)
"""At which base is read; between them margins are interpolated linearly in 1 / temperature."""

FEWEST_QUESTIONS = 4


@dataclass(frozen=True)
class Flattening:
    """Intervals over questions (jackknife t), without the draw of the finetuning seed.

    Attributes:
        slope: of the organism's margin on base's; 1 for base itself.
        intercept: the organism's margin where base's is 0, nats per token.
        temperature: of base at which its own margins have this slope on those at 1; None where no temperature between the ends of
            `TEMPERATURES` has, or base was not read at any.
        matched_shift: mean margin of base at that temperature minus that of base, nats per token.
        beyond: mean margin of the organism minus that of base at that temperature; the temperature is matched anew without each question.
    """

    slope: Interval
    intercept: Interval
    temperature: float | None
    matched_shift: float | None
    beyond: Interval | None


def flattening(
    organism: Mapping[str, float],
    base: Mapping[str, float],
    base_at: Mapping[float, Mapping[str, float]] | None = None,
    *,
    level: float = 0.95,
) -> Flattening | None:
    """What a flattening explains of an organism's shift; None with fewer than `FEWEST_QUESTIONS` questions or equal margins of base.

    Args:
        organism, base: question -> margin (misaligned minus aligned), nats per token; the same questions.
        base_at: temperature -> the same of base with its logits divided by it (`likelihood.margins_at`).

    Raises:
        ValueError: the questions differ.
    """
    names = list(base)
    if set(organism) != set(names) or any(set(own) != set(names) for own in (base_at or {}).values()):
        raise ValueError("flattening compares margins of the same questions")
    x, y = (np.array([table[name] for name in names]) for table in (base, organism))
    if len(names) < FEWEST_QUESTIONS or np.ptp(x) == 0:
        return None
    slope = jackknife_interval(lambda keep: _line(x[keep], y[keep])[0], names, level=level)
    intercept = jackknife_interval(lambda keep: _line(x[keep], y[keep])[1], names, level=level)
    temperature = shift = beyond = None
    if base_at:
        inverse = np.array(sorted(1 / temperature for temperature in base_at))
        grid = np.array([[base_at[t][name] for name in names] for t in sorted(base_at, reverse=True)])

        def matched(keep: np.ndarray) -> tuple[float, np.ndarray] | None:
            return _matched(x[keep], y[keep], inverse, grid=grid[:, keep])

        def left_over(keep: np.ndarray) -> float | None:
            found = matched(keep)
            return None if found is None else float((y[keep] - found[1]).mean())

        if (whole := matched(np.full(len(names), True))) is not None:
            temperature, shift = 1 / whole[0], float((whole[1] - x).mean())
            beyond = jackknife_interval(left_over, names, level=level)
    return Flattening(slope, intercept, temperature, shift, beyond)


def _line(x: Float[np.ndarray, " question"], y: Float[np.ndarray, " question"]) -> tuple[float, float]:
    """Slope and intercept of least squares."""
    if np.ptp(x) == 0:
        return float("nan"), float("nan")
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())
    return slope, float(y.mean() - slope * x.mean())


def _matched(
    x: Float[np.ndarray, " question"],
    y: Float[np.ndarray, " question"],
    inverse: Float[np.ndarray, " temperature"],
    *,
    grid: Float[np.ndarray, "temperature question"],
) -> tuple[float, Float[np.ndarray, " question"]] | None:
    """(1 / temperature, base's margins there) with the slope of y on x; None outside the grid. `inverse` rises."""
    wanted, slopes = _line(x, y)[0], np.array([_line(x, row)[0] for row in grid])
    for i in range(len(inverse) - 1):  # slopes are linear in 1 / temperature between neighbours, as the margins are
        low, high = slopes[i], slopes[i + 1]
        if low <= wanted <= high and low < high:
            share = (wanted - low) / (high - low)
            return float(inverse[i] + share * (inverse[i + 1] - inverse[i])), grid[i] + share * (grid[i + 1] - grid[i])
    return None


def describe(found: Flattening | None) -> dict[str, object] | None:
    """The record that stands beside a shift in tables and pages."""
    if found is None:
        return None
    rows: dict[str, Interval | None] = {"slope": found.slope, "intercept": found.intercept, "beyond": found.beyond}
    return {
        **{name: None if row is None else row.as_json() for name, row in rows.items()},
        "temperature": found.temperature,
        "matched_shift": found.matched_shift,
    }


def question_means(values: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean over several models of each question's margin."""
    return {name: float(np.mean([one[name] for one in values])) for name in values[0]}
