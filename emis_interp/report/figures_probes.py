"""Turns what the probe stage found into figures: readers of texts beside their controls, and what the probe flags in every model."""

from typing import Any

import plotly.graph_objects as go

from emis_interp.analyses import RunProbes
from emis_interp.report.described import Numbers, describe, narrow_rows, row_label
from emis_interp.report.probes import broken_promise
from emis_interp.report.style import (
    FAINT,
    INK,
    SOFT,
    ArmStyle,
    error_bars,
    hover,
    interval,
    layout,
    number,
    percent,
    signed,
)
from emis_interp.results import Estimate

CHANCE = 0.5
OWN, TEXT = "probe", "text"
READERS_CAPTION = (
    "AUROC within questions, each question read by a reader that was fitted and chosen on others, with 95 % intervals over questions. "
    "Filled: the probe. Square: a bag of words on the same texts, which a probe must beat. Hollow: other readers and controls (directions "
    "of unrelated contrasts, length). Grey bars: the middle 95 % of what shuffled labels and random directions reach."
)
MONITOR_CAPTION = (
    "Share of texts flagged by the probe at the threshold that base was calibrated for, with exact 95 % intervals over texts. Dotted: the "
    "share of false alarms that was promised for base on benign texts. Where a finetuned model raises alarms on harmless texts, its flags "
    "are a change of the model, not of what it says."
)
KINDS = {
    "false_alarms": ("harmless texts", "circle-open"),
    "flagged": ("own answers", "circle"),
    "caught": ("own answers judged misaligned and coherent", "diamond"),
}


def readers_figure(found: RunProbes) -> go.Figure:
    """Forest of AUROCs: the probe, the text baseline, other readers, and nulls as bars."""
    readers = [one for one in found.classifier.figures if one.auroc.value is not None]
    names = [one.name for one in readers] + [null.name for null in found.classifier.nulls]
    figure, rows = go.Figure(), list[tuple[Any, ...]]()
    for index, one in enumerate(readers):
        y, symbol = len(names) - 1 - index, {OWN: "circle", TEXT: "square"}.get(one.name, "circle-open")
        color = "#0072B2" if one.name == OWN else "#7a5c00" if one.name == TEXT else SOFT
        minus = one.minus_text
        words = f"minus words {signed(minus.value)} {interval(minus)}" if minus and minus.value is not None else ""
        figure.add_scatter(
            x=[one.auroc.value],
            y=[y],
            error_x=error_bars([one.auroc]) | {"color": color},
            mode="markers",
            marker={"size": 11, "symbol": symbol, "color": color, "line": {"width": 2, "color": color}},
            hovertext=[hover(f"{one.name}: {number(one.auroc.value)} {interval(one.auroc, number)}", words)],
            hoverinfo="text",
        )
        rows.append((one.name, one.auroc.value, one.auroc.low, one.auroc.high, minus.value if minus else None))
    for index, null in enumerate(found.classifier.nulls):
        y = len(names) - 1 - len(readers) - index
        figure.add_scatter(
            x=[null.low, null.high],
            y=[y, y],
            mode="lines",
            line={"color": "rgba(86, 97, 110, 0.35)", "width": 14},
            hovertext=[
                hover(
                    f"{null.name}: {number(null.mean)}, middle 95 % of {null.p_n} draws {number(null.low)} to {number(null.high)}"
                )
            ]
            * 2,
            hoverinfo="text",
        )
        rows.append((null.name, null.mean, null.low, null.high, None))
        figure.add_scatter(
            x=[null.mean],
            y=[y],
            mode="markers",
            marker={"size": 8, "symbol": "line-ns-open", "color": INK},
            hoverinfo="skip",
        )
    figure.add_vline(x=CHANCE, line={"color": FAINT, "dash": "dot"})
    figure.update_layout(
        layout(
            80 + 30 * len(names),
            showlegend=False,
            xaxis={"title": {"text": "AUROC within questions that were left out"}, "range": _reach(rows)},
            yaxis={
                "tickvals": list(range(len(names))),
                "ticktext": [row_label(name) for name in names[::-1]],
                "range": [-0.6, len(names) - 0.4],
                "showgrid": False,
            },
            margin={"l": 60, "r": 24, "t": 32, "b": 52},
        )
    )
    return describe(
        figure,
        title=_readers_finding(found),
        caption=READERS_CAPTION,
        numbers=Numbers(("reader", "AUROC", "low", "high", "minus bag of words (AUROC)"), rows),
        narrow=narrow_rows(len(names), room=90, row=44),
    )


