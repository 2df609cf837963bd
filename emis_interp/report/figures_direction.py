"""Turns what is known of the misalignment direction into figures: by layer, between arms, as projections of texts."""

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from emis_interp.report.style import FAINT, INK, ArmStyle, hover, layout, number, with_choices
from emis_interp.results import Cosines, Curve, DirectionView, Projections

N_BINS = 40
TEXT_KINDS = {"own_answers": "own answers", "aligned_texts": "aligned texts", "misaligned_texts": "misaligned texts"}


def layers_figure(direction: DirectionView) -> go.Figure:
    """Three panels over the layers: AUROC with its controls, stability, norms. The chosen layer is marked."""
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
    curve(1, "selection questions", direction.selection_auroc, color="#E69F00", dash="dash")
    curve(1, "report questions", direction.report_auroc, color="#0072B2")
    curve(2, "split-half cosine", direction.split_half_cosine, color="#009E73")
    curve(2, "share of the five largest dimensions", direction.top5_dims_share, color="#CC79A7", dash="dash")
    curve(3, "raw difference of the means", direction.raw_norm, color="#D55E00")
    curve(3, "mean residual norm", direction.residual_norm, color=INK, dash="dash")
    if direction.layer_range is not None:
        low, high = direction.layer_range
        figure.add_vrect(x0=low - 0.5, x1=high + 0.5, fillcolor="#0072B2", opacity=0.05, line_width=0, layer="below")
    figure.add_vline(x=direction.chosen_layer, line={"color": INK, "width": 1.3, "dash": "dot"})
    legend = {"orientation": "h", "yanchor": "bottom", "x": 0}
    figure.update_layout(layout(720, showlegend=True, margin={"l": 70, "r": 24, "t": 66, "b": 52}))
    tops = [axis.domain[1] for axis in (figure.layout.yaxis, figure.layout.yaxis2, figure.layout.yaxis3)]
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
    return figure


def cosines_figure(direction: DirectionView, styles: dict[str, ArmStyle]) -> go.Figure | None:
    """Left: cosines between the arms' directions at the chosen layer. Right: cosine with base's, layer by layer."""
    cosines = direction.cosines
    if cosines is None and not direction.cosines_to_base:
        return None
    figure = make_subplots(
        rows=1,
        cols=2,
        column_widths=[0.45, 0.55],
        horizontal_spacing=0.14,
        subplot_titles=[f"between arms, layer {direction.chosen_layer}", "with the direction of base, by layer"],
    )
    if cosines is not None:
        figure.add_trace(_heatmap(cosines), row=1, col=1)
        figure.update_yaxes(autorange="reversed", showgrid=False, ticks="", row=1, col=1)
        figure.update_xaxes(showgrid=False, ticks="", tickangle=-40, row=1, col=1)
    for arm, values in direction.cosines_to_base.items():
        style = styles[arm]
        texts = [
            f"{arm}, layer {layer}: {number(value)}" for layer, value in zip(direction.layers, values, strict=True)
        ]
        figure.add_scatter(
            row=1,
            col=2,
            name=arm,
            x=direction.layers,
            y=values,
            mode="lines+markers",
            marker={"size": 5, "symbol": style.symbol},
            line={"color": style.color, "width": 1.8},
            hovertext=[hover(text) for text in texts],
            hoverinfo="text",
        )
    figure.add_vline(x=direction.chosen_layer, line={"color": INK, "width": 1.2, "dash": "dot"}, row=1, col=2)  # pyright: ignore[reportArgumentType]
    figure.update_xaxes(title_text="layer", row=1, col=2)
    figure.update_yaxes(title_text="cosine", row=1, col=2)
    n_arms = len(cosines.arms) if cosines else 4
    longest = max((len(name) for name in (cosines.arms if cosines else ())), default=0)
    room = 7 * max(0, longest - 11)  # pixels that slanted names need beyond those of short ones
    height = max(380, 130 + 46 * n_arms)
    legend = {"orientation": "h", "yanchor": "top", "y": -0.22 - room / height, "xanchor": "right", "x": 1}
    margin = {"l": 60, "r": 24, "t": 48, "b": 90 + room}
    figure.update_layout(layout(height + room, showlegend=True, legend=legend, margin=margin))
    return figure


