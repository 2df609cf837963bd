"""Turns likelihood margins and training logs into interactive figures."""

import plotly.graph_objects as go

from emis_interp.report.contents import BASE, TrainingRun
from emis_interp.report.style import (
    FAINT,
    INK,
    ArmStyle,
    error_bars,
    faded,
    hover,
    interval,
    layout,
    number,
    seed_dots,
    signed,
    with_choices,
)
from emis_interp.results import Estimate, FlatteningView, MarginContrast, Margins


def margins_figure(margins: Margins, styles: dict[str, ArmStyle]) -> go.Figure:
    """One row per contrast: the mean with its interval over one dot per question; below it one per seed. Base contrasts first, filled.

    A cross marks the shift of base itself at the temperature that flattens it as much as the organism is flattened.
    """
    rows = _ordered(margins.contrasts)
    figure = go.Figure()
    figure.add_vline(x=0, line={"color": INK, "width": 1})
    notes = []
    for index, row in enumerate(rows):
        y, color = len(rows) - 1 - index, styles[row.arm].color
        dots = [(question, value) for question, value in row.by_question.items() if value is not None]
        figure.add_scatter(
            x=[value for _, value in dots],
            y=[y + 0.09 * (place % 5 - 2) for place in range(len(dots))],
            mode="markers",
            marker={"size": 7, "color": faded(color, 0.38)},
            hovertext=[_question_hover(margins, row, question, value=value) for question, value in dots],
            hoverinfo="text",
        )
        against_base = row.reference == BASE
        figure.add_scatter(
            x=[row.value],
            y=[y],
            error_x=error_bars([row]) | {"color": color, "thickness": 2.5, "width": 7},
            mode="markers",
            marker={
                "size": 13,
                "symbol": "diamond" if against_base else "diamond-open",
                "color": color,
                "line": {"color": color, "width": 2},
            },
            hovertext=[_shift_hover(_label(row), row)],
            hoverinfo="text",
        )
        if row.by_model:
            figure.add_scatter(**seed_dots(row, y - 0.3, color))
        if row.flattening and row.flattening.matched_shift is not None:
            figure.add_scatter(
                x=[row.flattening.matched_shift],
                y=[y],
                mode="markers",
                marker={"size": 11, "symbol": "x-thin", "color": INK, "line": {"color": INK, "width": 2}},
                hovertext=[_flattened_hover(row.flattening)],
                hoverinfo="text",
            )
        notes.append(_note(y, f"{signed(row.value)} {interval(row)}"))
    figure.update_layout(
        layout(
            80 + 44 * len(rows),
            showlegend=False,
            annotations=notes,
            margin={"l": 60, "r": 175, "t": 12, "b": 52},
            xaxis={"title": {"text": f"margin shift ({margins.unit})"}},
            yaxis=_rows_axis([_label(row) for row in rows][::-1]),
        )
    )
    return figure


def margin_groups_figure(margins: Margins, styles: dict[str, ArmStyle]) -> go.Figure | None:
    """The same contrasts within each question group; a dropdown chooses those against base or those between arms."""
    contrasts = [row for row in _ordered(margins.contrasts) if row.by_group]
    groups = list(dict.fromkeys(group for row in contrasts for group in row.by_group))
    if not groups:
        return None
    kinds = [
        (text, [row for row in contrasts if (row.reference == BASE) == against_base])
        for text, against_base in (("arms against base", True), ("arms against each other", False))
    ]
    kinds = [(text, rows) for text, rows in kinds if rows]
    figure, owner = go.Figure(), []
    figure.add_vline(x=0, line={"color": INK, "width": 1})
    for kind, rows in kinds:
        for index, row in enumerate(rows):
            offset = 0.7 * ((len(rows) - 1) / 2 - index) / max(len(rows), 2)
            shown = [group for group in groups if group in row.by_group]
            color = styles[row.arm].color
            figure.add_scatter(
                name=_label(row),
                x=[row.by_group[group].value for group in shown],
                y=[len(groups) - 1 - groups.index(group) + offset for group in shown],
                error_x=error_bars([row.by_group[group] for group in shown]) | {"color": color},
                mode="markers",
                marker={"size": 9, "symbol": styles[row.arm].symbol, "color": color},
                hovertext=[_shift_hover(f"{_label(row)}, {group}", row.by_group[group]) for group in shown],
                hoverinfo="text",
            )
            owner.append(kind)
    widest = max(len(rows) for _, rows in kinds)
    figure.update_layout(
        layout(
            110 + len(groups) * max(30, 17 * widest + 12),
            showlegend=True,
            margin={"l": 60, "r": 24, "t": 40, "b": 52},
            xaxis={"title": {"text": f"margin shift ({margins.unit})"}},
            yaxis=_rows_axis(groups[::-1]),
        )
    )
    for line in range(len(groups) - 1):
        figure.add_hline(y=line + 0.5, line={"color": "#d5dae2", "width": 1, "dash": "dot"})
    return with_choices(figure, "Show", [(kind, [mine == kind for mine in owner], {}) for kind, _ in kinds])


