"""Turns what was measured of forming, forecast and repaired organisms into figures; numbers come in as plain dictionaries of JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from emis_interp.report.style import FAINT, INK, ORANGE, faded, hover, layout, number, signed

BLUE, RED, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
PANELS = (
    "training loss (nats per token)",
    "likelihood margin against step 0 (nats per token)",
    "task: learned − other answers (nats per token)",
    "movement along the final direction (residual norms)",
    "cosine with the final state",
    "judged samples (mean score 0-100)",
)


def dynamics_figure(curves: Mapping[str, Any], losses: Sequence[tuple[int, float]]) -> go.Figure:
    """One organism while it forms: a panel for each quantity of `training.studies.dynamics.curves`, all against the optimiser step.

    Args:
        curves: as `training.studies.dynamics.curves` returns them, with `margin` (per step: value, low, high over questions).
        losses: (step, loss) of every optimiser step.
    """
    sampled = [(step, row) for step, row in zip(curves["steps"], curves["extra"], strict=True) if row]
    n_panels = len(PANELS) if sampled else len(PANELS) - 1
    figure = make_subplots(
        rows=3, cols=2, subplot_titles=PANELS[:n_panels], horizontal_spacing=0.09, vertical_spacing=0.12
    )
    steps = curves["steps"]
    _line(
        figure, 0, [step for step, _ in losses], y=[loss for _, loss in losses], name="loss", color=INK, markers=False
    )
    for name, shift in curves["margin_shift"].items():
        _line(figure, 1, steps, y=shift, name=name, color=faded(RED, 0.25), markers=False, words=f"{name}: ")
    low, high = ([row[bound] for row in curves["margin"]] for bound in ("low", "high"))
    _band(figure, 1, steps, low=low, high=high, color=RED)
    _line(figure, 1, steps, y=[row["value"] for row in curves["margin"]], name="mean of the questions", color=RED)
    _line(figure, 2, steps, y=curves["task"], name="task", color=GREEN)
    _line(figure, 3, steps, y=curves["projection"], name="its own final text direction", color=BLUE)
    if curves["given_projection"] is not None:
        _line(figure, 3, steps, y=curves["given_projection"], name="the given direction", color=ORANGE)
    _line(figure, 4, steps, y=curves["text_cosine"], name="text direction", color=BLUE)
    _line(figure, 4, steps, y=curves["model_cosine"], name="model change", color=PURPLE)
    _line(
        figure,
        4,
        steps,
        y=[row and row["mean"] for row in curves["rotation"]],
        name="adapter's written directions",
        color=ORANGE,
    )
    for key, color in (("aligned", BLUE), ("coherent", GREEN)) if sampled else ():
        _line(figure, 5, [step for step, _ in sampled], y=[row[key] for _, row in sampled], name=key, color=color)
    point = curves["change_point"]
    if point["step"] is not None:
        for place in range(1, n_panels):
            row, col = divmod(place, 2)
            figure.add_vline(point["step"], line={"color": FAINT, "dash": "dot"}, row=row + 1, col=col + 1)  # type: ignore[arg-type]
        figure.add_vrect(point["low"], point["high"], fillcolor=FAINT, opacity=0.18, line_width=0, row=1, col=2)  # type: ignore[arg-type]
    # Each panel that has several curves has its own legend, below its axis, where no curve runs.
    look = {"orientation": "h", "xanchor": "center", "yanchor": "top", "font": {"size": 11}}
    places = {"legend4": (0.77, 0.322), "legend5": (0.23, -0.055), "legend6": (0.77, -0.055)}
    legends = {name: {**look, "x": x, "y": y} for name, (x, y) in places.items()}
    figure.update_layout(layout(850, hovermode="closest", margin={"l": 60, "r": 24, "t": 40, "b": 90}, **legends))
    return figure


def foresight_figure(organisms: Sequence[Mapping[str, Any]]) -> go.Figure:
    """Projection difference of a training set against the margin shift that training on it reached, one point per organism.

    Args:
        organisms: `name`, `forecast` and `shift`, each of the last two with `value`, `low`, `high`.
    """
    figure = go.Figure()
    for axis in ("x", "y"):
        add = figure.add_vline if axis == "x" else figure.add_hline
        add(0, line={"color": FAINT, "width": 1})
    bars = {}
    for key in ("forecast", "shift"):
        values = [row[key] for row in organisms]
        bars[key] = {
            "type": "data",
            "symmetric": False,
            "array": [None if v["high"] is None else v["high"] - v["value"] for v in values],
            "arrayminus": [None if v["low"] is None else v["value"] - v["low"] for v in values],
            "color": faded(BLUE, 0.5),
            "thickness": 1.3,
        }
    figure.add_scatter(
        x=[row["forecast"]["value"] for row in organisms],
        y=[row["shift"]["value"] for row in organisms],
        error_x=bars["forecast"],
        error_y=bars["shift"],
        mode="markers+text",
        text=[row["name"] for row in organisms],
        textposition="top right",
        marker={"size": 9, "color": BLUE},
        hovertext=[
            hover(
                f"{row['name']}: projection difference {signed(row['forecast']['value'])}, margin {signed(row['shift']['value'])}"
            )
            for row in organisms
        ],
        hoverinfo="text",
    )
    figure.update_layout(
        layout(
            520,
            xaxis={"title": {"text": "projection difference of the data, before training (residual norms)"}},
            yaxis={"title": {"text": "margin shift after training (nats per token)"}},
            showlegend=False,
        )
    )
    return figure


def prevention_figure(rows: Sequence[Mapping[str, Any]]) -> go.Figure:
    """Effect of every remedy on the margin against its cost in learning the task; the untreated organism is the star.

    Args:
        rows: `name`, `margin_shift` (against base) and `task_gain` (log-probability of held-out task answers against base), each with
            `value`, `low`, `high`; `untreated` marks one of them.
    """
    figure = go.Figure()
    sides = ("top right", "bottom right", "bottom left", "top left")  # names of near points do not lie on each other
    for index, row in enumerate(rows):
        color = RED if row["untreated"] else BLUE
        x, y = row["task_gain"], row["margin_shift"]
        figure.add_scatter(
            x=[x["value"]],
            y=[y["value"]],
            error_x=_bar(x, color),
            error_y=_bar(y, color),
            mode="markers+text",
            text=[row["name"]],
            textposition=sides[index % len(sides)],
            marker={
                "size": 15 if row["untreated"] else 9,
                "symbol": "star" if row["untreated"] else "circle",
                "color": color,
            },
            hovertext=hover(f"{row['name']}: margin {signed(y['value'])}, task {signed(x['value'])}"),
            hoverinfo="text",
            showlegend=False,
        )
    figure.add_hline(0, line={"color": FAINT, "width": 1})
    figure.update_layout(
        layout(
            560,
            xaxis={
                "title": {
                    "text": "task learned: log-probability of held-out task answers against base (nats per token)"
                }
            },
            yaxis={"title": {"text": "margin shift against base (nats per token)"}},
        )
    )
    return figure


def _line(
    figure: go.Figure,
    place: int,
    x: Sequence[float],
    *,
    y: Sequence[float | None],
    name: str,
    color: str,
    markers: bool = True,
    words: str = "",
) -> None:
    figure.add_scatter(
        row=place // 2 + 1,
        col=place % 2 + 1,
        x=list(x),
        y=list(y),
        name=name,
        mode="lines+markers" if markers else "lines",
        line={"color": color, "width": 2 if markers else 1.2},
        marker={"size": 6},
        legend=f"legend{place + 1}",
        showlegend=markers and place > 2,
        hovertext=[
            hover(f"step {step:g}: {words or name + ' '}{number(value)}") for step, value in zip(x, y, strict=True)
        ],
        hoverinfo="text",
    )


def _band(
    figure: go.Figure, place: int, x: Sequence[float], *, low: Sequence[Any], high: Sequence[Any], color: str
) -> None:
    known = [i for i, value in enumerate(low) if value is not None]
    around = np.array([*known, *known[::-1]], dtype=int)
    bounds = [*(high[i] for i in known), *(low[i] for i in known[::-1])]
    figure.add_scatter(
        row=place // 2 + 1,
        col=place % 2 + 1,
        x=[x[i] for i in around],
        y=bounds,
        mode="lines",
        showlegend=False,
        fill="toself",
        fillcolor=faded(color, 0.15),
        line={"width": 0},
        hoverinfo="skip",
    )


def _bar(estimate: Mapping[str, Any], color: str) -> dict[str, Any] | None:
    if estimate["low"] is None:
        return None
    up, down = estimate["high"] - estimate["value"], estimate["value"] - estimate["low"]
    return {"type": "data", "symmetric": False, "array": [up], "arrayminus": [down], "color": faded(color, 0.5)}
