"""Turns likelihood margins and training logs into interactive figures."""

import plotly.graph_objects as go

from emis_interp.report.contents import BASE, Contents, TrainingRun
from emis_interp.report.described import Numbers, describe, narrow_rows, row_label
from emis_interp.report.differences import finding
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

MARGINS_CAPTION = (
    "The margin is the mean log-probability per token of misaligned answers minus that of aligned answers to the same questions. Each "
    "diamond is the mean difference of margins between two arms with its 95 % interval over questions, each dot one question. Filled: "
    "an arm against the control that its configuration names; hollow: every other comparison. Right of 0: the first arm leans "
    "more towards misaligned text. No judge and no sampling is involved.{seeds} A cross: base itself at the temperature that flattens it "
    "as much."
)
SEEDS_CAPTION = (
    " Small outlined dots below a diamond: one for each seed of the first arm, against the mean of the second; the interval then covers "
    "the draw of questions and of seeds (in squares, on the wide side)."
)
GROUPS_CAPTION = (
    "The same differences within each group of questions, with 95 % intervals over its pairs of answers: how sure the effect is on these "
    "questions, not on others."
)
LOSS_CAPTION = (
    "Loss on the response tokens during finetuning. Arms trained on different texts end at different losses; only the shape is "
    "comparable."
)


def margins_figure(contents: Contents, styles: dict[str, ArmStyle]) -> go.Figure | None:
    """One row per contrast: the mean with its interval over one dot per question; below it one per seed. Primary contrasts are filled.

    A cross marks the shift of base itself at the temperature that flattens it as much as the organism is flattened.
    """
    margins = contents.margins
    if margins is None or not margins.contrasts:
        return None
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
        primary = contents.contrast_arms.get(row.arm) == row.reference
        figure.add_scatter(
            x=[row.value],
            y=[y],
            error_x=error_bars([row]) | {"color": color, "thickness": 2.5, "width": 7},
            mode="markers",
            marker={
                "size": 13,
                "symbol": "diamond" if primary else "diamond-open",
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
    several = any(len(arm.models) > 1 for arm in contents.configured)
    measure = f"likelihood margins ({margins.unit.partition(',')[0]})"
    narrow = (
        narrow_rows(len(rows), room=104, row=66, shift=21, most=26)
        | {"margin.t": 34}
        | {
            f"annotations[{place}].{key}": value
            for place in range(len(notes))
            for key, value in (("x", 1.0), ("xanchor", "right"), ("yshift", 21))
        }
    )
    return describe(
        figure,
        title=f"{finding(contents, rows, measure)}; of likelihood alone, not of behaviour",
        caption=MARGINS_CAPTION.format(seeds=SEEDS_CAPTION if several else ""),
        numbers=Numbers(MARGIN_COLUMNS, [line for row in rows for line in _margin_numbers(row)]),
        narrow=narrow,
    )


MARGIN_COLUMNS = ("arm", "reference", "what", "margin shift (nats per token)", "low", "high")


def _margin_numbers(row: MarginContrast) -> list[tuple[object, ...]]:
    """What is drawn in one row of the figure: the mean, its questions, its seeds, and base flattened."""
    names = (row.arm, row.reference)
    lines: list[tuple[object, ...]] = [(*names, "mean over questions", row.value, row.low, row.high)]
    lines += [(*names, f"question {name}", x, None, None) for name, x in row.by_question.items() if x is not None]
    lines += [(*names, f"model {name}", x, None, None) for name, x in row.by_model.items() if x is not None]
    if row.flattening and row.flattening.matched_shift is not None:
        lines.append((*names, "base, flattened as much", row.flattening.matched_shift, None, None))
    return lines


def margin_groups_figure(contents: Contents, styles: dict[str, ArmStyle]) -> go.Figure | None:
    """The same contrasts within each question group; a dropdown chooses those against base or those between arms."""
    margins = contents.margins
    if margins is None:
        return None
    contrasts = [row for row in _ordered(margins.contrasts) if row.by_group]
    groups = list(dict.fromkeys(group for row in contrasts for group in row.by_group))
    if not groups:
        return None
    kinds = [
        (text, [row for row in contrasts if (row.reference == BASE) == against_base])
        for text, against_base in (("arms against each other", False), ("arms against base", True))
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
                name=row_label(_label(row)),
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
    numbers = [
        (row.arm, row.reference, group, shift.value, shift.low, shift.high)
        for row in contrasts
        for group, shift in row.by_group.items()
    ]
    return describe(
        with_choices(figure, "Show", [(kind, [mine == kind for mine in owner], {}) for kind, _ in kinds]),
        title=[_groups_finding(rows) for _, rows in kinds],
        caption=GROUPS_CAPTION,
        numbers=Numbers(("arm", "reference", "group of questions", *MARGIN_COLUMNS[3:]), numbers),
        narrow=narrow_rows(len(groups), room=150, row=max(56, 17 * widest + 28), shift=max(22, 8 * widest + 8)),
    )


def _groups_finding(rows: list[MarginContrast]) -> str:
    """In how many groups an interval excludes 0; with many groups some do so by chance, which is said."""
    parts = []
    for row in rows[:3]:
        away = [group for group, shift in row.by_group.items() if shift.excludes()]
        where = f"{len(away)} of {len(row.by_group)} groups" + (f" ({', '.join(away)})" if away else "")
        parts.append(f"{row.arm} − {row.reference} {where}")
    more = f"; and {len(rows) - 3} more differences" if len(rows) > 3 else ""
    return f"Groups whose interval excludes 0 (of intervals about nothing one in twenty does): {'; '.join(parts)}{more}"


def _ordered(contrasts: list[MarginContrast]) -> list[MarginContrast]:
    return sorted(contrasts, key=lambda row: row.reference != BASE)


def _label(row: MarginContrast) -> str:
    return f"{row.arm} − {row.reference}" + (f" ({row.seeds})" if row.seeds else "")


def _rows_axis(labels: list[str]) -> dict[str, object]:
    """A y axis whose rows are numbered from the bottom."""
    return {
        "tickvals": list(range(len(labels))),
        "ticktext": [row_label(label) for label in labels],
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
                name=row_label(run.arm),
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
    drawn = [(run.arm, row["step"], row["loss"]) for run in runs for row in run.metrics if row.get("loss") is not None]
    ends = [
        (arm, [loss for name, _, loss in drawn if name == arm]) for arm in dict.fromkeys(arm for arm, _, _ in drawn)
    ]
    told = ", ".join(f"{arm} from {number(own[0], 2)} to {number(own[-1], 2)}" for arm, own in ends[:4])
    more = f", and {len(ends) - 4} more" if len(ends) > 4 else ""
    return describe(
        figure,
        title=f"Loss in training (nats per token, first and last logged step): {told}{more}",
        caption=LOSS_CAPTION,
        numbers=Numbers(("model", "optimizer step", "loss (nats per token)"), drawn),
    )
