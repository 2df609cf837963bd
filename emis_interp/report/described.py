"""Turns a figure into one with words: a title that states its finding, a caption, and the numbers that it draws, for readers and files.

They stand in `layout.meta`, which plotly carries along unread: the page shows them, figures.js makes files of them.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from emis_interp.report.style import hover

NARROW_MARGIN = {"margin.l": 14, "margin.r": 18}
LABELS_ABOVE = "labels_above"
"""Key of `narrow`: axis -> pixels by which the labels of its rows are lifted, and characters in a line; figures.js draws them."""
TITLE_ROOM, AXIS_ROOM = 24, 56
"""Pixels above and below a panel on a phone."""
ROW_LABEL = 42
"""Characters of a row's label in a line."""


@dataclass(frozen=True)
class Numbers:
    """A table. `columns`: names with units in parentheses; rows hold texts, numbers, and None for what is missing."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


def describe(
    figure: go.Figure,
    *,
    title: str | Sequence[str],
    caption: str,
    numbers: Numbers,
    narrow: Mapping[str, Any] | None = None,
) -> go.Figure:
    """The figure, with its words in `layout.meta`; `clicks` there says whether points of it have answers (`customdata`).

    Args:
        title: what it shows, computed from the numbers; one for each choice of its dropdown, or one for all.
        caption: how it is to be read.
        narrow: changes of the layout on a phone (dotted name -> value); margins and the titles of axes are seen to.
    """
    titles = [title] if isinstance(title, str) else list(title)
    traces: Any = figure.data
    meta = {"label": "", "choices": [], **_meta(figure)}
    traces: Any = figure.data
    if len(titles) == len(meta["choices"]):
        meta["choices"] = [choice | {"title": text} for choice, text in zip(meta["choices"], titles, strict=True)]
    meta |= {
        "title": titles[0],
        "caption": caption,
        "table": {"columns": list(numbers.columns), "rows": [list(row) for row in numbers.rows]},
        "narrow": NARROW_MARGIN | dict(narrow or {}),
        "clicks": any(link is not None for trace in traces for link in trace.customdata or ()),
    }
    figure.update_layout(meta=meta)
    return figure


def words_of(figure: go.Figure) -> Mapping[str, Any]:
    """Title, caption, table and narrow layout of a figure that has them; empty ones for another."""
    return {"title": "", "caption": "", "table": {"columns": [], "rows": []}, "narrow": {}, "clicks": False} | _meta(
        figure
    )


def _meta(figure: go.Figure) -> dict[str, Any]:
    layout: Any = figure.layout
    return dict(layout.meta or {})


def row_label(text: str, most: int = ROW_LABEL) -> str:
    """The label of a row: hostile text is shown, long text takes two lines and no more."""
    lines = textwrap.wrap(text, most, max_lines=2, placeholder=" …") or [text]
    return "<br>".join(hover(line) for line in lines)


def narrow_rows(n_rows: int, *, room: int = 96, row: int = 52, shift: int = 17, most: int = 44) -> dict[str, Any]:
    """On a phone the label of a row stands above it, inside the plot.

    Args:
        room: pixels besides the rows.
        row: pixels of a row.
        shift: pixels from the middle of a row up to its label.
        most: characters in a line of a label, fewer where numbers stand beside it.
    """
    return {LABELS_ABOVE: {"yaxis": [shift, most]}, "height": room + row * n_rows}


def narrow_panels(figure: go.Figure, heights: Mapping[str, int], *, legend: int) -> dict[str, Any]:
    """On a phone the panels of a figure stand below each other.

    Args:
        heights: suffix of a panel's axes ("", "2", ...) -> its pixels with title and axis, from the top; titles of panels are the
            figure's first annotations.
        legend: pixels for the legend, which stands above all.
    """
    layout: Any = figure.layout
    whole, above, changes = sum(heights.values()), 0, {"height": legend + sum(heights.values()) + 10}
    changes |= {"margin.t": legend, "margin.b": 10, "legend.y": 1.0, "legend.yanchor": "bottom", "legend.x": 0.0}
    for place, (suffix, height) in enumerate(heights.items()):
        top, low = 1 - (above + TITLE_ROOM) / whole, 1 - (above + height - AXIS_ROOM) / whole
        changes |= {f"yaxis{suffix}.domain": [low, top], f"xaxis{suffix}.domain": [0, 1]}
        changes[f"xaxis{suffix}.anchor"] = f"y{suffix}"
        if place < len(layout.annotations) and layout.annotations[place].yref == "paper":
            note = f"annotations[{place}]"
            changes |= {f"{note}.x": 0.0, f"{note}.xanchor": "left", f"{note}.y": top + 0.1 * TITLE_ROOM / whole}
        above += height
    return changes
