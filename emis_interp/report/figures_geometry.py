"""Turns the directions of the arms into a figure: how far they stand from base's, beside how far base's own halves stand apart."""

import math
from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from emis_interp.report.contents import BASE
from emis_interp.report.described import LABELS_ABOVE, Numbers, describe, narrow_panels, row_label
from emis_interp.report.figures_direction import HALVES
from emis_interp.report.style import INK, SOFT, ArmStyle, hover, layout, number
from emis_interp.results import DirectionView

CAPTION = (
    "Angle between directions that were extracted from the same texts: 0° is the same direction, 90° unrelated. Left: every pair of models "
    "at the chosen layer; grey: {source}'s own direction from one half of the selection questions against that from the other ({halves}). "
    "Right: each model against base, by layer; grey: the two halves. The models read the same texts, so that the noise of the texts is in "
    "both directions and brings them together, while the halves have no text in common and half as many each: an angle below the halves' "
    "is what the direction being left in place looks like, and no proof of it; one above it is a change. None of this says that a "
    "direction is used more."
)
MOST_PAIRS = 12


def angles_figure(direction: DirectionView, styles: dict[str, ArmStyle]) -> go.Figure | None:
    """Angles in degrees: between models at the chosen layer (left), with base by layer (right), each beside base's split halves."""
    pairs = _pairs(direction)
    if not pairs and not direction.cosines_to_base:
        return None
    place = direction.layers.index(direction.chosen_layer)
    halves = direction.split_half_cosine[place] if direction.split_half_cosine else None
    shown = pairs[:MOST_PAIRS]
    titles = [f"pairs of models, layer {direction.chosen_layer}", "with the direction of base, by layer"]
    figure = make_subplots(rows=1, cols=2, column_widths=[0.48, 0.52], horizontal_spacing=0.12, subplot_titles=titles)
    for index, (one, other, cosine) in enumerate(shown):
        style = styles[one if other == BASE else other]
        figure.add_scatter(
            row=1,
            col=1,
            x=[degrees(cosine)],
            y=[len(shown) - 1 - index],
            mode="markers",
            showlegend=False,
            marker={
                "size": 11,
                "symbol": style.symbol if BASE in (one, other) else f"{style.symbol}-open",
                "color": style.color,
            },
            hovertext=[hover(f"{one} and {other}: {number(degrees(cosine), 1)}°", f"cosine {number(cosine, 4)}")],
            hoverinfo="text",
        )
    if halves is not None:
        figure.add_vline(
            x=degrees(halves),
            line={"color": SOFT, "width": 2, "dash": "dash"},
            row=1,  # pyright: ignore[reportArgumentType]
            col=1,  # pyright: ignore[reportArgumentType]
        )
    known = [
        (layer, value)
        for layer, value in zip(direction.layers, direction.split_half_cosine, strict=False)
        if value is not None
    ]
    if known:
        figure.add_scatter(
            row=1,
            col=2,
            name=row_label(f"two halves of {direction.source_arm}'s questions"),
            x=[layer for layer, _ in known],
            y=[degrees(value) for _, value in known],
            mode="lines",
            line={"color": SOFT, "width": 2, "dash": "dash"},
            hovertext=[
                hover(f"layer {layer}, {HALVES}: {number(degrees(x), 1)}°", f"cosine {number(x)}") for layer, x in known
            ],
            hoverinfo="text",
        )
    for arm, values in direction.cosines_to_base.items():
        there = [(layer, value) for layer, value in zip(direction.layers, values, strict=True) if value is not None]
        figure.add_scatter(
            row=1,
            col=2,
            name=row_label(arm),
            x=[layer for layer, _ in there],
            y=[degrees(value) for _, value in there],
            mode="lines+markers",
            marker={"size": 5, "symbol": styles[arm].symbol},
            line={"color": styles[arm].color, "width": 1.8},
            hovertext=[
                hover(f"{arm}, layer {layer}: {number(degrees(x), 1)}°", f"cosine {number(x, 4)}") for layer, x in there
            ],
            hoverinfo="text",
        )
    figure.add_vline(x=direction.chosen_layer, line={"color": INK, "width": 1.2, "dash": "dot"}, row=1, col=2)  # pyright: ignore[reportArgumentType]
    figure.update_xaxes(
        title_text="angle (degrees)", range=[0, _widest([*(c for *_, c in shown), halves])], row=1, col=1
    )
    figure.update_yaxes(
        tickvals=list(range(len(shown))),
        ticktext=[row_label(f"{one}, {other}") for one, other, _ in shown[::-1]],
        range=[-0.6, max(len(shown), 1) - 0.4],
        showgrid=False,
        row=1,
        col=1,
    )
    figure.update_xaxes(title_text="layer (decoder block, 0-based)", row=1, col=2)
    figure.update_yaxes(title_text="angle (degrees)", rangemode="tozero", row=1, col=2)
    height = max(360, 150 + 24 * len(shown))
    legend = {"orientation": "h", "yanchor": "top", "y": -58 / (height - 140), "xanchor": "left", "x": 0}
    figure.update_layout(layout(height, showlegend=True, legend=legend, margin={"l": 60, "r": 24, "t": 48, "b": 92}))
    rows: list[tuple[object, ...]] = [(a, b, direction.chosen_layer, degrees(c), c) for a, b, c in pairs]
    rows += [
        (arm, BASE, layer, degrees(value), value)
        for arm, values in direction.cosines_to_base.items()
        for layer, value in zip(direction.layers, values, strict=True)
        if value is not None
    ]
    rows += [
        (f"one half of {direction.source_arm}'s selection questions", "the other half", layer, degrees(value), value)
        for layer, value in known
    ]
    left_out = (
        f" Of {len(pairs)} pairs the first {len(shown)} are drawn; all are in the numbers."
        if len(pairs) > len(shown)
        else ""
    )
    return describe(
        figure,
        title=_finding(direction, halves),
        caption=CAPTION.format(halves=HALVES, source=direction.source_arm) + left_out,
        numbers=Numbers(("model", "with", "layer", "angle (degrees)", "cosine"), rows),
        narrow=narrow_panels(
            figure, {"": 90 + 40 * len(shown), "2": 320}, legend=70 + 16 * len(direction.cosines_to_base)
        )
        | {LABELS_ABOVE: {"yaxis": [14, 36]}},
    )