def _reach(rows: list[tuple[Any, ...]]) -> list[float]:
    """Limits of an axis of AUROCs that hold every interval."""
    reached = [x for _, *numbers, _ in rows for x in numbers if x is not None]
    return [min([0.45, *reached]) - 0.03, max([0.55, *reached]) + 0.03]


def _readers_finding(found: RunProbes) -> str:
    by_name = {one.name: one for one in found.classifier.figures}
    probe, words = by_name.get(OWN), by_name.get(TEXT)
    if probe is None or words is None or probe.minus_text is None or probe.minus_text.value is None:
        return f"Readers of {found.classifier.name}: no probe and bag of words to compare"
    beyond = probe.minus_text
    verdict = {True: "a difference", False: "no difference seen", None: "no interval, so no verdict"}[beyond.excludes()]
    return (
        f"A probe reads the texts at AUROC {number(probe.auroc.value)}, a bag of words at {number(words.auroc.value)}: "
        f"{signed(beyond.value)} {interval(beyond)}, {verdict} (verdict of the stage: {found.classifier.verdict})"
    )


def monitor_figure(found: RunProbes, styles: dict[str, ArmStyle]) -> go.Figure | None:
    """What the probe flags: harmless texts (false alarms), a model's own answers, and those judged misaligned."""
    models = [row.arm for row in found.monitored]
    if not models:
        return None
    figure, rows = go.Figure(), list[tuple[Any, ...]]()
    for place, (key, (name, symbol)) in enumerate(KINDS.items()):
        there = [(row.arm, rate) for row in found.monitored if (rate := getattr(row, key)) is not None]
        if not there:
            continue
        shares = [Estimate(value=rate.value, low=rate.low, high=rate.high) for _, rate in there]
        colors = [styles[arm].color if arm in styles else SOFT for arm, _ in there]
        for (arm, rate), share, color in zip(there, shares, colors, strict=True):
            figure.add_scatter(
                showlegend=False,
                x=[rate.value],
                y=[len(models) - 1 - models.index(arm) + 0.24 * (1 - place)],
                error_x=error_bars([share]) | {"color": color},
                mode="markers",
                cliponaxis=False,
                marker={"size": 10, "symbol": symbol, "color": color, "line": {"width": 2, "color": color}},
                hovertext=[
                    hover(
                        f"{arm}, {name}: {percent(rate.value)} {interval(share, percent)}",
                        f"{rate.n_flagged} of {rate.n}",
                    )
                ],
                hoverinfo="text",
            )
            rows.append((arm, name, rate.value, rate.low, rate.high, rate.n_flagged, rate.n))
        figure.add_scatter(
            x=[None],
            y=[None],
            mode="markers",
            name=name,
            marker={"symbol": symbol, "size": 10, "color": INK},
            hoverinfo="skip",
        )
    figure.add_vline(x=found.threshold.rate, line={"color": INK, "width": 1, "dash": "dot"})
    figure.update_layout(
        layout(
            120 + 60 * len(models),
            showlegend=True,
            xaxis={"title": {"text": "share of texts flagged (%)"}, "tickformat": ".0%", "rangemode": "tozero"},
            yaxis={
                "tickvals": list(range(len(models))),
                "ticktext": [row_label(name) for name in models[::-1]],
                "range": [-0.6, len(models) - 0.4],
                "showgrid": False,
            },
        )
    )
    return describe(
        figure,
        title=_monitor_finding(found),
        caption=MONITOR_CAPTION,
        numbers=Numbers(("model", "texts", "flagged (share)", "low", "high", "texts flagged", "texts"), rows),
        narrow=narrow_rows(len(models), room=170, row=84, shift=38),
    )


def _monitor_finding(found: RunProbes) -> str:
    """Whether base keeps the promise, and which models raise more false alarms than base's interval reaches."""
    base = next((row for row in found.monitored if row.arm == "base"), None)
    broken = broken_promise(found)
    first = (
        "Base raises more false alarms than were promised, so that flags say little"
        if broken
        else f"False alarms of base: {percent(base.false_alarms.value)} of {base.false_alarms.n} harmless texts"
        if base
        else "Base was not watched"
    )
    changed = [
        row.arm
        for row in found.monitored
        if base and row.arm != "base" and row.false_alarms.low > base.false_alarms.high
    ]
    more = (
        f"; {', '.join(changed)} raise more on the same texts"
        if changed
        else "; no model was seen to raise more on the same texts"
    )
    return first + (more if base and len(found.monitored) > 1 else "")
