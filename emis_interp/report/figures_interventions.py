"""Turns the cells of steering and ablation into figures, always beside a random direction of the same norm."""

from collections.abc import Callable

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from emis_interp.report.contents import Contents
from emis_interp.report.style import INK, ArmStyle, error_bars, faded, hover, interval, layout, number, percent, signed
from emis_interp.report.summary import CONTROL_NAMES
from emis_interp.results import CellView, Estimate, Interventions

NOTHING = Estimate()
DRAW_SYMBOLS = {"random": "circle-open", "orthogonal": "diamond-open"}


def steering_figure(contents: Contents, styles: dict[str, ArmStyle]) -> go.Figure | None:
    """Dose-response: margin shift, cost and scores against the coefficient; random directions dashed and hollow."""
    cells = [cell for cell in contents.interventions.cells if cell.kind == "steer"] if contents.interventions else []
    if not cells:
        return None
    panels: list[tuple[str, Callable[[CellView], Estimate]]] = [
        ("margin shift (nats per token)", lambda cell: cell.margin_shift or NOTHING),
        ("KL on harmless prompts (nats)", lambda cell: Estimate(value=cell.kl_neutral)),
        ("mean aligned score (0-100)", lambda cell: cell.mean_aligned or NOTHING),
        ("mean coherent score (0-100)", lambda cell: cell.mean_coherent or NOTHING),
    ]
    no_change = {0: "no steering: shift 0 by definition", 1: "no steering: KL 0 by definition"}
    figure = make_subplots(
        rows=2, cols=2, subplot_titles=[title for title, _ in panels], horizontal_spacing=0.09, vertical_spacing=0.17
    )
    for arm, direction in dict.fromkeys((cell.arm, cell.direction) for cell in cells):
        dose = [cell for cell in cells if (cell.arm, cell.direction) == (arm, direction)]
        color, is_random = styles[arm].color, direction == "random"
        for place, (_, pick) in enumerate(panels):
            points = [(cell.coefficient or 0.0, pick(cell), cell_hover(cell)) for cell in dose]
            if place in no_change:
                points.append((0.0, Estimate(value=0.0), hover(arm, no_change[place])))
            points.sort(key=lambda point: point[0])
            estimates = [estimate for _, estimate, _ in points]
            figure.add_scatter(
                row=place // 2 + 1,
                col=place % 2 + 1,
                name=f"{arm}, {direction} direction",
                legendgroup=f"{arm} {direction}",
                showlegend=place == 0,
                x=[x for x, _, _ in points],
                y=[e.value for e in estimates],
                error_y=error_bars(estimates) | {"color": faded(color, 0.7)},
                mode="lines+markers",
                line={"color": color, "width": 1.4 if is_random else 2.4, "dash": "dash" if is_random else "solid"},
                marker={"size": 9, "symbol": "circle-open" if is_random else "circle", "color": color},
                hovertext=[text for _, _, text in points],
                hoverinfo="text",
            )
        if not is_random:
            _mark_draws(figure, dose, arm, color=color)
            _mark_unsteered(figure, contents, arm, color=color)
    figure.add_hline(y=0, line={"color": INK, "width": 1}, row=1, col=1)  # pyright: ignore[reportArgumentType]
    figure.update_xaxes(title_text="coefficient (× mean residual norm)", row=2)
    figure.update_yaxes(rangemode="tozero", row=1, col=2)
    figure.update_yaxes(range=[0, 103], row=2)
    legend = {"orientation": "h", "yanchor": "bottom", "y": 1.07, "x": 0}
    figure.update_layout(layout(640, showlegend=True, legend=legend, margin={"l": 60, "r": 24, "t": 76, "b": 52}))
    return figure


def _mark_unsteered(figure: go.Figure, contents: Contents, arm: str, *, color: str) -> None:
    """The arm without intervention, at coefficient 0 of the two score panels."""
    rates = contents.rates_of(arm)
    for col, estimate in enumerate((rates.mean_aligned, rates.mean_coherent) if rates else (), 1):
        if estimate is not None and estimate.value is not None:
            figure.add_scatter(
                row=2,
                col=col,
                x=[0],
                y=[estimate.value],
                error_y=error_bars([estimate]),
                mode="markers",
                showlegend=False,
                marker={"size": 11, "symbol": "x", "color": color},
                hovertext=[hover(f"{arm} without steering: {number(estimate.value, 1)}", f"n = {estimate.n}")],
                hoverinfo="text",
            )