def _heatmap(cosines: Cosines) -> go.Heatmap:
    pairs = [[(a, b) for b in cosines.arms] for a in cosines.arms]
    return go.Heatmap(
        x=cosines.arms,
        y=cosines.arms,
        z=cosines.matrix,
        zmin=-1,
        zmax=1,
        colorscale="RdBu",
        reversescale=True,
        showscale=False,
        text=[[number(value, 2) for value in row] for row in cosines.matrix],
        texttemplate="%{text}",
        hovertext=[
            [hover(f"{a} and {b}: {number(value, 4)}") for (a, b), value in zip(names, row, strict=True)]
            for names, row in zip(pairs, cosines.matrix, strict=True)
        ],
        hoverinfo="text",
        xgap=2,
        ygap=2,
    )


def projections_figure(projections: Projections, styles: dict[str, ArmStyle]) -> go.Figure | None:
    """One histogram per arm below the other on common bins, means marked; a dropdown chooses the texts."""
    arms = list(projections.arms)
    values = {kind: {arm: getattr(projections.arms[arm], kind) for arm in arms} for kind in TEXT_KINDS}
    everything = [value for by_arm in values.values() for numbers in by_arm.values() for value in numbers]
    if not everything:
        return None
    low, high = min(everything), max(everything)
    width = (high - low) / N_BINS or 1.0
    figure = make_subplots(rows=len(arms), cols=1, shared_xaxes=True, vertical_spacing=0.15 / max(len(arms), 2))
    owner = []
    for kind, by_arm in values.items():
        for row, arm in enumerate(arms, 1):
            numbers = by_arm[arm]
            counts = [0] * N_BINS
            for value in numbers:
                counts[min(int((value - low) / width), N_BINS - 1)] += 1
            edges = [low + index * width for index in range(N_BINS)]
            share = [count / len(numbers) for count in counts] if numbers else [None] * N_BINS
            figure.add_bar(
                row=row,
                col=1,
                x=[edge + width / 2 for edge in edges],
                y=share,
                width=width,
                marker={"color": styles[arm].color, "opacity": 0.75},
                hovertext=[
                    hover(
                        f"{arm}, {TEXT_KINDS[kind]}",
                        f"{number(edge)} to {number(edge + width)}: {count} of {len(numbers)} texts",
                    )
                    for edge, count in zip(edges, counts, strict=True)
                ],
                hoverinfo="text",
            )
            mean = sum(numbers) / len(numbers) if numbers else None
            label = (
                f"  mean {number(mean)} (n = {len(numbers)})" if numbers else "–  no texts of this kind were projected"
            )
            figure.add_scatter(
                row=row,
                col=1,
                x=[mean if mean is not None else low],
                y=[max([s for s in share if s is not None], default=1.0) * 1.12],
                mode="markers+text" if numbers else "text",
                text=[label],
                textposition="middle right",
                textfont={"size": 12},
                marker={"symbol": "triangle-down", "size": 9, "color": INK},
                hoverinfo="skip",
            )
            owner += [kind, kind]
    figure.update_layout(
        layout(70 + 84 * len(arms), showlegend=False, bargap=0, margin={"l": 60, "r": 24, "t": 12, "b": 52})
    )
    for row, arm in enumerate(arms, 1):
        figure.update_yaxes(tickformat=".0%", nticks=3, rangemode="tozero", row=row, col=1)
        figure.add_annotation(
            xref="paper",
            x=0.004,
            xanchor="left",
            yref=f"y{row if row > 1 else ''} domain",
            y=1.02,
            yanchor="top",
            showarrow=False,
            text=f"<b>{hover(arm)}</b>",
            font={"color": styles[arm].color},
        )
    figure.update_xaxes(range=[low - 0.12 * (high - low) - width, high + width])
    figure.update_xaxes(title_text=f"projection on the direction ({projections.unit})", row=len(arms), col=1)
    choices = [(text, [mine == kind for mine in owner], {}) for kind, text in TEXT_KINDS.items()]
    return with_choices(figure, "Texts", choices)
