"""Turns the cells of ablation into a figure: the margin without the direction beside that without control directions, and the cost."""

from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from emis_interp.report.answer_links import AnswerLinks
from emis_interp.report.cards import KL_LIMIT
from emis_interp.report.contents import Contents
from emis_interp.report.described import LABELS_ABOVE, Numbers, describe, narrow_panels, row_label
from emis_interp.report.figures_interventions import NOTHING, beside_controls, cell_hover, kinds_of
from emis_interp.report.style import INK, SOFT, ArmStyle, error_bars, hover, interval, layout, signed
from emis_interp.report.summary import CONTROL_NAMES
from emis_interp.results import CellView, Estimate, Interventions

CAPTION = (
    "Filled: the direction is projected out at every layer, on all pairs, with 95 % intervals over questions; below 0 the arm becomes less "
    "misaligned. Grey bar: from the smallest to the largest shift when control directions are projected out instead{kinds}, each a dot, on "
    "a part of the pairs; the star is the misalignment direction on those same pairs. Hollow: one random direction on all pairs. Right: "
    "what it costs on harmless prompts; the dotted line is at 0.1 nats (Arditi et al. 2024). It is specific to "
    "misaligned arms only where it moves them more than their controls."
)
ROOM = {"direction": 0.24, "band": 0.0, "random": -0.24}
"""Where the marks of an arm stand within its row."""
PANELS = ("margin shift (nats per token)", "KL on harmless prompts (nats)")


def ablation_figure(contents: Contents, styles: dict[str, ArmStyle]) -> go.Figure | None:
    """One row per model: margin shift (left) and KL (right) of the direction, of a random one, and the band of control directions."""
    found = contents.interventions
    cells = [cell for cell in found.cells if cell.kind == "ablate"] if found else []
    if found is None or not cells:
        return None
    models = list(dict.fromkeys(cell.model for cell in cells))
    figure = make_subplots(
        rows=1, cols=2, subplot_titles=PANELS, horizontal_spacing=0.06, shared_yaxes=True, column_widths=[0.6, 0.4]
    )
    links, rows = AnswerLinks(contents), list[tuple[object, ...]]()
    for cell in cells:
        base, color = len(models) - 1 - models.index(cell.model), styles[cell.arm].color
        is_random = cell.direction == "random"
        _band(figure, cell, base + ROOM["band"], color=color, rows=rows)
        for col, estimate in enumerate((cell.margin_shift or NOTHING, Estimate(value=cell.kl_neutral)), 1):
            if estimate.value is None:
                continue
            figure.add_scatter(
                row=1,
                col=col,
                showlegend=False,
                x=[estimate.value],
                y=[base + ROOM["random" if is_random else "direction"]],
                error_x=error_bars([estimate]) | {"color": color},
                mode="markers",
                marker={
                    "size": 12,
                    "symbol": "square-open" if is_random else "square",
                    "color": color,
                    "line": {"width": 2, "color": color},
                },
                hovertext=[cell_hover(cell)],
                hoverinfo="text",
                customdata=[links.to(cell.cell, order="low") if cell.n else None],
            )
            rows.append((cell.model, cell.direction, PANELS[col - 1], estimate.value, estimate.low, estimate.high))
    _legend(figure, cells)
    figure.add_vline(x=0, line={"color": INK, "width": 1}, row=1, col=1)  # pyright: ignore[reportArgumentType]
    figure.add_vline(x=KL_LIMIT, line={"color": INK, "width": 1, "dash": "dot"}, row=1, col=2)  # pyright: ignore[reportArgumentType]
    figure.update_yaxes(
        tickvals=list(range(len(models))),
        ticktext=[row_label(model) for model in models[::-1]],
        range=[-0.6, len(models) - 0.4],
        showgrid=False,
    )
    figure.update_xaxes(rangemode="tozero", row=1, col=2)
    height = 170 + 78 * len(models)
    legend = {"orientation": "h", "yanchor": "top", "y": -46 / (height - 130), "x": 0}
    figure.update_layout(layout(height, showlegend=True, legend=legend, margin={"l": 60, "r": 24, "t": 60, "b": 90}))
    panel = 90 + 100 * len(models)
    narrow = narrow_panels(figure, {"": panel, "2": panel}, legend=120) | {
        LABELS_ABOVE: {"yaxis": [36, 36], "yaxis2": [36, 36]}
    }
    return describe(
        figure,
        title=_finding(found, cells),
        caption=CAPTION.format(kinds=kinds_of(cells)),
        numbers=Numbers(("model", "direction projected out", "measure", "value", "low", "high"), rows),
        narrow=narrow,
    )


