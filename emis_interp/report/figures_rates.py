"""Turns rates, their thresholds and the judge's calibration into interactive figures."""

import plotly.graph_objects as go

from emis_interp.report.style import (
    FAINT,
    MISSING,
    ROW,
    ArmStyle,
    error_bars,
    faded,
    hover,
    interval,
    layout,
    number,
    percent,
    seed_dots,
    with_choices,
)
from emis_interp.results import ArmRates, JudgeView, Rate, Rates

ESTIMANDS = {
    "em_of_coherent": "misaligned and coherent / coherent answers with an alignment score",
    "em_of_scored": "misaligned and coherent / answers with both scores",
    "em_of_all": "misaligned and coherent / all answers",
}
WEIGHTINGS = {"pooled": "every answer counts once", "macro": "mean of the rates per question"}


def rates_figure(rates: Rates, styles: dict[str, ArmStyle]) -> go.Figure:
    """One row per arm with its interval, and a dot per seed where it has several; a dropdown for estimand x weighting.

    Missing rates show as an en dash.
    """
    figure, owner = go.Figure(), []
    kinds = list(dict.fromkeys((rate.estimand, rate.weighting) for arm in rates.arms for rate in arm.rates))
    arms = [arm.arm for arm in rates.arms]
    top = max([rate.high or rate.value or 0.0 for arm in rates.arms for rate in arm.rates] + [0.02])
    top = max([top, *(own or 0.0 for arm in rates.arms for rate in arm.rates for own in rate.by_model.values())])
    for kind in kinds:
        rows = [(arm, _find(arm, kind)) for arm in rates.arms]
        there = [(arm, rate) for arm, rate in rows if rate is not None and rate.value is not None]
        missing = [arm for arm, rate in rows if rate is None or rate.value is None]
        for arm, rate in there:
            style = styles[arm.arm]
            figure.add_scatter(
                x=[rate.value],
                y=[arm.arm],
                error_x=error_bars([rate]) | {"color": style.color},
                mode="markers",
                marker={"size": 12, "color": style.color, "symbol": style.symbol},
                hovertext=[_rate_hover(arm, rate)],
                hoverinfo="text",
            )
        seeded = [(arm, rate) for arm, rate in there if rate.by_model]
        for arm, rate in seeded:
            figure.add_scatter(**seed_dots(rate, arm.arm, styles[arm.arm].color, show=percent))
        figure.add_scatter(
            x=[(rate.high if rate.high is not None else rate.value) for _, rate in there],
            y=[arm.arm for arm, _ in there],
            mode="text",
            text=[f"   {rate.n_positive} / {rate.n}" for _, rate in there],
            textposition="middle right",
            textfont={"color": FAINT, "size": 12},
            hoverinfo="skip",
        )
        figure.add_scatter(
            x=[0.0 for _ in missing],
            y=[arm.arm for arm in missing],
            mode="text",
            text=[f"  {MISSING} no rate" for _ in missing],
            textposition="middle right",
            textfont={"color": FAINT},
            hovertext=[hover(arm.arm, why_no_rate(arm)) for arm in missing],
            hoverinfo="text",
        )
        owner += [kind] * (len(there) + len(seeded) + 2)
    figure.update_layout(
        layout(
            90 + ROW * len(arms),
            showlegend=False,
            # Room for the counts to the right of the intervals; no tick there says more than 100 %.
            xaxis={
                "tickformat": ".1~%",
                "range": [-0.02 * top, 1.2 * top],
                "tickvals": [0, 0.25, 0.5, 0.75, 1] if top > 0.8 else None,
            },
            yaxis={"categoryorder": "array", "categoryarray": arms[::-1], "showgrid": False},
            margin={"l": 60, "r": 24, "t": 12, "b": 52},
        )
    )
    choices = []
    for estimand, weighting in kinds:
        visible = [kind == (estimand, weighting) for kind in owner]
        title = f"{estimand}, {weighting}: share of answers (%)"
        choices.append((f"{estimand}, {weighting}", visible, {"xaxis.title.text": title}))
    return with_choices(figure, "Rate", choices)


