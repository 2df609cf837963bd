"""Turns projections of texts on the direction into histograms: aligned and misaligned texts over each other, own answers as a line."""

from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots
from scipy import stats

from emis_interp.report.described import Numbers, describe, row_label
from emis_interp.report.style import INK, ArmStyle, hover, layout, number, signed
from emis_interp.results import Projections

N_BINS = 40
TEXT_KINDS = {"aligned_texts": "aligned texts", "misaligned_texts": "misaligned texts", "own_answers": "own answers"}
CAPTION = (
    "Each text is read by the arm, averaged over its response tokens and projected on the direction; right is the misaligned side. Grey: "
    "aligned texts, outlined: misaligned texts, both of the report questions, which had no part in the direction. Line: the arm's own "
    "answers. Heights are shares of the texts of a kind, all arms have the same bins, triangles mark the mean of the own answers."
)
MOST_ARMS = 4
ROW_ARMS = 96
TOP = 64


def projections_figure(projections: Projections, styles: dict[str, ArmStyle]) -> go.Figure | None:
    """One panel per arm below the other on common bins."""
    arms = list(projections.arms)
    values = {arm: {kind: list(getattr(projections.arms[arm], kind)) for kind in TEXT_KINDS} for arm in arms}
    everything = [value for by_kind in values.values() for numbers in by_kind.values() for value in numbers]
    if not everything:
        return None
    low, high = min(everything), max(everything)
    width = (high - low) / N_BINS or 1.0
    edges = [low + index * width for index in range(N_BINS)]
    figure = make_subplots(rows=len(arms), cols=1, shared_xaxes=True, vertical_spacing=0.22 / max(len(arms), 2))
    rows: list[tuple[object, ...]] = []
    first = dict.fromkeys(TEXT_KINDS, True)
    for place, arm in enumerate(arms, 1):
        tallest = 0.0
        for kind, name in TEXT_KINDS.items():
            numbers = values[arm][kind]
            if not numbers:
                continue
            counts = [0] * N_BINS
            for value in numbers:
                counts[min(int((value - low) / width), N_BINS - 1)] += 1
            shares = [count / len(numbers) for count in counts]
            tallest = max(tallest, *shares)
            words = [
                hover(f"{arm}, {name}", f"{number(edge)} to {number(edge + width)}: {count} of {len(numbers)} texts")
                for edge, count in zip(edges, counts, strict=True)
            ]
            shared = {
                "name": name,
                "legendgroup": kind,
                "showlegend": first[kind],
                "hovertext": words,
                "hoverinfo": "text",
            }
            first[kind] = False
            centres = [edge + width / 2 for edge in edges]
            if kind == "own_answers":
                figure.add_scatter(
                    row=place,
                    col=1,
                    x=centres,
                    y=shares,
                    mode="lines",
                    line={"color": styles[arm].color, "width": 2.4, "shape": "hvh"},
                    **shared,
                )
            else:
                figure.add_bar(row=place, col=1, x=centres, y=shares, width=width, marker=_fill(kind), **shared)
            rows += [
                (arm, name, edge, edge + width, share, count)
                for edge, share, count in zip(edges, shares, counts, strict=True)
            ]
        own = values[arm]["own_answers"]
        if own:
            figure.add_scatter(
                row=place,
                col=1,
                x=[_mean(own)],
                y=[1.1 * tallest],
                mode="markers",
                marker={
                    "symbol": "triangle-down",
                    "size": 10,
                    "color": styles[arm].color,
                    "line": {"color": INK, "width": 1},
                },
                hovertext=[hover(f"{arm}: mean of {len(own)} own answers {signed(_mean(own))}")],
                hoverinfo="text",
                showlegend=False,
            )
            rows.append((arm, "own answers, mean", _mean(own), _mean(own), None, len(own)))
    legend = {"orientation": "h", "yanchor": "bottom", "y": 1.0 + 20 / max(ROW_ARMS * len(arms), 1), "x": 0}
    figure.update_layout(
        layout(
            TOP + 60 + ROW_ARMS * len(arms),
            showlegend=True,
            legend=legend,
            barmode="overlay",
            bargap=0,
            margin={"l": 60, "r": 24, "t": TOP, "b": 52},
        )
    )
    for row, arm in enumerate(arms, 1):
        figure.update_yaxes(tickformat=".0%", nticks=3, rangemode="tozero", row=row, col=1)
        figure.add_annotation(
            xref="paper",
            x=0.0,
            xanchor="left",
            yref=f"y{row if row > 1 else ''} domain",
            y=1.0,
            yanchor="bottom",
            showarrow=False,
            text=f"<b>{hover(arm)}</b>{_counts(values[arm])}",
            font={"size": 12, "color": INK},
        )
    figure.update_xaxes(range=[low - width, high + width])
    figure.update_xaxes(title_text=f"projection on the direction ({projections.unit})", row=len(arms), col=1)
    return describe(
        figure,
        title=_finding(values),
        caption=CAPTION,
        numbers=Numbers(
            ("arm", "texts", f"from ({projections.unit})", "to", "share of the texts", "texts counted"), rows
        ),
        narrow={"margin.t": 92}
        | {f"annotations[{place}].text": f"<b>{row_label(arm, 30)}</b>" for place, arm in enumerate(arms)},
    )


def _finding(values: dict[str, dict[str, list[float]]]) -> str:
    """How often a misaligned text lies above an aligned one; of own answers only where their means lie."""
    order = [
        share
        for by_kind in values.values()
        if (share := above(by_kind["misaligned_texts"], by_kind["aligned_texts"])) is not None
    ]
    parts = []
    if order:
        reach = (
            number(min(order), 2)
            if number(min(order), 2) == number(max(order), 2)
            else f"{number(min(order), 2)} to {number(max(order), 2)}"
        )
        parts.append(
            f"A misaligned text lies above an aligned one in a share of {reach} of their pairs (chance 0.50, questions mixed)"
        )
    means = [
        f"{arm} {signed(_mean(by_kind['own_answers']), 3)}" for arm, by_kind in values.items() if by_kind["own_answers"]
    ]
    if means:
        more = f" and {len(means) - MOST_ARMS} more" if len(means) > MOST_ARMS else ""
        parts.append(f"mean own answers {', '.join(means[:MOST_ARMS])}{more}, without intervals no comparison")
    return "; ".join(parts) or "No texts were projected"


def above(upper: Sequence[float], lower: Sequence[float]) -> float | None:
    """Share of pairs in which the first is larger, ties half (AUROC); None where there are no pairs."""
    if not upper or not lower:
        return None
    return float(stats.mannwhitneyu(upper, lower).statistic) / (len(upper) * len(lower))


def _fill(kind: str) -> dict[str, object]:
    if kind == "aligned_texts":
        return {"color": "#b9c2ce"}
    return {"color": "rgba(255, 255, 255, 0)", "line": {"color": INK, "width": 1.3}}


def _counts(by_kind: dict[str, list[float]]) -> str:
    return f": {len(by_kind['aligned_texts'])} aligned, {len(by_kind['misaligned_texts'])} misaligned, {len(by_kind['own_answers'])} own"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
