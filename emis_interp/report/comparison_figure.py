"""Turns the contrasts of comparable runs into a forest: under each contrast one row a run, filled where it is primary and counts."""

import plotly.graph_objects as go

from emis_interp.report.comparison import ComparedQuantity
from emis_interp.report.style import FAINT, INK, arm_styles, error_bars, hover, layout
from emis_interp.results import Estimate

_ROW, _GAP, _SHORT = 26, 0.8, 34


def forest_figure(one: ComparedQuantity) -> go.Figure:
    """A row for each contrast and run; a contrast that does not count is grey, one against base (exploratory) hollow."""
    quantity, names = one.quantity, list(one.group.runs)
    styles, figure = arm_styles(names), go.Figure()
    ticks, place = list[tuple[float, str]](), 0.0
    for found in one.contrasts:
        ticks.append((place, f"<b>{_short(found.name)}</b>"))
        for name, row in found.rows.items():
            place -= 1
            ticks.append((place, _short(name)))
            color = FAINT if name in found.doubts else styles[name].color
            shown = Estimate(
                value=_scaled(row.value, quantity.scale),
                low=_scaled(row.low, quantity.scale),
                high=_scaled(row.high, quantity.scale),
            )
            words = [f"{name}: {found.name}", f"{quantity.estimate(row)} {quantity.unit}", found.counts[name]]
            if name in found.doubts:
                words.append(f"does not count: {found.doubts[name]}")
            filled = found.primary and name not in found.doubts
            figure.add_scatter(
                x=[shown.value],
                y=[place],
                mode="markers",
                error_x=error_bars([shown]) | {"color": color},
                marker={
                    "size": 11,
                    "symbol": styles[name].symbol,
                    "color": color if filled else "white",
                    "line": {"color": color, "width": 2},
                },
                hovertext=[hover(*words)],
                hoverinfo="text",
                showlegend=False,
            )
        place -= _GAP + 1
    figure.add_vline(0, line={"color": INK, "width": 1, "dash": "dot"})
    figure.update_layout(layout(90 + round(_ROW * -place), margin={"l": 10, "r": 16, "t": 12, "b": 50}))
    figure.update_xaxes(title_text=f"{quantity.title}, {quantity.unit}")
    figure.update_yaxes(
        tickvals=[y for y, _ in ticks], ticktext=[text for _, text in ticks], range=[place + 0.8, 0.8], showgrid=False
    )
    return figure


def _scaled(value: float | None, scale: float) -> float | None:
    return None if value is None else scale * value


def _short(name: str) -> str:
    """A name for a tick; markup in it is shown, not obeyed."""
    return hover(name if len(name) <= _SHORT else name[: _SHORT - 1] + "…").replace("<br>", " ")
