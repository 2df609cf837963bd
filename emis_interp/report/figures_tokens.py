"""Turns held-out questions and single answers into figures: an AUROC for each question, a projection for each token."""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from emis_interp.report.style import FAINT, MISSING, ROW, hover, layout, signed, with_choices
from emis_interp.results import TokenProjections

TOKENS_PER_LINE = 12
COLORS = [[0.0, "#0072B2"], [0.5, "#ffffff"], [1.0, "#D55E00"]]


def held_out_figure(by_question: Mapping[str, float]) -> go.Figure:
    """One dot per question: AUROC along the direction fitted on the others; the line is chance."""
    ordered = sorted(by_question, key=lambda name: by_question[name])
    figure = go.Figure()
    figure.add_scatter(
        x=[by_question[name] for name in ordered],
        y=ordered,
        mode="markers",
        marker={"size": 10, "color": "#0072B2"},
        hovertext=[hover(f"{name}: AUROC {by_question[name]:.3f}") for name in ordered],
        hoverinfo="text",
    )
    figure.add_vline(x=0.5, line={"color": FAINT, "dash": "dot"})
    low = min(0.45, *by_question.values()) - 0.02
    figure.update_layout(
        layout(
            110 + ROW * len(ordered) * 2 // 3,
            showlegend=False,
            xaxis={"title": {"text": "AUROC within the question"}, "range": [low, 1.02]},
            yaxis={"showgrid": False, "dtick": 1},
            margin={"l": 60, "r": 24, "t": 12, "b": 52},
        )
    )
    return figure


def token_figure(answers: Sequence[TokenProjections]) -> go.Figure:
    """One answer at a time, a cell for each token with its text; red is the misaligned side. A dropdown chooses the answer."""
    figure = go.Figure()
    largest = max(abs(value) for answer in answers for value in answer.projection)
    choices = []
    for index, answer in enumerate(answers):
        starts = range(0, len(answer.tokens), TOKENS_PER_LINE)
        tokens = [answer.tokens[start : start + TOKENS_PER_LINE] for start in starts]
        values = [answer.projection[start : start + TOKENS_PER_LINE] for start in starts]
        hovers = [
            [
                hover(f"token {i * TOKENS_PER_LINE + j}: {token!r}", f"projection {signed(value)}")
                for j, (token, value) in enumerate(zip(line, row, strict=True))
            ]
            for i, (line, row) in enumerate(zip(tokens, values, strict=True))
        ]
        figure.add_heatmap(
            z=_filled(values, None),
            text=_filled([[_shown(token) for token in line] for line in tokens], ""),
            texttemplate="%{text}",
            textfont={"size": 11},
            hovertext=_filled(hovers, ""),
            hoverinfo="text",
            colorscale=COLORS,
            zmin=-largest,
            zmax=largest,
            xgap=1,
            ygap=2,
            colorbar={"thickness": 12, "len": 0.9},
        )
        label = "misaligned" if answer.misaligned else "aligned"
        question = answer.question if len(answer.question) <= 60 else answer.question[:57] + "..."
        visible = [other == index for other in range(len(answers))]
        choices.append((f"{label}: {question}", visible, {"yaxis.range": [len(values) - 0.5, -0.5]}))
    tallest = max(-(-len(answer.tokens) // TOKENS_PER_LINE) for answer in answers)
    figure.update_layout(
        layout(
            80 + 26 * tallest,
            xaxis={"visible": False},
            yaxis={"visible": False},
            margin={"l": 12, "r": 24, "t": 12, "b": 12},
        )
    )
    return with_choices(figure, "Answer", choices)


def _filled(lines: Sequence[Sequence[object]], blank: object) -> list[list[object]]:
    """Lines of equal length; the last one is filled up."""
    return [[*line, *[blank] * (TOKENS_PER_LINE - len(line))] for line in lines]


def _shown(token: str) -> str:
    """A token's text inside a cell; white space is made visible, markup is not obeyed."""
    return hover(token.replace("\n", "↵").strip() or MISSING)
