"""Turns a title, some facts and figures with captions into one HTML page that opens without a network."""

import json
from collections.abc import Mapping, Sequence

import jinja2
import plotly.graph_objects as go
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from emis_interp.report.page import csp_hash, embed, resource

Section = tuple[str, str, go.Figure]


def figure_page(title: str, facts: Mapping[str, object], sections: Sequence[Section]) -> str:
    """A page with a list of facts and one section (heading, caption, figure) after another; text in it is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(resource), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    plotly_js, page_js = get_plotlyjs().replace("\r\n", "\n"), resource("page.js")
    figures = {f"figure_{i}": json.loads(figure.to_json() or "{}") for i, (_, _, figure) in enumerate(sections)}
    return environment.get_template("figure_page.html").render(
        title=title,
        facts=facts,
        sections=[(f"figure_{i}", heading, caption) for i, (heading, caption, _) in enumerate(sections)],
        figure_json=embed(figures),
        style=Markup(resource("page.css")),
        plotly_js=Markup(plotly_js),
        page_js=Markup(page_js),
        script_hashes=[Markup(csp_hash(script)) for script in (plotly_js, page_js)],
    )
