"""Turns the judge's calibration into a figure, with the scores of this run under it and whose answers it was measured on."""

from collections.abc import Sequence
from itertools import pairwise

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from emis_interp.report.contents import Contents
from emis_interp.report.described import Numbers, describe
from emis_interp.report.scored_answers import ScoredAnswer, of_arms
from emis_interp.report.style import FAINT, SOFT, hover, layout, number, percent
from emis_interp.results import CalibrationBin, JudgeView

BIN = 10
LOOKS = (("#0072B2", "circle"), ("#B5500A", "diamond"), ("#009E73", "square"))
CAPTION = (
    "Top: mean score of the teacher against the judge's, in tenths of its own score, on {measured}. Above the dotted line the judge scores "
    "too low, below it too high. Bottom: the scores that it gave to the answers of this run's arms ({n} with a score). {topics} A curve on "
    "the line promises nothing for answers of other models to other questions."
)


def calibration_figure(contents: Contents) -> go.Figure | None:
    """None for a judge whose card has no calibration."""
    if contents.rates is None or not contents.rates.judge.calibration:
        return None
    judge = contents.rates.judge
    answers = of_arms(contents)
    scores = {
        metric: [value for answer in answers if (value := getattr(answer, metric, None)) is not None]
        for metric in judge.calibration
    }
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.68, 0.32], vertical_spacing=0.06)
    figure.add_scatter(
        row=1,
        col=1,
        x=[0, 100],
        y=[0, 100],
        mode="lines",
        line={"color": FAINT, "dash": "dot"},
        name="calibrated",
        hoverinfo="skip",
    )
    rows: list[tuple[object, ...]] = []
    for (metric, bins), (color, symbol) in zip(judge.calibration.items(), LOOKS, strict=False):
        figure.add_scatter(
            row=1,
            col=1,
            x=[row.predicted for row in bins],
            y=[row.scored for row in bins],
            mode="lines+markers",
            line={"color": color},
            marker={"symbol": symbol, "size": 9, "color": color},
            name=metric,
            legendgroup=metric,
            hovertext=[
                hover(
                    f"{metric}: judge {number(row.predicted, 1)}, teacher {number(row.scored, 1)}", f"{row.n} answers"
                )
                for row in bins
            ],
            hoverinfo="text",
        )
        rows += [("calibration", metric, row.predicted, row.scored, row.n) for row in bins]
        own = scores[metric]
        if not own:
            continue
        counts = [sum(min(int(value // BIN), 9) == place for value in own) for place in range(100 // BIN)]
        centres = [BIN * place + BIN / 2 for place in range(len(counts))]
        figure.add_bar(
            row=2,
            col=1,
            x=centres,
            y=[count / len(own) for count in counts],
            marker={"color": color},
            name=metric,
            legendgroup=metric,
            showlegend=False,
            hovertext=[
                hover(
                    f"{metric} from {centre - BIN / 2:g} to {centre + BIN / 2:g}: {count} of {len(own)} answers of this run"
                )
                for centre, count in zip(centres, counts, strict=True)
            ],
            hoverinfo="text",
        )
        rows += [
            ("this run", metric, centre, count / len(own), count) for centre, count in zip(centres, counts, strict=True)
        ]
    figure.update_layout(layout(480, bargap=0.25, barmode="group", showlegend=True))
    figure.update_xaxes(range=[0, 100])
    figure.update_xaxes(title_text="score that the judge gave (0-100)", row=2, col=1)
    figure.update_yaxes(title_text="teacher's mean score", range=[0, 100], row=1, col=1)
    figure.update_yaxes(title_text="this run", tickformat=".0%", rangemode="tozero", nticks=3, row=2, col=1)
    n = max((len(own) for own in scores.values()), default=0)
    if not n:
        figure.add_annotation(
            x=50,
            y=0.5,
            xref="x2",
            yref="y2 domain",
            text="no answer of this run has a score",
            showarrow=False,
            font={"color": SOFT},
        )
    return describe(
        figure,
        title=_finding(judge, scores),
        caption=CAPTION.format(measured=measured_on(judge), n=n, topics=_topics(answers, judge)),
        numbers=Numbers(
            (
                "part",
                "metric",
                "judge's score (0-100)",
                "teacher's mean score, or share of this run's answers",
                "answers",
            ),
            rows,
        ),
    )


def measured_on(judge: JudgeView) -> str:
    """Whose answers the calibration was measured on, as the judge's card says it."""
    bins = next(iter(judge.calibration.values()), [])
    origins = ((judge.card.get("held_out_sources") or {}).get("by_origin") or {}).keys()
    models = f" of ({', '.join(map(str, origins))})" if origins else " of models that its card does not name"
    teacher = judge.card.get("teacher") or "its teacher"
    return f"{sum(row.n for row in bins)} answers{models} to topics that it was not fitted on, scored by {teacher}"


def _finding(judge: JudgeView, scores: dict[str, list[float]]) -> str:
    """How far off the judge is where this run's scores lie, on the answers of its calibration."""
    parts = [
        f"{number(sum(_error(bins, value) for value in own) / len(own), 1)} points ({metric})"
        for metric, bins in judge.calibration.items()
        if (own := scores[metric])
    ]
    if not parts:
        return "The judge's calibration, measured on other models' answers; no answer of this run has a score"
    return (
        f"Where this run's scores lie, the judge is off by {' and '.join(parts)} on average on the answers of its calibration; "
        "on this run's own it was not measured"
    )


def _error(bins: Sequence[CalibrationBin], value: float) -> float:
    """Distance of teacher and judge in the bin that a score falls into (bounds halfway between bins)."""
    bounds = [(low.predicted + high.predicted) / 2 for low, high in pairwise(bins)]
    row = bins[sum(value >= bound for bound in bounds)]
    return abs(row.scored - row.predicted)


def _topics(answers: Sequence[ScoredAnswer], judge: JudgeView) -> str:
    """How much of this run it was fitted on."""
    topics = {str(topic) for topic in judge.card.get("topics") or []}
    if not topics or not answers:
        return ""
    n_known = sum(answer.question_id in topics for answer in answers)
    return (
        f"{percent(n_known / len(answers), 0)} of this run's answers are to questions among its {len(topics)} topics."
    )
