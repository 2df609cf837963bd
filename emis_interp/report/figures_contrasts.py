"""Turns differences between arms into forest plots: one row each, its interval, the line at no difference; primary ones filled."""

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from emis_interp.report.contents import Contents
from emis_interp.report.described import Numbers, describe, narrow_rows, row_label
from emis_interp.report.differences import finding, rate_finding, verdict
from emis_interp.report.style import (
    INK,
    ROW,
    SOFT,
    ArmStyle,
    error_bars,
    hover,
    hundredfold,
    interval,
    layout,
    points,
    with_choices,
)
from emis_interp.results import Contrast

FOREST_CAPTION = (
    "Arm minus reference on the same questions, in percentage points, with 95 % intervals. Filled: an arm against the control that its "
    "configuration names, which is what the claim rests on. Hollow: every other comparison, exploratory; of twenty intervals about nothing "
    "one excludes 0."
)
COLUMNS = (
    "arm",
    "reference",
    "measure",
    "difference (percentage points)",
    "low",
    "high",
    "questions or items",
    "verdict",
)


def rate_forest(contents: Contents, styles: dict[str, ArmStyle]) -> go.Figure | None:
    """Differences of the rates; a dropdown for the estimand."""
    rows = [row for row in contents.rates.contrasts if row.value is not None] if contents.rates else []
    kinds = list(dict.fromkeys((row.estimand, row.weighting) for row in rows))
    if not kinds:
        return None
    parts = {kind: [row for row in rows if (row.estimand, row.weighting) == kind] for kind in kinds}
    figure, owner = go.Figure(), list[tuple[str, str]]()
    labels = list(dict.fromkeys(_label(row) for row in _ordered(contents, rows)))
    for kind, mine in parts.items():
        owner += [kind] * _draw(figure, contents, mine, styles=styles, labels=labels)
    choices = [(f"{name}, {weighting}", [one == (name, weighting) for one in owner], {}) for name, weighting in kinds]
    return describe(
        with_choices(_laid_out(figure, labels), "Rate", choices),
        title=[rate_finding(contents, estimand) for estimand, _ in kinds],
        caption=FOREST_CAPTION,
        numbers=Numbers(
            COLUMNS,
            [
                _numbers(row, f"{name}, {weighting}", row.n_questions)
                for (name, weighting), mine in parts.items()
                for row in mine
            ],
        ),
        narrow=narrow_rows(len(labels), row=62, shift=20, most=26),
    )


def choice_forest(contents: Contents, styles: dict[str, ArmStyle]) -> go.Figure | None:
    """Differences of the shares of situations in which the misaligned action is preferred."""
    rows = [row for row in contents.choices.contrasts if row.value is not None] if contents.choices else []
    if not rows:
        return None
    figure = go.Figure()
    labels = list(dict.fromkeys(_label(row) for row in _ordered(contents, rows)))
    _draw(figure, contents, rows, styles=styles, labels=labels)
    n_items = contents.choices.n_items if contents.choices else 0
    return describe(
        _laid_out(figure, labels),
        title=finding(contents, rows, "misaligned actions preferred", show=points, limits=hundredfold),
        caption=FOREST_CAPTION.replace("on the same questions", f"over the same {n_items} situations"),
        numbers=Numbers(COLUMNS, [_numbers(row, "misaligned action preferred", n_items) for row in rows]),
        narrow=narrow_rows(len(labels), row=62, shift=20, most=26),
    )


def _draw(
    figure: go.Figure, contents: Contents, rows: Sequence[Contrast], *, styles: dict[str, ArmStyle], labels: list[str]
) -> int:
    """Adds one trace for each row and one of their numbers, which stand at the right end of all; says how many."""
    ends = [x for row in rows for x in (row.value, row.high) if x is not None]
    farthest = hundred(max([*ends, 0.0]))
    for row in rows:
        color, claim = styles[row.arm].color, contents.contrast_arms.get(row.arm) == row.reference
        figure.add_scatter(
            x=[hundred(row.value)],
            y=[len(labels) - 1 - labels.index(_label(row))],
            error_x=_scaled(row) | {"color": color},
            mode="markers",
            marker={
                "size": 12,
                "symbol": "diamond" if claim else "diamond-open",
                "color": color,
                "line": {"color": color, "width": 2},
            },
            hovertext=[hover(f"{_label(row)}: {points(row.value)} {interval(row, hundredfold)}", verdict(row))],
            hoverinfo="text",
        )
    figure.add_scatter(
        x=[farthest] * len(rows),
        y=[len(labels) - 0.78 - labels.index(_label(row)) for row in rows],
        mode="text",
        text=[f"{hundredfold(row.value)} {interval(row, hundredfold)}" for row in rows],
        textposition="middle left",
        textfont={"size": 11, "color": SOFT},
        hoverinfo="skip",
        cliponaxis=False,
    )
    return len(rows) + 1


def _laid_out(figure: go.Figure, labels: list[str]) -> go.Figure:
    figure.add_vline(x=0, line={"color": INK, "width": 1})
    figure.update_layout(
        layout(
            104 + (ROW + 6) * len(labels),
            showlegend=False,
            xaxis={"title": {"text": "difference (percentage points)"}},
            yaxis={
                "tickvals": list(range(len(labels))),
                "ticktext": [row_label(label) for label in labels[::-1]],
                "range": [-0.6, len(labels) - 0.4],
                "showgrid": False,
            },
            margin={"l": 60, "r": 24, "t": 32, "b": 52},
        )
    )
    return figure


def _ordered(contents: Contents, rows: Sequence[Contrast]) -> list[Contrast]:
    return sorted(rows, key=lambda row: contents.contrast_arms.get(row.arm) != row.reference)


def _label(row: Contrast) -> str:
    return f"{row.arm} − {row.reference}" + (f" ({row.seeds})" if row.seeds else "")


def _numbers(row: Contrast, measure: str, n: int | None) -> tuple[object, ...]:
    return (row.arm, row.reference, measure, hundred(row.value), hundred(row.low), hundred(row.high), n, verdict(row))


def hundred(value: float | None) -> float | None:
    """A share as percentage points."""
    return None if value is None else 100 * value


def _scaled(row: Contrast) -> dict[str, Any]:
    bars = error_bars([row])
    return bars | {side: [hundred(value) for value in bars[side]] for side in ("array", "arrayminus")}
