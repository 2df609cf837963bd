"""Turns a template, its values and figures into one HTML page that opens without a network.

Model text is hostile until proven otherwise: jinja2 escapes it, embedded JSON has no `<`, scripts insert it with
textContent, and a content security policy allows only the scripts of this page by their hashes. The library that draws figures
is a third as long compressed: page.js unpacks it when the first figure comes near, and runs it, which the policy allows by its hash.
"""

import base64
import gzip
import hashlib
import json
from collections.abc import Callable, Mapping
from functools import cache
from importlib import resources
from typing import Any

import jinja2
import plotly.graph_objects as go
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from emis_interp.files.text import written_out

OURS = "emis_interp.report"
SCRIPTS = (
    "figures.js",
    "page_address.js",
    "page_figures.js",
    "page_store.js",
    "page_answers.js",
    "page_panel.js",
    "page.js",
)
"""Parts of the page's one script, in the order in which they are joined."""


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
    library, page_js = (get_plotlyjs() if figures else "").replace("\r\n", "\n"), page_script()
    return environment.get_template(template).render(
        **values,
        figure_json=embed({name: json.loads(figure.to_json() or "{}") for name, figure in figures.items()}),
        style=Markup("".join(_resource(place, "page.css") for place in reversed(places))),  # nosec B704 # ours
        library=packed_library(library) if library else "",
        page_js=Markup(page_js),  # nosec B704 # ours
        script_hashes=[Markup(csp_hash(script)) for script in (page_js, library) if script],  # nosec B704 # hashes
    )


def page_script() -> str:
    """The script of every page, in a scope of its own."""
    return f'"use strict";\n(function () {{\n{script_parts(*SCRIPTS)}}})();\n'


def embed_packed(value: Any) -> Markup:
    """JSON as `embed`, packed: for tables that grow with the run."""
    return packed(_json(value), 6)


@cache
def packed_library(script: str) -> Markup:
    """The library, packed once in a process as small as it gets."""
    return packed(script, 9)


def packed(text: str, level: int) -> Markup:
    """Text for the inside of a script element that page.js unpacks: gzip in base64, the same bytes on every build."""
    return Markup(base64.b64encode(gzip.compress(text.encode(), level, mtime=0)).decode())  # nosec B704 # base64


def embed(value: Any) -> Markup:
    """JSON for the inside of a script element: without `<`, `>` and `&` no text in it can end the element."""
    text = _json(value)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))  # nosec B704 # made safe


def _json(value: Any) -> str:
    return json.dumps(written_out(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def script_parts(*names: str) -> str:
    """Scripts of this package as one; later ones use what earlier ones define."""
    return "".join(_resource(OURS, name) for name in names)


def csp_hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _source_in(package: str) -> Callable[[str], str | None]:
    return lambda name: _resource(package, name) if (resources.files(package) / name).is_file() else None


def _resource(package: str, name: str) -> str:
    return (resources.files(package) / name).read_text("utf-8")
