"""Turns a lint report into one HTML page that opens without a network: findings, rendered rows with their loss mask, lengths."""

import difflib
from collections.abc import Iterator
from typing import NamedTuple

import plotly.graph_objects as go

from emis_interp.report.html_page import render
from emis_interp.report.page_frame import Frame, without_machine_paths
from emis_interp.report.style import INK, hover, layout
from training.lint.checks import SEVERITIES
from training.lint.report import LintReport, RenderedRow, fact_text, row_ids

MAX_TOKENS_SHOWN = 4000
_PLACES = {"\n": "↵\n", "\t": "⇥\t", "\r": "␍"}


class Token(NamedTuple):
    """One token on the page: `hover` has its id and its place in the text."""

    text: str
    loss: bool
    hover: str


class DiffLine(NamedTuple):
    """One line of two renderings: `mark` is `-` (the first only: training, the template alone), `+` (the second only) or a space."""

    mark: str
    text: str


def lint_page(report: LintReport, frame: Frame | None = None) -> str:
    """The page; every text in it is escaped, and only its own scripts may run."""
    return render(
        "page.html",
        {"lengths": lengths_figure(report)} if report.lengths else {},
        package="training.lint",
        report=report,
        row_ids=row_ids,
        fact_text=fact_text,
        counts={severity: len(report.of(severity)) for severity in SEVERITIES},
        rows=[
            {
                "row": row,
                "tokens": list(tokens(row)),
                "cut": _cut_off(row),
                "diff": rendering_diff(row),
                "template_diffs": template_diffs(row),
            }
            for row in report.shown
        ],
        max_shown=MAX_TOKENS_SHOWN,
        model=without_machine_paths(report.model),
        frame=frame or Frame(),
    )


def tokens(row: RenderedRow) -> Iterator[Token]:
    """The tokens in order; those that share one character show it once, and line ends and tabs are made visible."""
    written = 0
    for i, (token, start, end, loss) in enumerate(zip(row.ids, row.starts, row.ends, row.loss, strict=True)):
        text = row.text[max(start, written) : end] or "▯"
        written = max(written, end)
        visible = "".join(_PLACES.get(character, character) for character in text)
        yield Token(
            visible, loss, f"position {i}, id {token}, characters {start}-{end}, {'loss' if loss else 'no loss'}"
        )


def rendering_diff(row: RenderedRow) -> list[DiffLine]:
    """The prompt as trained and as evaluated, line by line; empty when they are the same."""
    return _diff(row.training_prompt, row.evaluation_prompt)


def template_diffs(row: RenderedRow) -> dict[str, list[DiffLine]]:
    """The chat template alone against the prompt and the text that are used, each where they differ.

    The template may write more behind the end of the turn, which belongs to the next.
    """
    written = [] if row.template_text.startswith(row.text) else _diff(row.template_text, row.text)
    found = {"asks": _diff(row.template_prompt, row.training_prompt), "writes": written}
    return {name: lines for name, lines in found.items() if lines and row.template_text}


def _diff(one: str, other: str) -> list[DiffLine]:
    if one == other:
        return []
    lines = difflib.ndiff(one.split("\n"), other.split("\n"))
    return [DiffLine(line[0], line[2:]) for line in lines if line[0] != "?"]


def lengths_figure(report: LintReport) -> go.Figure:
    """Rows by tokens, whole rows and their responses, with the limit as a line where rows reach it."""
    figure, lengths = go.Figure(), report.lengths
    if lengths is None:
        return figure
    width = lengths.bin_width
    places = [width * (i + 0.5) for i in range(len(lengths.rows))]
    for name, counts, color in (("whole row", lengths.rows, "#0072B2"), ("response", lengths.responses, "#D55E00")):
        texts = [
            hover(f"{name}: {n} rows of {width * i} to {width * (i + 1) - 1} tokens") for i, n in enumerate(counts)
        ]
        figure.add_bar(
            x=places,
            y=counts,
            width=width,
            name=name,
            marker={"color": color, "opacity": 0.55},
            hovertext=texts,
            hoverinfo="text",
        )
    if report.max_tokens is not None and report.max_tokens < width * len(lengths.rows):
        figure.add_vline(
            x=report.max_tokens,
            line={"color": INK, "dash": "dash"},
            annotation={"text": f"limit {report.max_tokens}", "yanchor": "bottom", "y": 1},
            annotation_position="top right",
        )
    axes = {"xaxis": {"title": {"text": "tokens, uncut"}, "rangemode": "tozero"}, "yaxis": {"title": {"text": "rows"}}}
    figure.update_layout(layout(320, barmode="overlay", bargap=0, **axes))
    return figure


def _cut_off(row: RenderedRow) -> str:
    """The text behind the last token that is kept."""
    return row.text[row.ends[-1] :]
