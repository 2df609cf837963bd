"""Turns estimates into the cells of the page's tables: a number with its interval, or an en dash with the reason why there is none."""

from collections.abc import Callable
from dataclasses import dataclass

from emis_interp.report.style import MISSING, interval
from emis_interp.results import Estimate


@dataclass(frozen=True)
class Entry:
    """One cell of a table: main text, smaller lines below, tooltip. `missing`: an en dash that stands for a number."""

    text: str
    details: tuple[str, ...] = ()
    title: str = ""
    missing: bool = False


def missing(reason: str) -> Entry:
    return Entry(MISSING, title=reason, missing=True)


def estimate_entry(
    estimate: Estimate | None, show: Callable[[float | None], str], reason: str, *, title: str = ""
) -> Entry:
    """A number with its interval below, or an en dash with the reason."""
    if estimate is None or estimate.value is None:
        return missing(reason)
    return Entry(show(estimate.value), (interval(estimate, show), *seeds_of(estimate)), title)


def seeds_of(estimate: Estimate) -> tuple[str, ...]:
    return (f"{len(estimate.by_model)} seeds",) if estimate.by_model else ()
