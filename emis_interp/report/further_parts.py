"""What a part of the report on the files in probes/ is made of: headline figures with what stands beside them, and longer tables."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from emis_interp.probe_results import Beside, ExactRate, NullRange
from emis_interp.report.entries import Entry, estimate_entry, missing
from emis_interp.report.style import KIND_NAMES, interval, number, percent, signed
from emis_interp.results import Estimate


@dataclass(frozen=True)
class FurtherRow:
    """One figure of a file; `beside`: what could explain it away: controls, nulls, baselines."""

    what: str
    figure: Entry
    beside: tuple[str, ...]


@dataclass(frozen=True)
class FurtherTable:
    """What a file has besides its headline figures; the page shows it folded."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[Entry, ...]]
    caption: str


@dataclass(frozen=True)
class Shown:
    """What the page shows of one record; `page`: name of a page of the same command in the file's folder, None where it makes none."""

    rows: list[FurtherRow]
    tables: tuple[FurtherTable, ...] = ()
    page: str | None = None


def hundredths(value: float | None) -> str:
    return percent(value, 2)


def counted(value: float | None) -> str:
    return number(value, 0)


def shift_entry(found: Estimate | None, reason: str = "not measured") -> Entry:
    return estimate_entry(found, signed, reason)


def value_words(found: Estimate, show: Callable[[float | None], str] = signed) -> str:
    """`+0.101 [+0.052, +0.150]`"""
    return f"{show(found.value)} {interval(found, show)}"


def tokens_entry(tokens: Sequence[str], reason: str = "no tokens") -> Entry:
    """Tokens as they are, with their spaces, in quotes."""
    return Entry(" ".join(f"“{token}”" for token in tokens)) if tokens else missing(reason)


def null_words(null: NullRange, show: Callable[[float | None], str]) -> str:
    return f"{show(null.low)} to {show(null.high)} (p {null.p:.2g})"


def nulls_words(nulls: dict[str, NullRange], show: Callable[[float | None], str]) -> tuple[str, ...]:
    """What control directions reach, a line for each kind."""
    return tuple(f"{KIND_NAMES.get(kind, kind)} {null_words(null, show)}" for kind, null in nulls.items())


def beside_row(what: str, found: Beside) -> FurtherRow:
    """A share among control directions."""
    controls = nulls_words(found.controls, hundredths)
    return FurtherRow(what, Entry(hundredths(found.value)), controls or ("no control directions were drawn",))


def rate_entry(rate: ExactRate) -> Entry:
    """A share of texts with its exact interval; over questions in the tooltip."""
    over = Estimate(value=rate.value, low=rate.low_by_question, high=rate.high_by_question)
    title = f"over {rate.n_questions} questions {interval(over, percent)}"
    bounds = interval(Estimate(value=rate.value, low=rate.low, high=rate.high), percent)
    return Entry(percent(rate.value), (f"{rate.n_flagged} of {rate.n} {bounds}",), title)
