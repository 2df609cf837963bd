"""Turns the cells of steering into a figure: dose and response beside control directions, on the same pairs, and what they cost."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from emis_interp.report.answer_links import AnswerLinks
from emis_interp.report.cards import KL_LIMIT, LEAST_CONTROLS, beyond_controls, control_shifts
from emis_interp.report.contents import Contents
from emis_interp.report.described import Numbers, describe, narrow_panels, row_label
from emis_interp.report.style import (
    INK,
    SOFT,
    ArmStyle,
    error_bars,
    faded,
    hover,
    interval,
    layout,
    number,
    percent,
    signed,
)
from emis_interp.report.summary import CONTROL_NAMES
from emis_interp.results import CellView, Estimate

NOTHING = Estimate()
CAPTION = (
    "Solid: the misalignment direction on all pairs, with 95 % intervals over questions. Grey band: from the smallest to the largest shift "
    "along control directions of the same norm{kinds}, each a dot, on {n_pairs} of the pairs; the star is the misalignment direction on "
    "those same pairs, and is what the band is to be compared with. Dashed and hollow: one random direction on all pairs. Shifts are "
    "against the same arm without intervention; the cross at 0 is that arm's own score. KL is the change of the next-token distribution on "
    "harmless prompts; the dotted line is at 0.1 nats, which Arditi et al. (2024) accept of an ablation."
)
PANELS = (
    "margin shift (nats per token)",
    "KL on harmless prompts (nats)",
    "mean aligned score (0-100)",
    "mean coherent score (0-100)",
)
PICKS: tuple[Callable[[CellView], Estimate], ...] = (
    lambda cell: cell.margin_shift or NOTHING,
    lambda cell: Estimate(value=cell.kl_neutral),
    lambda cell: cell.mean_aligned or NOTHING,
    lambda cell: cell.mean_coherent or NOTHING,
)
NO_CHANGE = {0: "no steering: shift 0 by definition", 1: "no steering: KL 0 by definition"}
COLUMNS = ("cell", "coefficient (mean residual norms)", "direction", "measure", "value", "low", "high")


@dataclass
class _Drawing:
    """A figure in the making, and the numbers that were drawn into it."""

    figure: go.Figure
    links: AnswerLinks
    rows: list[tuple[object, ...]] = field(default_factory=list)


def steering_figure(contents: Contents, styles: dict[str, ArmStyle]) -> go.Figure | None:
    """Dose-response: margin shift with the band of control directions, cost and scores against the coefficient."""
    cells = [cell for cell in contents.interventions.cells if cell.kind == "steer"] if contents.interventions else []
    if not cells:
        return None
    figure = make_subplots(rows=2, cols=2, subplot_titles=PANELS, horizontal_spacing=0.1, vertical_spacing=0.17)
    drawing = _Drawing(figure, AnswerLinks(contents))
    for arm, direction in dict.fromkeys((cell.arm, cell.direction) for cell in cells):
        dose = sorted(
            (cell for cell in cells if (cell.arm, cell.direction) == (arm, direction)),
            key=lambda cell: cell.coefficient or 0.0,
        )
        if direction != "random":
            _band(drawing, dose, arm)
        _lines(drawing, dose, color=styles[arm].color, is_random=direction == "random")
        if direction != "random":
            _same_pairs(drawing, dose, color=styles[arm].color)
            _unsteered(drawing, contents, arm, color=styles[arm].color)
    figure.add_hline(y=0, line={"color": INK, "width": 1}, row=1, col=1)  # pyright: ignore[reportArgumentType]
    figure.add_hline(y=KL_LIMIT, line={"color": INK, "width": 1, "dash": "dot"}, row=1, col=2)  # pyright: ignore[reportArgumentType]
    figure.update_xaxes(title_text="coefficient (× mean residual norm)", row=2)
    figure.update_yaxes(rangemode="tozero", row=1, col=2)
    figure.update_yaxes(range=[0, 103], row=2)
    legend = {"orientation": "h", "yanchor": "bottom", "y": 1.07, "x": 0}
    figure.update_layout(layout(660, showlegend=True, legend=legend, margin={"l": 60, "r": 24, "t": 96, "b": 52}))
    drawn = [cell.draws for cell in cells if cell.draws]
    traces: Any = figure.data
    n_lines = sum(trace.showlegend is not False for trace in traces)
    return describe(
        figure,
        title=_finding(cells),
        caption=CAPTION.format(kinds=kinds_of(cells), n_pairs=drawn[0].n_pairs if drawn else "no"),
        numbers=Numbers(COLUMNS, drawing.rows),
        narrow=narrow_panels(figure, dict.fromkeys(("", "2", "3", "4"), 270), legend=60 + 20 * n_lines),
    )


def _lines(drawing: _Drawing, dose: Sequence[CellView], *, color: str, is_random: bool) -> None:
    """One line in each panel."""
    arm, direction = dose[0].arm, dose[0].direction
    for place, pick in enumerate(PICKS):
        points = [(cell.coefficient or 0.0, pick(cell), cell_hover(cell), cell) for cell in dose]
        drawing.rows += [
            (cell.cell, x, direction, PANELS[place], one.value, one.low, one.high)
            for x, one, _, cell in points
            if one.value is not None
        ]
        known = [
            (x, one, text, drawing.links.to(cell.cell, order="low") if cell.n else None)
            for x, one, text, cell in points
        ]
        if place in NO_CHANGE:
            known.append((0.0, Estimate(value=0.0), hover(arm, NO_CHANGE[place]), None))
        known.sort(key=lambda point: point[0])
        drawing.figure.add_scatter(
            row=place // 2 + 1,
            col=place % 2 + 1,
            name=row_label(f"{arm}, {'one random' if is_random else direction} direction"),
            legendgroup=f"{arm} {direction}",
            showlegend=place == 0,
            x=[x for x, *_ in known],
            y=[one.value for _, one, *_ in known],
            error_y=error_bars([one for _, one, *_ in known]) | {"color": faded(color, 0.7)},
            mode="lines+markers",
            line={"color": color, "width": 1.4 if is_random else 2.4, "dash": "dash" if is_random else "solid"},
            marker={"size": 9, "symbol": "circle-open" if is_random else "circle", "color": color},
            hovertext=[text for _, _, text, _ in known],
            hoverinfo="text",
            customdata=[link for *_, link in known],
        )


def _band(drawing: _Drawing, dose: Sequence[CellView], arm: str) -> None:
    """What control directions reach at every coefficient, all kinds together, and a dot for each."""
    drawn = [(cell, [x for shifts in cell.draws.shifts.values() for x in shifts]) for cell in dose if cell.draws]
    drawn = [(cell, shifts) for cell, shifts in drawn if shifts]
    if not drawn:
        return
    edges = sorted([(cell.coefficient or 0.0, min(shifts), max(shifts)) for cell, shifts in drawn] + [(0.0, 0.0, 0.0)])
    drawing.figure.add_scatter(
        row=1,
        col=1,
        name=row_label(f"{arm}, control directions"),
        legendgroup=f"{arm} controls",
        x=[x for x, *_ in edges] + [x for x, *_ in edges[::-1]],
        y=[low for _, low, _ in edges] + [high for *_, high in edges[::-1]],
        mode="lines",
        fill="toself",
        fillcolor="rgba(86, 97, 110, 0.22)",
        line={"width": 0, "color": SOFT},
        hoverinfo="skip",
    )
    for cell, _ in drawn:
        assert cell.draws is not None
        for kind, shifts in cell.draws.shifts.items():
            name = CONTROL_NAMES.get(kind, kind)
            drawing.figure.add_scatter(
                row=1,
                col=1,
                showlegend=False,
                legendgroup=f"{arm} controls",
                x=[cell.coefficient] * len(shifts),
                y=shifts,
                mode="markers",
                marker={"size": 5, "symbol": "circle-open" if kind == "random" else "diamond-open", "color": SOFT},
                hovertext=[
                    hover(f"{arm}, {name} direction", f"margin shift {signed(y, 4)} on {cell.draws.n_pairs} pairs")
                    for y in shifts
                ],
                hoverinfo="text",
            )
            drawing.rows += [(cell.cell, cell.coefficient, f"{name} control", PANELS[0], y, None, None) for y in shifts]


def _same_pairs(drawing: _Drawing, dose: Sequence[CellView], *, color: str) -> None:
    """The direction's own shift on the pairs of its controls."""
    drawn = [(cell.cell, cell.coefficient, cell.draws) for cell in dose if cell.draws]
    if not drawn:
        return
    drawing.figure.add_scatter(
        row=1,
        col=1,
        name=row_label(f"{dose[0].arm}, on the pairs of the controls"),
        legendgroup=f"{dose[0].arm} controls",
        x=[coefficient for _, coefficient, _ in drawn],
        y=[draws.own for *_, draws in drawn],
        mode="markers",
        marker={"size": 12, "symbol": "star", "color": color, "line": {"color": INK, "width": 1}},
        hovertext=[
            hover(name, f"margin shift {signed(draws.own, 4)} on {draws.n_pairs} pairs") for name, _, draws in drawn
        ],
        hoverinfo="text",
    )
    drawing.rows += [
        (name, x, "misalignment, pairs of the controls", PANELS[0], draws.own, None, None) for name, x, draws in drawn
    ]


