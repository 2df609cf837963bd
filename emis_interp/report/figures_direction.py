"""Turns the direction of every layer into a figure: how well it reads held-out questions, how stable and how long it is."""

from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from emis_interp.report.described import Numbers, describe
from emis_interp.report.style import FAINT, INK, ORANGE, SOFT, hover, interval, layout, number
from emis_interp.results import Curve, DirectionView, Estimate

EARLIEST = (0, 1)
"""Layers whose residuals are of words and hardly of what they mean in context."""
HALVES = "cosine of two halves of the selection questions"
"""Its name wherever it stands; that of two halves of all questions (`find_direction.py`) is larger, since its halves are."""
CAPTION = (
    "Top: how well the projection on the direction tells misaligned from aligned texts (0.5 is chance), on the questions that chose the "
    "layer and on held-out ones. Grey areas reach up to the 95th percentile of the controls: a curve inside them is no evidence. Layers 0 "
    "and 1 (shaded) have hardly mixed the tokens: what they tell apart, words tell apart.{words} Middle: cosine between directions from "
    "two random halves of the selection questions, and how much of the direction sits in its five largest dimensions. A direction from all "
    "selection questions is steadier than those of its halves. Bottom: norm of the raw difference of means beside the mean residual norm."
)


def layers_figure(direction: DirectionView, words: Estimate | None = None) -> go.Figure:
    """Three panels over the layers: AUROC with its controls, stability, norms. The chosen layer is marked, and the layers that read words.

    Args:
        words: AUROC of a bag of words on the same kind of texts, over all questions left out in turn.
    """
    figure = make_subplots(rows=3, cols=1, shared_xaxes=True, row_heights=[0.5, 0.25, 0.25], vertical_spacing=0.07)
    layers = direction.layers

    def curve(row: int, name: str, values: Curve, *, color: str, **line: object) -> None:
        if values:
            texts = [
                hover(f"layer {layer}, {name}: {number(value)}") for layer, value in zip(layers, values, strict=True)
            ]
            figure.add_scatter(
                row=row,
                col=1,
                name=name,
                x=layers,
                y=values,
                mode="lines+markers",
                hovertext=texts,
                hoverinfo="text",
                legend="legend" if row == 1 else f"legend{row}",
                marker={"size": 5},
                line={"color": color, "width": 2, **line},
            )

    def band(name: str, values: Curve, color: str, *, pattern: str) -> None:
        if values:
            upper = [value if value is not None else 0.5 for value in values]
            texts = [
                hover(f"layer {layer}, {name}: {number(value)}") for layer, value in zip(layers, values, strict=True)
            ]
            x = layers + layers[::-1]
            figure.add_scatter(
                row=1,
                col=1,
                name=name,
                x=x,
                y=upper + [0.5] * len(layers),
                mode="lines",
                fill="toself",
                fillcolor=color,
                fillpattern={"shape": pattern, "size": 6, "fgcolor": "#9aa5b5", "bgcolor": color} if pattern else None,
                line={"width": 0},
                hovertext=texts + texts[::-1],
                hoverinfo="text",
                hoveron="points",
            )

    band("shuffled labels, 95th percentile", direction.shuffled_auroc_95, "rgba(138, 148, 163, 0.28)", pattern="")
    band("random directions, 95th percentile", direction.random_auroc_95, "rgba(138, 148, 163, 0.10)", pattern="/")
    curve(1, "random directions, mean", direction.random_auroc, color=FAINT, dash="dot")
    curve(1, "selection questions", direction.selection_auroc, color=ORANGE, dash="dash")
    curve(1, "report questions", direction.report_auroc, color="#0072B2")
    curve(2, HALVES, direction.split_half_cosine, color="#009E73")
    curve(2, "share of the five largest dimensions", direction.top5_dims_share, color="#CC79A7", dash="dash")
    curve(3, "raw difference of the means", direction.raw_norm, color="#D55E00")
    curve(3, "mean residual norm", direction.residual_norm, color=INK, dash="dash")
    if direction.layer_range is not None:
        low, high = direction.layer_range
        figure.add_vrect(x0=low - 0.5, x1=high + 0.5, fillcolor="#0072B2", opacity=0.05, line_width=0, layer="below")
    figure.add_vline(x=direction.chosen_layer, line={"color": INK, "width": 1.3, "dash": "dot"})
    legend = {"orientation": "h", "yanchor": "bottom", "x": 0}
    figure.update_layout(layout(740, showlegend=True, margin={"l": 70, "r": 24, "t": 92, "b": 52}))
    drawn: Any = figure.layout
    tops = [axis.domain[1] for axis in (drawn.yaxis, drawn.yaxis2, drawn.yaxis3)]
    figure.update_layout(
        legend=legend | {"y": tops[0] + 0.005},
        legend2=legend | {"y": tops[1] + 0.005},
        legend3=legend | {"y": tops[2] + 0.005},
    )
    figure.add_annotation(
        x=direction.chosen_layer,
        y=1,
        yref="y domain",
        text=f" chosen: layer {direction.chosen_layer}",
        showarrow=False,
        xanchor="left",
        yanchor="top",
        font={"size": 12},
    )
    figure.update_yaxes(title_text="AUROC", row=1, col=1)
    figure.update_yaxes(title_text="cosine, share", range=[-0.05, 1.05], tickvals=[0, 0.25, 0.5, 0.75, 1], row=2, col=1)
    figure.update_yaxes(title_text="norm (log scale)", type="log", row=3, col=1)
    figure.update_xaxes(title_text="layer (decoder block, 0-based)", row=3, col=1)
    early = [layer for layer in layers if layer in EARLIEST]
    if early and len(layers) > len(EARLIEST):
        figure.add_vrect(
            x0=min(early) - 0.5,
            x1=max(early) + 0.5,
            fillcolor="rgba(138, 148, 163, 0.22)",
            line_width=0,
            layer="below",
            row=1,  # pyright: ignore[reportArgumentType]
            col=1,  # pyright: ignore[reportArgumentType]
        )
        note = {"x": max(early) + 0.6, "xanchor": "left", "y": 0.02, "yref": "y domain", "yanchor": "bottom"}
        figure.add_annotation(**note, text="← layers 0-1 read words", showarrow=False, font={"size": 12, "color": SOFT})
    if words is not None and words.value is not None:
        figure.add_scatter(
            row=1,
            col=1,
            name="bag of words, all questions left out in turn",
            x=[layers[0], layers[-1]],
            y=[words.value, words.value],
            mode="lines",
            line={"color": "#7a5c00", "width": 1.6, "dash": "dashdot"},
            hovertext=[hover(f"bag of words: {number(words.value)} {interval(words, number)}")] * 2,
            hoverinfo="text",
        )
    curves = {
        "AUROC, selection questions": direction.selection_auroc,
        "AUROC, report questions": direction.report_auroc,
        "AUROC, random directions, mean": direction.random_auroc,
        "AUROC, random directions, 95th percentile": direction.random_auroc_95,
        "AUROC, shuffled labels, 95th percentile": direction.shuffled_auroc_95,
        HALVES: direction.split_half_cosine,
        "share of the five largest dimensions": direction.top5_dims_share,
        "raw norm (residual units)": direction.raw_norm,
        "mean residual norm (residual units)": direction.residual_norm,
        "AUROC, bag of words": [] if words is None else [words.value] * len(layers),
    }
    there = {name: values for name, values in curves.items() if values}
    return describe(
        figure,
        title=_finding(direction),
        caption=CAPTION.format(words="" if words is None else _words(words)),
        numbers=Numbers(
            ("layer", *there), [(layer, *row) for layer, *row in zip(layers, *there.values(), strict=True)]
        ),
        narrow={
            "height": 900,
            "margin.t": 150,
            "legend.font.size": 11,
            "legend2.font.size": 11,
            "legend3.font.size": 11,
            "yaxis.domain": [0.58, 1.0],
            "yaxis2.domain": [0.30, 0.47],
            "yaxis3.domain": [0.0, 0.19],
            "legend2.y": 0.475,
            "legend3.y": 0.195,
        },
    )


def _words(words: Estimate) -> str:
    """Where a bag of words stands; on other questions than the curves, which is said."""
    return (
        f" Dash-dotted: a bag of words, {number(words.value)} {interval(words, number)}, each question left out in turn; the curves are of "
        "the questions of one half."
    )


def _finding(direction: DirectionView) -> str:
    """What the chosen layer reads, by the verdict of its controls, and how far the first two layers come."""
    report, chosen = direction.report, direction.chosen_layer
    if report is None or report.auroc is None:
        found = f"Layer {chosen} was chosen; no AUROC on held-out questions was recorded"
    else:
        bounds = interval(Estimate(value=report.auroc, low=report.low, high=report.high), number)
        found = (
            f"Layer {chosen} reads held-out questions at AUROC {number(report.auroc)} {bounds}: "
            f"{report.verdict or 'no verdict was recorded'}"
        )
    early = [
        value
        for layer, value in zip(direction.layers, direction.report_auroc, strict=False)
        if layer in EARLIEST and value is not None
    ]
    if not early or len(direction.layers) <= len(EARLIEST):
        return found
    return f"{found}; layers 0-1, which read words, reach {number(max(early))}"