def ablation_figure(interventions: Interventions, styles: dict[str, ArmStyle]) -> go.Figure | None:
    """Bars per arm: margin shift and KL after projecting a direction out; random directions hatched."""
    cells = [cell for cell in interventions.cells if cell.kind == "ablate"]
    if not cells:
        return None
    titles = ["margin shift (nats per token)", "KL on harmless prompts (nats)"]
    figure = make_subplots(rows=1, cols=2, subplot_titles=titles, horizontal_spacing=0.09)
    for cell in cells:
        color, is_random = styles[cell.arm].color, cell.direction == "random"
        for col, estimate in enumerate((cell.margin_shift or NOTHING, Estimate(value=cell.kl_neutral)), 1):
            figure.add_bar(
                row=1,
                col=col,
                name=cell.cell,
                offsetgroup=cell.direction,
                showlegend=False,
                x=[cell.model],
                y=[estimate.value],
                error_y=error_bars([estimate]) | {"color": INK},
                marker={
                    "color": faded(color, 0.25) if is_random else color,
                    "line": {"color": color, "width": 1.2},
                    "pattern": {"shape": "/" if is_random else "", "fgcolor": color, "bgcolor": "white", "size": 6},
                },
                hovertext=[cell_hover(cell)],
                hoverinfo="text",
            )
    for direction in dict.fromkeys(cell.direction for cell in cells):
        fill, kind = ("white", "hatched") if direction == "random" else (INK, "solid")
        marker = {"symbol": "square", "size": 11, "color": fill, "line": {"color": INK, "width": 1.5}}
        figure.add_scatter(
            row=1, col=1, x=[None], y=[None], mode="markers", marker=marker, name=f"{direction} direction ({kind})"
        )
    figure.add_hline(y=0, line={"color": INK, "width": 1}, row=1, col=1)  # pyright: ignore[reportArgumentType]
    figure.update_yaxes(rangemode="tozero", row=1, col=2)
    legend = {"orientation": "h", "yanchor": "bottom", "y": 1.12, "x": 0}
    figure.update_layout(
        layout(
            390,
            barmode="group",
            bargap=0.3,
            showlegend=True,
            legend=legend,
            margin={"l": 60, "r": 24, "t": 84, "b": 52},
        )
    )
    return figure


def _mark_draws(figure: go.Figure, dose: list[CellView], arm: str, *, color: str) -> None:
    """Small dots: margin shifts along control directions, on a few of the pairs."""
    for kind, symbol in DRAW_SYMBOLS.items():
        shifts = [(cell.coefficient, x) for cell in dose if cell.draws for x in cell.draws.shifts.get(kind, ())]
        if shifts:
            name = CONTROL_NAMES.get(kind, kind)
            figure.add_scatter(
                row=1,
                col=1,
                name=f"{name} directions",
                legendgroup=f"{arm} {kind} draws",
                x=[x for x, _ in shifts],
                y=[y for _, y in shifts],
                mode="markers",
                marker={"size": 5, "symbol": symbol, "color": faded(color, 0.6)},
                hovertext=[hover(f"{arm}, {name} direction", f"margin shift {signed(y, 4)}") for _, y in shifts],
                hoverinfo="text",
            )


def cell_hover(cell: CellView) -> str:
    """Every number of one cell."""
    shift, em = cell.margin_shift or NOTHING, cell.em_of_all or NOTHING
    aligned, coherent = cell.mean_aligned or NOTHING, cell.mean_coherent or NOTHING
    return hover(
        cell.cell,
        f"added norm {number(cell.raw_norm, 2)}" if cell.raw_norm is not None else "",
        f"margin shift {signed(shift.value, 4)} {interval(shift)}",
        f"{shift.n_positive} of {shift.n_questions} questions positive"
        if isinstance(shift, type(cell.margin_shift))
        else "",
        f"KL {number(cell.kl_neutral, 4)} nats",
        f"{cell.n} answers{f', {cell.n_code} of them CODE' if cell.n_code else ''}: "
        f"aligned {number(aligned.value, 1)}, coherent {number(coherent.value, 1)}"
        if cell.n
        else "no answers sampled",
        f"em_of_all {percent(em.value)} {interval(em, percent)}" if em.value is not None else "",
    )