def _unsteered(drawing: _Drawing, contents: Contents, arm: str, *, color: str) -> None:
    """The arm without intervention, at coefficient 0 of the two score panels."""
    rates = contents.rates_of(arm)
    for col, estimate in enumerate((rates.mean_aligned, rates.mean_coherent) if rates else (), 1):
        if estimate is not None and estimate.value is not None:
            drawing.figure.add_scatter(
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
                customdata=[drawing.links.to(arm, order="low")],
            )
            drawing.rows.append((arm, 0, "none", PANELS[1 + col], estimate.value, estimate.low, estimate.high))


def _finding(cells: Sequence[CellView]) -> str:
    """The strongest shift to either side, how it compares with control directions, and the cost."""
    own = [
        cell
        for cell in cells
        if cell.direction != "random" and cell.margin_shift and cell.margin_shift.value is not None
    ]
    if not own:
        return "Steering along the misalignment direction: no margins were measured"
    ends = {min(own, key=_moved).cell, max(own, key=_moved).cell}
    parts = [
        f"{cell.model} by {cell.coefficient:+g}: {signed(_moved(cell))} {interval(cell.margin_shift)}".replace("-", "−")
        for cell in own
        if cell.cell in ends and cell.margin_shift
    ]
    costly = [cell for cell in own if cell.kl_neutral is not None and cell.kl_neutral > KL_LIMIT]
    cost = (
        f"; {len(costly)} of {len(own)} cells cost more than {KL_LIMIT:g} nats of KL on harmless prompts"
        if costly
        else ""
    )
    return f"Steering shifts the margin ({', '.join(parts)} nats per token); {beside_controls(own)}{cost}"


