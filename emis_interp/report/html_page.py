"""Turns a template, its values and figures into one HTML page that opens without a network.

Model text is hostile until proven otherwise: jinja2 escapes it, embedded JSON has no `<`, scripts insert it with
textContent, and a content security policy allows only the two scripts of this page by their hashes.
"""

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

OURS = "emis_interp.report"


def render(
    template: str,
    figures: Mapping[str, go.Figure],
    *,
    package: str = OURS,
    filters: Mapping[str, Callable[..., Any]] | None = None,
    **values: Any,
) -> str:
    """The page that a template gives which extends `skeleton.html`; text in it is escaped, and only its own scripts may run.

    Args:
        figures: by the name of their place in the template.
        package: holds the template, and a `page.css` of its own behind ours.
        filters: names that the template may use behind `|`.
    """
    places = dict.fromkeys((package, OURS))
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.FunctionLoader(_source_in(place)) for place in places]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters or {}
    plotly_js, page_js = get_plotlyjs().replace("\r\n", "\n"), _resource(OURS, "page.js")
    return environment.get_template(template).render(
        **values,
        figure_json=embed({name: json.loads(figure.to_json() or "{}") for name, figure in figures.items()}),
        style=Markup("".join(_resource(place, "page.css") for place in reversed(places))),  # nosec B704 # ours
        plotly_js=Markup(plotly_js),  # nosec B704 # plotly's
        page_js=Markup(page_js),  # nosec B704 # ours
        script_hashes=[Markup(csp_hash(script)) for script in (plotly_js, page_js)],  # nosec B704 # hashes
    )


def embed(value: Any) -> Markup:
    """JSON for the inside of a script element: without `<`, `>` and `&` no text in it can end the element."""
    text = json.dumps(written_out(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))  # nosec B704 # made safe


def csp_hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _source_in(package: str) -> Callable[[str], str | None]:
    return lambda name: _resource(package, name) if (resources.files(package) / name).is_file() else None


def _resource(package: str, name: str) -> str:
    return (resources.files(package) / name).read_text("utf-8")
