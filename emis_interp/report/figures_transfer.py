"""Turns matrices of arms against arms, effects of a 2x2 by layer, and a frontier search into figures."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from emis_interp.report.described import Numbers, describe
from emis_interp.report.style import MISSING, ORANGE, SKY, arm_styles, hover, layout, number
from emis_interp.results import DirectionView, Estimate, TransferCell

SCALE = [[0.0, "#0072B2"], [0.5, "#ffffff"], [1.0, "#D55E00"]]
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", ORANGE, "#30363d", SKY)


TRANSFER_CAPTION = (
    "Texts of the report questions, read by one model (columns), projected on the direction of another model's selection questions "
    "(rows), at layer {layer}: AUROC within questions, white is chance. Directions of shuffled labels reach {high}. Models that read the "
    "same texts alike give the same matrix everywhere: a direction that works in every model is a property of the texts as much as of the "
    "models."
)


def transfer_figure(direction: DirectionView) -> go.Figure | None:
    """Every model's direction in every model's reading."""
    cells = direction.transfer
    models = list(dict.fromkeys(name for pair in cells for name in pair.split("|")))
    if len(models) < 2:
        return None
    figure = matrix_figure(cells, models, 0.5)
    rows = [
        (*pair.split("|"), cell.value, cell.low, cell.high, cell.shuffled_high, cell.p_holm)
        for pair, cell in cells.items()
    ]
    columns = ("direction of", "applied in", "AUROC", "low", "high", "shuffled labels (97.5th percentile)", "p (Holm)")
    highs = [cell.shuffled_high for cell in cells.values() if cell.shuffled_high is not None]
    caption = TRANSFER_CAPTION.format(
        layer=direction.chosen_layer, high=f"up to {number(max(highs))}" if highs else "no figure here"
    )
    return describe(figure, title=_transferred(cells), caption=caption, numbers=Numbers(columns, rows), narrow={})


def _transferred(cells: Mapping[str, TransferCell]) -> str:
    """What the cells of different models say, beside their own shuffled labels."""
    across = {pair: cell for pair, cell in cells.items() if len(set(pair.split("|"))) > 1 and cell.value is not None}
    if not across:
        return "No direction was applied in another model"
    told = [
        cell
        for cell in across.values()
        if cell.shuffled_high is not None and (cell.value or 0) > cell.shuffled_high and (cell.p_holm or 1) < 0.05
    ]
    values = [cell.value or 0 for cell in across.values()]
    span = f"AUROC {number(min(values))} to {number(max(values))}"
    if len(told) == len(across):
        return f"Every model's direction reads the others' texts beyond shuffled labels: {span}"
    return f"{len(told)} of {len(across)} directions read another model's texts beyond shuffled labels: {span}"


def matrix_figure(
    rows: Mapping[str, Estimate],
    arms: Sequence[str],
    middle: float,
    *,
    digits: int = 2,
    axes: tuple[str, str] | None = ("direction of", "applied in"),
) -> go.Figure:
    """Heat map of `i|j` estimates: row i is the direction's arm, column j where it is applied (`axes` names both; None for a matrix of
    names against themselves); white is `middle`."""
    rows_are, columns_are = axes or ("", "")
    table = [[rows.get(f"{i}|{j}") for j in arms] for i in arms]
    values = [[None if cell is None else cell.value for cell in row] for row in table]
    far = max((abs(value - middle) for row in values for value in row if value is not None), default=1.0) or 1.0
    figure = go.Figure()
    figure.add_heatmap(
        x=list(arms),
        y=list(arms),
        z=values,
        text=[[number(value, digits) for value in row] for row in values],
        texttemplate="%{text}",
        hovertext=[
            [
                hover(f"{f'{rows_are} {i}, {columns_are} {j}' if axes else f'{i} and {j}'}: {_words(cell, digits)}")
                for j, cell in zip(arms, row, strict=True)
            ]
            for i, row in zip(arms, table, strict=True)
        ],
        hoverinfo="text",
        colorscale=SCALE,
        zmin=middle - far,
        zmax=middle + far,
        xgap=2,
        ygap=2,
        showscale=False,
    )
    figure.update_layout(
        layout(
            120 + 44 * len(arms),
            xaxis={"title": {"text": columns_are}, "showgrid": False},
            yaxis={"title": {"text": rows_are}, "autorange": "reversed", "showgrid": False},
            margin={"l": 60, "r": 24, "t": 12, "b": 60},
        )
    )
    return figure


def effects_figure(curves: Mapping[str, Sequence[float | None]], title: str, layer: int) -> go.Figure:
    """One line over the layers for each arm, in its colour on every page; the dotted line is the layer of the matrices."""
    figure, styles = go.Figure(), arm_styles(list(curves))
    for name, values in curves.items():
        figure.add_scatter(
            x=list(range(len(values))),
            y=list(values),
            mode="lines+markers",
            name=name,
            line={"color": styles[name].color},
            marker={"size": 5, "symbol": styles[name].symbol},
            hovertext=[hover(f"layer {i}, {name}: {number(value)}") for i, value in enumerate(values)],
            hoverinfo="text",
        )
    figure.add_vline(x=layer, line={"color": "#1f2933", "dash": "dot"})
    figure.update_layout(
        layout(380, xaxis={"title": {"text": "layer (decoder block, 0-based)"}}, yaxis={"title": {"text": title}})
    )
    return figure


def dose_figure(
    layers: Sequence[Mapping[str, Any]], field: str, title: str, *, floor: float | None = None
) -> go.Figure:
    """`field` of every measured point of a frontier search against the coefficient, one line per layer; a star marks the best."""
    figure = go.Figure()
    for index, row in enumerate(layers):
        color, points = COLORS[index % len(COLORS)], sorted(row["points"], key=lambda point: point["coefficient"])
        figure.add_scatter(
            x=[point["coefficient"] for point in points],
            y=[point[field] for point in points],
            mode="lines+markers",
            name=f"layer {row['layer']}",
            line={"color": color},
        )
        if row["best"] is not None:
            figure.add_scatter(
                x=[row["best"]["coefficient"]],
                y=[row["best"][field]],
                mode="markers",
                marker={"symbol": "star", "size": 15, "color": color},
                showlegend=False,
                hovertext=hover(f"layer {row['layer']}: best {row['best']['coefficient']:+.3f}"),
                hoverinfo="text",
            )
    if floor is not None:
        figure.add_hline(y=floor, line={"color": "#8a94a3", "dash": "dot"})
    axis = {"title": {"text": "coefficient, multiples of the mean residual norm"}}
    figure.update_layout(layout(380, xaxis=axis, yaxis={"title": {"text": title}}))
    return figure


def _words(cell: Estimate | None, digits: int) -> str:
    if cell is None or cell.value is None:
        return MISSING
    p = "" if cell.p_holm is None else f", p {number(cell.p_holm)} (Holm, over the table)"
    if cell.low is None or cell.high is None:
        return number(cell.value, digits) + p
    return f"{number(cell.value, digits)} [{number(cell.low, digits)}, {number(cell.high, digits)}]{p}"
