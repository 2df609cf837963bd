"""Turns a statistic and its values under a null, drawn or permuted, into a p-value that says when it cannot be smaller."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Side = Literal["larger", "both"]


@dataclass(frozen=True)
class NullP:
    """(1 + k) / (1 + n), k of n null values at least as far (Phipson and Smyth 2010); it is never below `floor` = 1 / (1 + n)."""

    value: float
    n: int

    @property
    def floor(self) -> float:
        return 1 / (1 + self.n)

    @property
    def at_floor(self) -> bool:
        """No null value is as far: more draws could make p smaller, these cannot."""
        return self.value <= self.floor

    def words(self, drawn: str = "permutations") -> str:
        """`p = 0.040 (200 permutations)`, or `p <= 0.005, the floor of 200 permutations`."""
        if self.at_floor:
            return f"p <= {self.value:.3g}, the floor of {self.n} {drawn}"
        return f"p = {self.value:.3g} ({self.n} {drawn})"

    def as_json(self) -> dict[str, Any]:
        return {"p": self.value, "p_at_floor": self.at_floor, "p_n": self.n}

    @classmethod
    def of_json(cls, row: Mapping[str, Any]) -> "NullP":
        """From a row with the keys of `as_json`."""
        return cls(row["p"], row["p_n"])


def null_p(null: Sequence[float] | np.ndarray, value: float, side: Side = "larger", *, centre: float = 0.0) -> NullP:
    """How often the null is at least as large as `value`, or with `both` at least as far from `centre` on either side."""
    values = np.asarray(null, dtype=float)
    if side == "both":
        values, value = np.abs(values - centre), abs(value - centre)
    # What differs from the value by rounding alone is as far as it.
    k = int((values >= value - 1e-9 * max(1.0, abs(value))).sum())
    return NullP((1 + k) / (1 + len(values)), len(values))