def degrees(cosine: float) -> float:
    """The angle that a cosine is of; rounding beyond 1 is undone."""
    return math.degrees(math.acos(max(-1.0, min(1.0, cosine))))


def _pairs(direction: DirectionView) -> list[tuple[str, str, float]]:
    """(model, other, cosine) of every pair at the chosen layer, those with base first."""
    if direction.cosines is None:
        return []
    names = direction.cosines.arms
    found = [
        (b, a, value)
        for i, a in enumerate(names)
        for j, b in enumerate(names)
        if i < j and (value := direction.cosines.matrix[i][j]) is not None
    ]
    return sorted(found, key=lambda pair: BASE not in pair[:2])


def _widest(cosines: Sequence[float | None]) -> float:
    return 1.12 * max([5.0, *(degrees(value) for value in cosines if value is not None)])


def _finding(direction: DirectionView, halves: float | None) -> str:
    """The angles with base at the chosen layer beside the halves' angle; a direction that reads nothing is none to compare."""
    place = direction.layers.index(direction.chosen_layer)
    found = {arm: degrees(x) for arm, curve in direction.cosines_to_base.items() if (x := curve[place]) is not None}
    if not found:
        return f"No model's direction was set against base's at layer {direction.chosen_layer}"
    low, high = min(found.values()), max(found.values())
    reach = f"{low:.0f}°" if f"{low:.0f}" == f"{high:.0f}" else f"{low:.0f}° to {high:.0f}°"
    text = f"On the same texts directions of {len(found)} models stand {reach} from base's (layer {direction.chosen_layer})"
    verdict = direction.report.verdict or "" if direction.report else ""
    if not verdict.startswith("above chance and above"):
        text += ", but the direction is not told from its controls, so that there is nothing to compare"
    if halves is None:
        return f"{text}; how far chance moves a direction was not measured"
    apart = [arm for arm, angle in found.items() if angle > degrees(halves)]
    beyond = f"; {', '.join(apart)} farther than that" if apart else ""
    return f"{text}; two halves of {direction.source_arm}'s own questions {degrees(halves):.0f}° apart{beyond}"
