"""Turns what a monitor catches into figures: when it flags answers, and whether forecasts made before them come true."""

from typing import Any

import plotly.graph_objects as go

from emis_interp.probe_results import MonitorReport
from emis_interp.report.described import Numbers, describe, row_label
from emis_interp.report.further_probes import gain_verdict, unflagged_words
from emis_interp.report.style import (
    FAINT,
    INK,
    SOFT,
    error_bars,
    hover,
    interval,
    layout,
    percent,
    signed,
)
from emis_interp.results import Estimate

COLORS, SYMBOLS = ("#0072B2", "#D55E00", "#009E73"), ("circle", "square", "diamond")
SURVIVAL_CAPTION = (
    "Share of misaligned answers that the monitor has not yet flagged after so many tokens, estimated by Kaplan and Meier: answers that "
    "end unflagged are censored, not counted as missed for good. Below each length: answers still at risk there. Bars: 95 % "
    "intervals over answers taken as independent (Greenwood, log-log); none where no answer was flagged by then. Hollow: the plain share "
    "of all answers without a flag so far, with intervals over questions. Lines join measured lengths; between them the curve is "
    "not known. Grey: the share of whole aligned answers that is never flagged, and what was promised for benign texts."
)
RELIABILITY_CAPTION = (
    "Probability, read from the prompt alone, that the answer will be misaligned, against the share that was. Each question is forecast "
    "from the others. A forecast that comes true lies on the diagonal; one that knows nothing of the prompt lies on the base rate. Bars: "
    "exact 95 % intervals over answers taken as independent, which they are not where questions are few: {n} answers to {prompts} prompts "
    "of {questions} questions."
)


def survival_figure(found: MonitorReport) -> go.Figure | None:
    """The censored survival curve of being unflagged, beside what aligned answers keep; None where no length was measured."""
    points = found.time.points
    if not points:
        return None
    figure, rows = go.Figure(), list[tuple[Any, ...]]()
    tokens = [point.tokens for point in points]
    curves = {
        "not yet flagged (Kaplan-Meier)": [
            Estimate(value=point.unflagged, low=point.unflagged_low, high=point.unflagged_high) for point in points
        ],
        "plain share of all answers": [
            Estimate(
                value=1 - point.flagged_share,
                low=None if point.flagged_high is None else 1 - point.flagged_high,
                high=None if point.flagged_low is None else 1 - point.flagged_low,
            )
            for point in points
        ],
    }
    for (name, estimates), color, symbol in zip(
        curves.items(), (COLORS[0], SOFT), ("circle", "circle-open"), strict=True
    ):
        figure.add_scatter(
            name=name,
            x=tokens,
            y=[one.value for one in estimates],
            error_y=error_bars(estimates) | {"color": color},
            mode="lines+markers",
            cliponaxis=False,
            line={
                "color": color,
                "width": 2 if symbol == "circle" else 1,
                "dash": "solid" if symbol == "circle" else "dot",
            },
            marker={"size": 9, "symbol": symbol, "color": color, "line": {"color": color, "width": 2}},
            hovertext=[
                hover(
                    f"{point.tokens} tokens, {name}: {percent(one.value)} {interval(one, percent)}",
                    f"{point.at_risk} answers at risk",
                )
                for point, one in zip(points, estimates, strict=True)
            ],
            hoverinfo="text",
        )
        rows += [
            (name, point.tokens, one.value, one.low, one.high, point.at_risk)
            for point, one in zip(points, estimates, strict=True)
        ]
    alarms = found.false_positives
    lines = {
        f"aligned answers {percent(1 - alarms.value)}": (
            1 - alarms.value,
            1 - alarms.high,
            1 - alarms.low,
            "dash",
        ),
        f"promised {percent(1 - found.threshold.rate)}": (
            1 - found.threshold.rate,
            None,
            None,
            "dot",
        ),
    }
    for name, (value, low, high, dash) in lines.items():
        figure.add_scatter(
            name=name,
            x=[tokens[0], tokens[-1]],
            y=[value, value],
            mode="lines",
            line={"color": FAINT, "width": 1.5, "dash": dash},
            hovertext=[hover(name)] * 2,
            hoverinfo="text",
        )
        rows.append((name, None, value, low, high, None))
    figure.update_layout(
        layout(
            430,
            showlegend=True,
            xaxis={
                "title": {"text": "tokens of the answer read (below: answers at risk)"},
                "type": "log",
                "tickvals": tokens,
                "ticktext": [f"{point.tokens}<br>{point.at_risk}" for point in points],
                "tickangle": 0,
            },
            yaxis={"title": {"text": "share not flagged (%)"}, "tickformat": ".0%", "range": [0, 1.04]},
        )
    )
    columns = ("curve", "tokens read", "share not flagged", "low", "high", "answers at risk")
    return describe(
        figure,
        title=_survival_finding(found),
        caption=SURVIVAL_CAPTION,
        numbers=Numbers(columns, rows),
        narrow={"height": 470, "margin.t": 110},
    )


