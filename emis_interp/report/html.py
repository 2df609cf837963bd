"""Turns a template, figures and values into one HTML page that opens without a network and runs no script but its own."""

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

import jinja2
import plotly.graph_objects as go
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from emis_interp.files.text import written_out


def html_page(
    template: str,
    figures: Mapping[str, go.Figure],
    values: Mapping[str, Any],
    *,
    read: Callable[[str], str] | None = None,
    style: str = "",
    filters: Mapping[str, Callable[..., Any]] | None = None,
) -> str:
    """Render a template; text in it is escaped, and only plotly and the page's own script may run (by their hashes).

    Args:
        template: its name; it may use `figure_json`, `style`, `plotly_js`, `page_js` and `script_hashes` beside `values`.
        figures: by the name that the template gives them.
        read: name of a template -> its text; None reads those beside this module.
        style: CSS behind that of all pages.
        filters: of the template, beside jinja's.
    """
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(read or resource),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters or {}
    plotly_js, page_js = get_plotlyjs().replace("\r\n", "\n"), resource("page.js")
    return environment.get_template(template).render(
        figure_json=embed({name: json.loads(figure.to_json() or "{}") for name, figure in figures.items()}),
        style=Markup(resource("page.css") + style),
        plotly_js=Markup(plotly_js),
        page_js=Markup(page_js),
        script_hashes=[Markup(csp_hash(script)) for script in (plotly_js, page_js)],
        **values,
    )


def embed(value: Any) -> Markup:
    """JSON for the inside of a script element: without `<`, `>` and `&` no text in it can end the element."""
    text = json.dumps(written_out(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def csp_hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def resource(name: str) -> str:
    return (resources.files("emis_interp.report") / name).read_text("utf-8")