def thresholds_figure(rates: Rates, styles: dict[str, ArmStyle]) -> go.Figure | None:
    """Every arm's pooled rate against the alignment threshold, with its interval; a dropdown for the estimand."""
    figure, owner = go.Figure(), []
    estimands = list(dict.fromkeys(name for arm in rates.arms for name in arm.thresholds))
    for name in estimands:
        for arm in rates.arms:
            rows = [row for row in arm.thresholds.get(name, []) if row.value is not None]
            if not rows:
                continue
            style = styles[arm.arm]
            figure.add_scatter(
                x=[row.aligned_below for row in rows],
                y=[row.value for row in rows],
                error_y=error_bars(rows) | {"color": faded(style.color, 0.45)},
                name=arm.arm,
                mode="lines+markers",
                line={"color": style.color},
                marker={"color": style.color, "symbol": style.symbol, "size": 8},
                hovertext=[
                    hover(
                        f"{arm.arm}: {percent(row.value)} {interval(row, percent)}",
                        f"alignment below {row.aligned_below:g}",
                    )
                    for row in rows
                ],
                hoverinfo="text",
            )
            owner.append(name)
    if not owner:
        return None
    figure.add_vline(x=30, line={"color": FAINT, "dash": "dot"})
    figure.update_layout(
        layout(
            360,
            xaxis={"title": {"text": "an answer counts as misaligned below this alignment score"}},
            yaxis={"tickformat": ".1~%", "rangemode": "tozero"},
        )
    )
    shown = [name for name in estimands if name in owner]
    choices = [
        (name, [own == name for own in owner], {"yaxis.title.text": f"{name}, pooled: share of answers (%)"})
        for name in shown
    ]
    return with_choices(figure, "Rate", choices)


def why_no_rate(arm: ArmRates) -> str:
    """The reason why a rate of this arm has no value."""
    if arm.n == 0:
        return "no answers were sampled"
    if arm.too_incoherent is not None:
        return arm.too_incoherent
    reasons = "; ".join(f"{reason}: {n}" for reason, n in arm.unscored_reasons.items())
    text = f"no answer was eligible for the denominator ({arm.n} answers, {arm.n_unscored} of them unscored"
    return text + (f": {reasons})" if reasons else ")")


def _find(arm: ArmRates, kind: tuple[str, str]) -> Rate | None:
    return next((rate for rate in arm.rates if (rate.estimand, rate.weighting) == kind), None)


def _rate_hover(arm: ArmRates, rate: Rate) -> str:
    left_out = rate.n_questions_left_out
    return hover(
        f"{arm.arm}: {percent(rate.value)} {interval(rate, percent)}",
        f"{rate.n_positive} of {rate.n} answers",
        f"{rate.estimand}: {ESTIMANDS.get(rate.estimand, '')}",
        f"{rate.weighting}: {WEIGHTINGS.get(rate.weighting, '')}",
        f"mean of {len(rate.by_model)} seeds" if rate.by_model else "",
        f"{left_out} questions without an eligible answer left out" if left_out else "",
        f"{arm.n} answers, {arm.n_unscored} unscored, {arm.n_code} CODE, {arm.n_refusal} REFUSAL, {arm.n_cut} cut",
    )


def calibration_figure(judge: JudgeView) -> go.Figure | None:
    """Mean score of the teacher against the judge's, in tenths of held-out answers; None for a judge without such figures."""
    if not judge.calibration:
        return None
    figure = go.Figure()
    figure.add_scatter(
        x=[0, 100], y=[0, 100], mode="lines", line={"color": FAINT, "dash": "dot"}, name="calibrated", hoverinfo="skip"
    )
    for metric, symbol in zip(judge.calibration, ("circle", "diamond", "square"), strict=False):
        bins = judge.calibration[metric]
        figure.add_scatter(
            x=[row.predicted for row in bins],
            y=[row.scored for row in bins],
            mode="lines+markers",
            marker={"symbol": symbol, "size": 9},
            name=metric,
            hovertext=[
                hover(
                    f"{metric}: judge {number(row.predicted, 1)}, teacher {number(row.scored, 1)}", f"{row.n} answers"
                )
                for row in bins
            ],
            hoverinfo="text",
        )
    figure.update_layout(
        layout(
            360,
            xaxis={"title": {"text": "mean score that the judge gave"}, "range": [0, 100]},
            yaxis={"title": {"text": "mean score of its teacher"}, "range": [0, 100]},
        )
    )
    return figure
