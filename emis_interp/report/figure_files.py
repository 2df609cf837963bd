"""Turns figures into files for papers: each as SVG or PDF with its title and caption, and its numbers as CSV.

plotly draws in a browser; one that is installed is run without a window and without a network, on a page that has no other script.
"""

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from emis_interp.errors import ConfigError, StageError
from emis_interp.files.csv_text import csv_text
from emis_interp.files.store import write_bytes, write_text
from emis_interp.files.text import written_out
from emis_interp.process import Bars, no_bars
from emis_interp.report.described import words_of
from emis_interp.report.html_page import csp_hash, embed, script_parts

Kind = Literal["svg", "pdf"]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
SECONDS = 300
"""A browser that takes longer is stuck."""
DRAW = """(async () => {
  const told = document.createElement("script");
  told.type = "application/json";
  told.id = "pictures";
  const drawn = {};
  try {
    for (const [name, figure] of Object.entries(Figures.all())) drawn[name] = await Figures.picture(figure, 0);
    told.textContent = JSON.stringify({ drawn }).replaceAll("<", "\\u003c");
  } catch (error) {
    told.textContent = JSON.stringify({ failed: String(error) }).replaceAll("<", "\\u003c");
  }
  document.body.append(told);
})();
"""
_PICTURES = re.compile(r'<script type="application/json" id="pictures">(.*?)</script>', re.DOTALL)
_SIZE = re.compile(r'<svg[^>]*? width="([\d.]+)" height="([\d.]+)"')


def write_figures(figures: Mapping[str, go.Figure], folder: Path, kind: str, *, bars: Bars = no_bars) -> list[Path]:
    """Write NAME.svg (or .pdf) and NAME.csv of every figure into a folder; each picture is 900 pixels wide.

    Args:
        figures: by name; of one with a dropdown its first choice is drawn, the numbers are of all.
        kind: `svg` or `pdf`.

    Raises:
        ConfigError: another kind. StageError: no browser is installed, or it could not draw.
    """
    if kind not in get_args(Kind):
        raise ConfigError(f"figures as {kind!r} were asked for; give svg or pdf: --figures svg DIR")
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    pictures = draw(figures)
    with bars("figures", len(figures)) as advance:
        for name, figure in figures.items():
            path = folder / f"{name}.{kind}"
            if kind == "svg":
                write_text(path, pictures[name])
            else:
                write_bytes(path, as_pdf(pictures[name]))
            numbers = words_of(figure)["table"]
            write_text(path.with_suffix(".csv"), written_out(csv_text(numbers["columns"], numbers["rows"])))
            made += [path, path.with_suffix(".csv")]
            advance()
    return made


def draw(figures: Mapping[str, go.Figure]) -> dict[str, str]:
    """The text of an SVG for every figure.

    Raises:
        StageError: no browser is installed, or it could not draw.
    """
    plotly_js, figures_js = get_plotlyjs().replace("\r\n", "\n"), script_parts("figures.js") + DRAW
    data = embed({name: json.loads(figure.to_json() or "{}") for name, figure in figures.items()})
    policy = f"default-src 'none'; script-src {csp_hash(plotly_js)} {csp_hash(figures_js)}; style-src 'unsafe-inline'; img-src data: blob:"
    page = (
        f'<!doctype html><html><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}"></head><body>'
        f'<script type="application/json" id="figure-data">{data}</script><script>{plotly_js}</script><script>{figures_js}</script>'
        "</body></html>"
    )
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "page.html").write_text(page, encoding="utf-8")
        document = _browse(Path(place), "--virtual-time-budget=60000", "--dump-dom")
    told = _PICTURES.search(document)
    found: dict[str, Any] = json.loads(told[1]) if told else {"failed": "it did not finish"}
    if "failed" in found:
        raise StageError(f"the browser {browser()} could not draw the figures: {found['failed']}")
    return found["drawn"]


def as_pdf(svg: str) -> bytes:
    """An SVG as a PDF of one page of its size."""
    size = _SIZE.search(svg)
    if size is None:
        raise StageError("a figure's SVG names no size, so that no page can be cut to it")
    width, height = size.groups()
    style = (
        f"@page {{ size: {width}px {height}px; margin: 0 }} svg {{ display: block }} "
        f"html, body {{ margin: 0; height: {height}px; overflow: hidden }}"
    )
    page = (
        '<!doctype html><html><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" '
        f"content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\"><style>{style}</style></head><body>{svg}</body></html>"
    )
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "page.html").write_text(page, encoding="utf-8")
        path = Path(place) / "page.pdf"
        _browse(Path(place), "--no-pdf-header-footer", f"--print-to-pdf={path}")
        if not path.exists():
            raise StageError(f"the browser {browser()} wrote no PDF; --figures svg may still work")
        return path.read_bytes()


def browser() -> str:
    """The first browser on the path that runs without a window.

    Raises:
        StageError: none is installed; says what to install.
    """
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        raise StageError(
            f"figures are drawn by a browser, and none of {', '.join(BROWSERS)} is on the path; install one (Debian and Ubuntu: "
            "apt-get install chromium; elsewhere Chromium or Chrome), or save single figures by the buttons below them on the page"
        )
    return found


def _browse(place: Path, *flags: str) -> str:
    """What the browser says of page.html in a folder, which takes its profile too."""
    words = [browser(), "--headless", "--disable-gpu", f"--user-data-dir={place / 'profile'}", "--no-first-run"]
    # Chromium refuses to start as root with its sandbox.
    words += ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    page = f"file://{place / 'page.html'}"
    try:
        done = subprocess.run(
            [*words, *flags, page], capture_output=True, text=True, errors="replace", timeout=SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StageError(f"the browser {words[0]} could not be run: {error}") from None
    if done.returncode != 0:
        raise StageError(f"the browser {words[0]} ended with status {done.returncode}: {done.stderr.strip()[-400:]}")
    return done.stdout
