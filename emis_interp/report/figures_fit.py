"""Turns how a direction's layer was chosen, what steering along it does, and its 2x2 into figures of the fit page."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from emis_interp.report.figures_transfer import COLORS, effects_figure
from emis_interp.report.style import FAINT, INK, error_bars, hover, interval, layout, number, signed, with_choices
from emis_interp.results import Estimate

EFFECTS = (
    "text_in_organism",
    "text_in_base",
    "text",
    "model_on_misaligned",
    "model_on_aligned",
    "model",
    "interaction",
)


def candidates_figure(candidates: Sequence[Mapping[str, Any]], chosen: int, kl_limit: float) -> go.Figure:
    """Effect of steering (top) and cost of ablating (bottom) of every candidate layer; dropped ones are hollow, a star is the choice."""
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.08)
    layers = [row["layer"] for row in candidates]
    words = [
        hover(
            f"layer {row['layer']}: effect {signed(row['effect'], 4)}, KL {number(row['kl'], 4)}, AUROC {number(row['auroc'])}",
            f"dropped: {row['dropped']}" if row["dropped"] else "chosen" if row["layer"] == chosen else "kept",
        )
        for row in candidates
    ]
    symbols = [
        "circle-open" if row["dropped"] else "star" if row["layer"] == chosen else "circle" for row in candidates
    ]
    sizes = [15 if symbol == "star" else 8 for symbol in symbols]
    for place, (key, color) in enumerate((("effect", "#0072B2"), ("kl", "#D55E00")), 1):
        figure.add_scatter(
            row=place,
            col=1,
            x=layers,
            y=[row[key] for row in candidates],
            mode="lines+markers",
            marker={"symbol": symbols, "size": sizes, "color": color, "line": {"width": 1.5, "color": color}},
            line={"color": color, "width": 1.4},
            hovertext=words,
            hoverinfo="text",
        )
    figure.add_hline(y=0, line={"color": INK, "width": 1}, row=1, col=1)  # pyright: ignore[reportArgumentType]
    figure.add_hline(y=kl_limit, line={"color": FAINT, "dash": "dot"}, row=2, col=1)  # pyright: ignore[reportArgumentType]
    figure.update_yaxes(title_text="effect (nats per token)", row=1, col=1)
    figure.update_yaxes(title_text="KL of ablating (nats, log scale)", type="log", row=2, col=1)
    figure.update_xaxes(title_text="layer (decoder block, 0-based)", row=2, col=1)
    figure.update_layout(layout(460, showlegend=False, margin={"l": 60, "r": 24, "t": 12, "b": 52}))
    return figure


def margin_dose_figure(dose: Mapping[str, Sequence[Mapping[str, Any]]]) -> go.Figure:
    """Margin shift against the coefficient, with intervals; the random direction of the same norm is dashed and hollow."""
    figure = go.Figure()
    for name, points in dose.items():
        is_random = name == "random"
        estimates = [Estimate.model_validate(point) for point in points] + [Estimate(value=0.0)]
        coefficients = [point["coefficient"] for point in points] + [0.0]
        order = sorted(range(len(coefficients)), key=lambda i: coefficients[i])
        estimates, coefficients = [estimates[i] for i in order], [coefficients[i] for i in order]
        color = FAINT if is_random else "#D55E00"
        figure.add_scatter(
            name="random direction of the same norm" if is_random else name,
            x=coefficients,
            y=[one.value for one in estimates],
            error_y=error_bars(estimates) | {"color": color},
            mode="lines+markers",
            line={"color": color, "width": 1.4 if is_random else 2.4, "dash": "dash" if is_random else "solid"},
            marker={"size": 9, "symbol": "circle-open" if is_random else "circle", "color": color},
            hovertext=[
                hover(f"{name}, {signed(c, 2)}: {signed(one.value)} {interval(one)}" if c else "no steering: 0")
                for c, one in zip(coefficients, estimates, strict=True)
            ],
            hoverinfo="text",
        )
    figure.add_hline(y=0, line={"color": INK, "width": 1})
    figure.update_layout(
        layout(
            400,
            showlegend=True,
            xaxis={"title": {"text": "coefficient, multiples of the mean residual norm"}},
            yaxis={"title": {"text": "margin shift (nats per token)"}},
        )
    )
    return figure


def two_by_two_figure(cosines: Mapping[str, Sequence[float]], layer: int) -> go.Figure:
    """All 21 cosines of a 2x2 (`a|b` -> by layer): a dropdown chooses one effect, the lines are its cosines with the others."""
    figure, owner = go.Figure(), []
    colors = dict(zip(EFFECTS, COLORS, strict=True))
    for effect in EFFECTS:
        curves = {
            other: cosines.get(f"{effect}|{other}") or cosines[f"{other}|{effect}"]
            for other in EFFECTS
            if other != effect
        }
        drawn: Any = effects_figure(curves, "cosine", layer)
        for trace in drawn.data:
            trace.line.color = colors[trace.name]
            figure.add_trace(trace)
            owner.append(effect)
    figure.update_layout(effects_figure({}, "cosine", layer).layout)
    figure.update_yaxes(range=[-1.05, 1.05])
    choices = [(effect, [mine == effect for mine in owner], {}) for effect in EFFECTS]
    return with_choices(figure, "Cosines with", choices)