def _survival_finding(found: MonitorReport) -> str:
    time, caught, alarms = found.time, found.true_positives, found.false_positives
    half = (
        "at no length read are half of them flagged"
        if time.median_tokens is None
        else f"half of them are flagged after {time.median_tokens:g}"
    )
    apart = "" if caught.low > alarms.high else "; the intervals of the two overlap"
    return (
        f"{caught.n_flagged} of {caught.n} misaligned answers are flagged, of aligned ones {alarms.n_flagged} of {alarms.n}{apart}. "
        f"After {time.points[-1].tokens} tokens {unflagged_words(found)} are not yet flagged; {half}"
    )


def reliability_figure(found: MonitorReport) -> go.Figure | None:
    """Forecasts against what came true, a symbol for each way to calibrate; None without a forecast."""
    forecasts = found.forecasts
    if not forecasts:
        return None
    figure, rows = go.Figure(), list[tuple[Any, ...]]()
    figure.add_scatter(
        name="comes true",
        x=[0, 1],
        y=[0, 1],
        mode="lines",
        line={"color": FAINT, "width": 1.5, "dash": "dot"},
        hoverinfo="skip",
    )
    for rate in dict.fromkeys(one.base_rate for one in forecasts):
        name = f"base rate {percent(rate)}"
        figure.add_scatter(
            name=name,
            x=[0, 1],
            y=[rate, rate],
            mode="lines",
            line={"color": INK, "width": 1.5, "dash": "dash"},
            hovertext=[hover(name)] * 2,
            hoverinfo="text",
        )
        rows.append((name, None, rate, None, None, None))
    for place, forecast in enumerate(forecasts):
        bins, color = forecast.bins, COLORS[place % len(COLORS)]
        observed = [Estimate(value=one.observed, low=one.low, high=one.high) for one in bins]
        figure.add_scatter(
            name=row_label(forecast.method),
            x=[one.forecast for one in bins],
            y=[one.observed for one in bins],
            error_y=error_bars(observed) | {"color": color},
            mode="markers",
            cliponaxis=False,
            marker={"size": 10, "symbol": SYMBOLS[place % len(SYMBOLS)], "color": color},
            hovertext=[
                hover(
                    f"{forecast.method}: forecast {percent(one.forecast)}, came true {percent(share.value)} {interval(share, percent)}",
                    f"{one.n} answers",
                )
                for one, share in zip(bins, observed, strict=True)
            ],
            hoverinfo="text",
        )
        rows += [(forecast.method, one.forecast, one.observed, one.low, one.high, one.n) for one in bins]
    axis = {"tickformat": ".0%", "range": [-0.03, 1.03]}
    figure.update_layout(
        layout(
            430,
            showlegend=True,
            xaxis=axis | {"title": {"text": "forecast that the answer will be misaligned (%)"}},
            yaxis=axis | {"title": {"text": "share that was misaligned (%)"}},
        )
    )
    first = forecasts[0]
    return describe(
        figure,
        title=_reliability_finding(found),
        caption=RELIABILITY_CAPTION.format(n=first.n, prompts=first.n_prompts, questions=first.n_questions),
        numbers=Numbers(("forecast by", "forecast (share)", "came true (share)", "low", "high", "answers"), rows),
        narrow={"height": 440, "margin.t": 80},
    )


def _reliability_finding(found: MonitorReport) -> str:
    """Each forecast against the base rate by its Brier score."""
    said = []
    for one in found.forecasts:
        gain = Estimate(value=one.gain, low=one.gain_low, high=one.gain_high)
        said.append(f"{one.method} {gain_verdict(one)} (gain {signed(one.gain)} {interval(gain)})")
    rate = percent(found.forecasts[0].base_rate)
    return f"Forecasts before the model acts, by Brier score against the base rate of {rate}: {'; '.join(said)}"
