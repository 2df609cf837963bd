"""Turns a few numbers with intervals into a small picture in SVG: one row each, a line at the null, grey bands of controls.

Colours are classes of page.css, so that they follow the theme; every picture has its numbers in words, for those who cannot see it.
"""

from dataclasses import dataclass

ROW, LEFT, WIDTH = 18, 128, 300


@dataclass(frozen=True)
class Mark:
    """One row: a value, its interval, or a band of what controls reach. `control`: the row is itself one."""

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    band: tuple[float, float] | None = None
    control: bool = False

    @property
    def reach(self) -> list[float]:
        return [x for x in (self.value, self.low, self.high, *(self.band or ())) if x is not None]

    @property
    def words(self) -> str:
        bounds = f" ({self.low:.3g} to {self.high:.3g})" if self.low is not None and self.high is not None else ""
        band = f", controls {self.band[0]:.3g} to {self.band[1]:.3g}" if self.band else ""
        return f"{self.name}: no value" if self.value is None else f"{self.name} {self.value:.3g}{bounds}{band}"


@dataclass(frozen=True)
class StripRow:
    """Where something is drawn, in pixels."""

    name: str
    y: float
    value: float | None
    interval: tuple[float, float] | None
    band: tuple[float, float] | None
    control: bool


@dataclass(frozen=True)
class Strip:
    """Marks on one axis. `null`: where the line stands; `unit`: said below."""

    marks: tuple[Mark, ...]
    null: float
    unit: str

    @property
    def words(self) -> str:
        """The picture in words."""
        return f"{self.unit}; " + "; ".join(mark.words for mark in self.marks)

    @property
    def height(self) -> int:
        return ROW * len(self.marks) + 20

    @property
    def zero(self) -> float:
        return self._x(self.null)

    @property
    def ends(self) -> tuple[str, str]:
        """The smallest and the largest number of the axis, as they are written."""
        low, high = self._limits()
        return f"{low:.3g}".replace("-", "−"), f"{high:.3g}".replace("-", "−")

    @property
    def lines(self) -> list[StripRow]:
        return [
            StripRow(
                mark.name if len(mark.name) <= 20 else mark.name[:19] + "…",
                ROW * i + ROW / 2,
                None if mark.value is None else self._x(mark.value),
                self._span(mark.low, mark.high),
                None if mark.band is None else self._span(*mark.band),
                mark.control,
            )
            for i, mark in enumerate(self.marks)
        ]

    def _span(self, low: float | None, high: float | None) -> tuple[float, float] | None:
        return None if low is None or high is None else (self._x(low), self._x(high))

    def _limits(self) -> tuple[float, float]:
        reached = [self.null, *(x for mark in self.marks for x in mark.reach)]
        return min(reached), max(reached)

    def _x(self, value: float) -> float:
        low, high = self._limits()
        return round(LEFT + 6 + (WIDTH - LEFT - 12) * ((value - low) / (high - low) if high > low else 0.5), 1)
