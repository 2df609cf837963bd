"""Turns contrasts into what the title of a figure says of them: no more than the interval, the family of tests and the control allow."""

from collections.abc import Callable, Sequence

from emis_interp.report.contents import BASE, Contents
from emis_interp.report.style import hundredfold, interval, points, signed
from emis_interp.report.trust import judge_faults
from emis_interp.results import Contrast

ALPHA = 0.05
MOST = 3
"""So many differences stand in a title."""
Shown = Callable[[float | None], str]


def primary(contents: Contents, rows: Sequence[Contrast]) -> list[Contrast]:
    """Differences of arms from the controls that they name."""
    return [row for row in rows if contents.contrast_arms.get(row.arm) == row.reference and row.value is not None]


def told(row: Contrast) -> bool:
    """Whether the interval excludes 0, also among the primary contrasts."""
    return row.excludes() is True and (row.p_holm is None or row.p_holm < ALPHA)


def verdict(row: Contrast) -> str:
    """What the interval of a difference allows to say."""
    if row.excludes() is None:
        return "no interval, so no verdict"
    if told(row):
        return "a difference"
    if row.excludes():
        return "no difference beyond the choice among the primary contrasts"
    return "no difference seen"


def finding(
    contents: Contents, rows: Sequence[Contrast], what: str, *, show: Shown = signed, limits: Shown = signed
) -> str:
    """One sentence of the primary differences; of those from base, and that base is no control, where no arm names one.

    Args:
        what: is measured ("likelihood margins").
        show, limits: write a difference, and the limits of its interval.
    """
    chosen, only = primary(contents, rows), ""
    if not chosen:
        chosen = [row for row in rows if row.reference == BASE and row.value is not None]
        only = " (against base alone, which says nothing of misalignment: no control was compared)"
    if not chosen:
        return f"{_capital(what)}: no difference from a control or from base could be computed"
    verdicts = {verdict(row) for row in chosen}
    listed = [
        f"{row.arm} − {row.reference} {show(row.value)} {interval(row, limits)}"
        + (f", {verdict(row)}" if len(verdicts) > 1 else "")
        for row in chosen[:MOST]
    ]
    more = f"; and {len(chosen) - MOST} more" if len(chosen) > MOST else ""
    lead = f"{_capital(verdicts.pop())} in {what}" if len(verdicts) == 1 else _capital(what)
    return f"{lead}: {'; '.join(listed)}{more}{only}"


def rate_finding(contents: Contents, estimand: str) -> str:
    """The same of a rate; where the judge fails its control, first that it does."""
    rows = [row for row in contents.rates.contrasts if row.estimand == estimand] if contents.rates else []
    found = finding(contents, rows, f"{estimand} (paired by question)", show=points, limits=hundredfold)
    return f"{doubt(contents)}{found}"


def doubt(contents: Contents) -> str:
    """What stands before every finding that rests on the judge's scores, where the judge fails its control."""
    return "Not evidence, the judge fails its control. " if judge_faults(contents) else ""


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:] if not text.startswith("em_") else text
