"""Finds the strongest intervention that a model survives: brackets and bisects a steering coefficient against a floor of coherence."""

from collections.abc import Callable
from dataclasses import dataclass

from emis_interp.errors import ConfigError


@dataclass(frozen=True)
class Point:
    """One coefficient (multiples of the mean residual norm): its effect (larger is more misaligned) and the share of coherence kept."""

    coefficient: float
    effect: float
    coherence: float


@dataclass(frozen=True)
class Frontier:
    """All points measured, by rising |coefficient|, and the one with the largest effect among those above the floor (None if none is)."""

    points: tuple[Point, ...]
    best: Point | None
    bracketed: bool


def find_frontier(
    measure: Callable[[float], Point],
    floor: float = 0.9,
    first: float = 0.1,
    *,
    largest: float = 1.6,
    n_bisections: int = 4,
) -> Frontier:
    """Double the coefficient until coherence falls below `floor` or `largest` is reached, then bisect between the last two.

    Coherence is assumed to fall with |coefficient|; the effect is not assumed to rise, so the best point may lie inside. A negative
    `first` searches the aligned side, where the best point is still the one with the largest effect. `bracketed` is False when
    `largest` was reached above the floor.

    Raises:
        ConfigError: `first` is 0 or beyond `largest`, or the floor lies outside 0 to 1.
    """
    if first == 0 or abs(first) > largest or not 0 <= floor <= 1:
        raise ConfigError(f"frontier: 0 < |first| <= largest and 0 <= floor <= 1, found {first}, {largest}, {floor}")
    points = [measure(first)]
    while points[-1].coherence >= floor and abs(points[-1].coefficient) < largest:
        step = min(2 * abs(points[-1].coefficient), largest)
        points.append(measure(step if first > 0 else -step))
    bracketed = points[-1].coherence < floor
    if bracketed:
        broken = points[-1].coefficient
        whole = points[-2].coefficient if len(points) > 1 else 0.0
        for _ in range(n_bisections):
            points.append(measure((whole + broken) / 2))
            if points[-1].coherence >= floor:
                whole = points[-1].coefficient
            else:
                broken = points[-1].coefficient
    kept = [point for point in points if point.coherence >= floor]
    ordered = tuple(sorted(points, key=lambda point: abs(point.coefficient)))
    return Frontier(ordered, max(kept, key=lambda point: point.effect) if kept else None, bracketed)