def _band(figure: go.Figure, cell: CellView, y: float, *, color: str, rows: list[tuple[object, ...]]) -> None:
    """Control directions of a cell, and the direction itself on the same pairs."""
    draws = cell.draws
    shifts = [(kind, x) for kind, mine in draws.shifts.items() for x in mine] if draws else []
    if draws is None or not shifts:
        return
    reached = [x for _, x in shifts]
    figure.add_scatter(
        row=1,
        col=1,
        showlegend=False,
        x=[min(reached), max(reached)],
        y=[y, y],
        mode="lines",
        line={"color": "rgba(86, 97, 110, 0.3)", "width": 16},
        hoverinfo="skip",
    )
    names = [CONTROL_NAMES.get(kind, kind) for kind, _ in shifts]
    figure.add_scatter(
        row=1,
        col=1,
        showlegend=False,
        x=reached,
        y=[y] * len(reached),
        mode="markers",
        marker={
            "size": 5,
            "symbol": ["circle-open" if kind == "random" else "diamond-open" for kind, _ in shifts],
            "color": SOFT,
        },
        hovertext=[
            hover(f"{cell.model}, {name} direction: {signed(x, 4)} on {draws.n_pairs} pairs")
            for name, x in zip(names, reached, strict=True)
        ],
        hoverinfo="text",
    )
    figure.add_scatter(
        row=1,
        col=1,
        showlegend=False,
        x=[draws.own],
        y=[y],
        mode="markers",
        marker={"size": 12, "symbol": "star", "color": color, "line": {"color": INK, "width": 1}},
        hovertext=[hover(f"{cell.model}, {cell.direction} direction: {signed(draws.own, 4)} on {draws.n_pairs} pairs")],
        hoverinfo="text",
    )
    rows += [(cell.model, f"{name} control", PANELS[0], x, None, None) for name, x in zip(names, reached, strict=True)]
    rows.append((cell.model, f"{cell.direction}, pairs of the controls", PANELS[0], draws.own, None, None))


def _legend(figure: go.Figure, cells: Sequence[CellView]) -> None:
    """What the marks are, whatever their colour."""
    marks = [("misalignment direction", {"symbol": "square", "size": 11, "color": INK})]
    if any(cell.direction == "random" for cell in cells):
        marks.append(("one random direction", {"symbol": "square-open", "size": 11, "color": INK}))
    if any(cell.draws for cell in cells):
        marks.append(("control directions", {"symbol": "circle-open", "size": 7, "color": SOFT}))
        marks.append(("misalignment, on their pairs", {"symbol": "star", "size": 12, "color": INK}))
    for name, marker in marks:
        figure.add_scatter(row=1, col=1, x=[None], y=[None], mode="markers", marker=marker, name=name, hoverinfo="skip")


def _finding(found: Interventions, cells: Sequence[CellView]) -> str:
    """How far each arm's margin moves, whether more in misaligned arms, and whether control directions do as much."""
    own = [
        cell
        for cell in cells
        if cell.direction != "random" and cell.margin_shift and cell.margin_shift.value is not None
    ]
    if not own:
        return "Ablating the misalignment direction: no margins were measured"
    moved = ", ".join(f"{cell.model} {signed(cell.margin_shift.value)}" for cell in own[:4] if cell.margin_shift)
    return f"Ablating shifts the margin ({moved}): {_specific(found)}; {beside_controls(own)}"


def _specific(found: Interventions) -> str:
    """Whether the ablation lowers the margin of an arm more than that of its control, beyond random directions."""
    if not found.interactions:
        return "whether it is specific to misaligned arms was not tested"
    rows = "; ".join(
        f"{row.arm} − {row.reference} {signed(row.value)} {interval(row)}" for row in found.interactions[:3]
    )
    specific = [row.arm for row in found.interactions if row.high is not None and row.high < 0]
    if specific:
        return f"lower in {', '.join(specific)} than in its control ({rows})"
    return f"not specific to misaligned arms ({rows})"
