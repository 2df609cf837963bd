"""Turns a title, some facts and figures with captions into one HTML page that opens without a network."""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from emis_interp.report.html_page import render
from emis_interp.report.page_frame import Frame, shown_facts

Section = tuple[str, str, go.Figure]


def figure_page(
    title: str, facts: Mapping[str, object], sections: Sequence[Section], *, frame: Frame | None = None
) -> str:
    """A page with a list of facts and one section (heading, caption, figure) after another; text in it is escaped.

    Args:
        frame: what made the page and which pages stand beside it (`page_frame.frame_of`).
    """
    return render(
        "figure_page.html",
        {f"figure_{i}": figure for i, (_, _, figure) in enumerate(sections)},
        title=title,
        facts=shown_facts(facts),
        sections=[(f"figure_{i}", heading, caption) for i, (heading, caption, _) in enumerate(sections)],
        frame=frame or Frame(),
    )