def _moved(cell: CellView) -> float:
    return (cell.margin_shift.value if cell.margin_shift else None) or 0.0


def beside_controls(cells: Sequence[CellView]) -> str:
    """Whether the direction goes beyond control directions, where there are enough of them to say so."""
    drawn = [cell for cell in cells if control_shifts(cell.draws)]
    if not drawn:
        return "no control directions stand beside it, so that it is not told from any direction"
    fewest = min(len(control_shifts(cell.draws)) for cell in drawn)
    if fewest < LEAST_CONTROLS:
        return f"{fewest} control directions of a kind are too few for a verdict ({LEAST_CONTROLS} are needed)"
    n_beyond = sum(beyond_controls(cell) for cell in drawn)
    return f"farther than control directions in {n_beyond} of {len(drawn)} cells (p at most 0.05 against {fewest} or more of each kind)"


def kinds_of(cells: Sequence[CellView]) -> str:
    """`(2 random, 2 usage-matched)`: how many control directions of each kind a cell has, the fewest."""
    counts: dict[str, int] = {}
    for cell in cells:
        for kind, shifts in cell.draws.shifts.items() if cell.draws else ():
            counts[kind] = min(counts.get(kind, len(shifts)), len(shifts))
    told = ", ".join(f"{n} {CONTROL_NAMES.get(kind, kind)}" for kind, n in counts.items())
    return f" ({told})" if told else ""


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
