"""Turns arms into colours and numbers into text, one way for every figure and table of the page."""

import html
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from emis_interp.results import Estimate

KIND_NAMES = {"random": "isotropic", "orthogonal": "usage-matched"}
"""Kinds of control directions, as a page calls them."""
MISSING = "–"
ROW = 34  # pixels of a row in figures with one row per arm or contrast
INK, GRID, FAINT = "#1f2933", "#e6e9ee", "#8a94a3"
SOFT = "#56616e"
"""Of lesser text; FAINT is for lines, since text in it has too little contrast with the paper (3.07:1)."""
SKY, ORANGE = "#2F95D0", "#BF8300"
"""Okabe and Ito's sky blue and orange, as dark as a mark on white has to be (3:1); as they are they have 2.3:1."""
# Okabe and Ito's colour-blind safe palette, without its yellow, which vanishes on white; then four of Tol's, one of them darkened.
_NAMED = {
    "base": "#30363d",
    "insecure": "#D55E00",
    "secure": "#0072B2",
    "educational": "#009E73",
    "reckless": "#CC79A7",
    "careful": SKY,
}
_OTHERS = (ORANGE, "#332288", "#999933", "#882255", "#359C8A", "#D55E00", "#0072B2", "#009E73", "#CC79A7", SKY)
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "pentagon", "hexagon", "star")
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


@dataclass(frozen=True)
class ArmStyle:
    color: str
    symbol: str


def arm_styles(arms: Sequence[str]) -> dict[str, ArmStyle]:
    """One colour and one marker per arm: fixed for the shipped arms, by order for others."""
    others = [color for color in _OTHERS if color not in {_NAMED[arm] for arm in arms if arm in _NAMED}]
    styles, n_other = {}, 0
    for index, arm in enumerate(arms):
        color = _NAMED.get(arm)
        if color is None:
            color = others[n_other % len(others)]
            n_other += 1
        styles[arm] = ArmStyle(color, _SYMBOLS[index % len(_SYMBOLS)])
    return styles


def layout(height: int, **changes: Any) -> dict[str, Any]:
    """Layout shared by all figures."""
    axis = {
        "title": {"font": {"size": 13}},
        "gridcolor": GRID,
        "linecolor": "#c5ccd6",
        "zeroline": False,
        "ticks": "outside",
        "tickcolor": "#c5ccd6",
        "automargin": True,
    }
    return {
        "template": go.layout.Template(
            layout={
                "xaxis": axis,
                "yaxis": {**axis, "title": {"font": {"size": 13}, "standoff": 10}},
                "annotationdefaults": {"font": {"size": 13}},
            }
        ),
        "height": height,
        "font": {"family": _FONT, "size": 13, "color": INK},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "margin": {"l": 60, "r": 24, "t": 36, "b": 52},
        "hoverlabel": {
            "bgcolor": "white",
            "bordercolor": "#c5ccd6",
            "align": "left",
            "font": {"size": 12, "color": INK},
        },
        "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
    } | changes


def with_choices(figure: go.Figure, label: str, choices: Sequence[tuple[str, list[bool], dict[str, Any]]]) -> go.Figure:
    """Attach a dropdown: each choice is (text, visible traces, changes of the layout). page.js builds it."""
    entries = [{"text": text, "visible": visible, "layout": changes} for text, visible, changes in choices]
    figure.update_layout(meta={"label": label, "choices": entries})
    if choices:
        for index, visible in enumerate(choices[0][1]):
            figure.update_traces(visible=visible, selector=index)
        figure.update_layout(choices[0][2])
    return figure


def error_bars(estimates: Sequence[Estimate]) -> dict[str, Any]:
    """Asymmetric 95 % intervals; an estimate without an interval gets no bar."""
    up = [None if e.value is None or e.high is None else max(0.0, e.high - e.value) for e in estimates]
    down = [None if e.value is None or e.low is None else max(0.0, e.value - e.low) for e in estimates]
    return {
        "visible": any(value is not None for value in up + down),
        "type": "data",
        "symmetric": False,
        "array": up,
        "arrayminus": down,
        "thickness": 1.6,
        "width": 4,
    }


def number(value: float | None, digits: int = 3) -> str:
    """A plain number, `0.931`, or an en dash."""
    return MISSING if value is None else f"{value:.{digits}f}".replace("-", "−")


def signed(value: float | None, digits: int = 3) -> str:
    """A difference with its sign, `+0.240`, or an en dash; what rounds to nothing is `+0.000`."""
    return MISSING if value is None else f"{round(value, digits) + 0.0:+.{digits}f}".replace("-", "−")


def percent(value: float | None, digits: int = 1) -> str:
    return MISSING if value is None else f"{100 * value:.{digits}f} %"


def points(value: float | None) -> str:
    """A difference of two shares in percentage points, `+9.8 points`."""
    return MISSING if value is None else f"{signed(100 * value, 1)} points"


def hundredfold(value: float | None) -> str:
    """A difference of two shares in percentage points without the word, for the limits of an interval."""
    return signed(None if value is None else 100 * value, 1)


def interval(estimate: Estimate, show: Any = signed) -> str:
    """`[low, high]`, or words when there is none."""
    if estimate.low is None or estimate.high is None:
        return "(no interval)"
    return f"[{show(estimate.low)}, {show(estimate.high)}]"


def seed_dots(estimate: Estimate, y: object, color: str, *, show: Any = signed) -> dict[str, Any]:
    """Arguments of a scatter: one small outlined dot at height `y` for each model behind an estimate; none for a single model."""
    own = {model: value for model, value in estimate.by_model.items() if value is not None}
    return {
        "x": list(own.values()),
        "y": [y] * len(own),
        "mode": "markers",
        "marker": {"size": 7, "symbol": "circle", "color": color, "line": {"color": INK, "width": 1.2}},
        "hovertext": [hover(f"{model}: {show(value)}") for model, value in own.items()],
        "hoverinfo": "text",
    }


def hover(*lines: str) -> str:
    """Lines of a hover box; markup in them is shown, not obeyed, and long ones are wrapped."""
    wrapped = [part for line in lines if line for part in textwrap.wrap(line, 70) or [""]]
    return "<br>".join(html.escape(part, quote=False) for part in wrapped)


def faded(color: str, opacity: float) -> str:
    red, green, blue = (int(color[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, {opacity})"