def _ordered(contrasts: list[MarginContrast]) -> list[MarginContrast]:
    return sorted(contrasts, key=lambda row: row.reference != BASE)


def _label(row: MarginContrast) -> str:
    return f"{row.arm} − {row.reference}" + (f" ({row.seeds})" if row.seeds else "")


def _rows_axis(labels: list[str]) -> dict[str, object]:
    """A y axis whose rows are numbered from the bottom."""
    return {
        "tickvals": list(range(len(labels))),
        "ticktext": [hover(label) for label in labels],
        "range": [-0.6, len(labels) - 0.4],
        "showgrid": False,
    }


def _note(y: float, text: str) -> dict[str, object]:
    return {
        "xref": "paper",
        "x": 1.01,
        "xanchor": "left",
        "y": y,
        "text": text,
        "showarrow": False,
        "font": {"size": 12},
    }


def _shift_hover(title: str, row: Estimate) -> str:
    n, k = getattr(row, "n_questions", None), getattr(row, "n_positive", None)
    counts = f"{n} questions" if k is None else f"{k} of {n} questions positive"
    return hover(title, f"{signed(row.value, 4)} {interval(row)}", counts if n is not None else "")


def _flattened_hover(found: FlatteningView) -> str:
    left = f"beyond it {signed(found.beyond.value, 4)} {interval(found.beyond)}" if found.beyond else ""
    title = f"base itself at temperature {number(found.temperature)}: {signed(found.matched_shift, 4)}"
    return hover(title, f"slope of the arm's margins on base's {number(found.slope.value)}", left)


def _question_hover(margins: Margins, row: MarginContrast, question: str, *, value: float) -> str:
    about = margins.questions.get(question)
    details = f"{about.group}, {about.half} half, {about.n_pairs} pairs" if about else ""
    return hover(f"{_label(row)}: {signed(value, 4)}", question, about.question if about else "", details)


def loss_figure(runs: list[TrainingRun], styles: dict[str, ArmStyle]) -> go.Figure | None:
    """Training loss over optimizer steps, one line per arm."""
    figure = go.Figure()
    for run in runs:
        rows = [row for row in run.metrics if row.get("loss") is not None]
        style = styles.get(run.arm)
        if rows:
            figure.add_scatter(
                name=run.arm,
                x=[row["step"] for row in rows],
                y=[row["loss"] for row in rows],
                mode="lines" if len(rows) > 1 else "markers",
                line={"color": style.color if style else FAINT, "width": 1.8},
                hovertext=[hover(f"{run.arm}, step {row['step']}: {number(row['loss'], 4)}") for row in rows],
                hoverinfo="text",
            )
    if not figure.data:
        return None
    titles = {"xaxis": {"title": {"text": "optimizer step"}}, "yaxis": {"title": {"text": "loss (nats per token)"}}}
    figure.update_layout(layout(300, showlegend=True, **titles))
    return figure
