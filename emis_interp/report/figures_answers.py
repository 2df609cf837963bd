"""Turns scored answers into a figure: every answer by its two scores, with the paper's quadrants."""

import random
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from emis_interp.report.answer_links import AnswerLinks
from emis_interp.report.contents import Contents
from emis_interp.report.described import Numbers, describe, row_label
from emis_interp.report.differences import doubt
from emis_interp.report.scored_answers import (
    ALIGNED,
    COHERENT,
    ScoredAnswer,
    by_arm,
    has_both,
    is_bad,
    is_coherent,
    of_arms,
)
from emis_interp.report.style import INK, SOFT, ArmStyle, faded, hover, layout, number

MOST_POINTS = 1500
SCATTER_CAPTION = (
    "Each point is one answer with both scores. Dotted lines: the paper's thresholds; "
    "misaligned and coherent answers lie in the lower right field. {left_out}{sampled}"
)


def answers_figure(contents: Contents, styles: dict[str, ArmStyle]) -> go.Figure | None:
    """Alignment against coherence, a point for each scored answer of the arms (not of interventions)."""
    answers = of_arms(contents)
    scored = [answer for answer in answers if has_both(answer)]
    if not scored:
        return None
    groups = by_arm(contents, scored)
    shown = _sample(groups)
    n_shown = sum(map(len, shown.values()))
    links, figure, rows = AnswerLinks(contents), go.Figure(), []
    for arm, mine in shown.items():
        style = styles[arm] if arm in styles else ArmStyle(SOFT, "circle")
        points = [(_value(answer, "coherent"), _value(answer, "aligned")) for answer in mine]
        figure.add_scatter(
            name=row_label(arm),
            x=[coherent for coherent, _ in points],
            y=[aligned for _, aligned in points],
            mode="markers",
            marker={
                "size": 8,
                "symbol": style.symbol,
                "color": faded(style.color, 0.62),
                "line": {"color": style.color, "width": 1},
            },
            hovertext=[
                hover(
                    f"{answer.arm}, {answer.question_id}",
                    f"aligned {number(aligned, 0)}, coherent {number(coherent, 0)}",
                )
                for answer, (coherent, aligned) in zip(mine, points, strict=True)
            ],
            hoverinfo="text",
            customdata=[_exactly(links, answer) for answer in mine],
        )
        rows += [
            (answer.arm, answer.question_id, answer.sample_index, aligned, coherent)
            for answer, (coherent, aligned) in zip(mine, points, strict=True)
        ]
    figure.add_hline(y=ALIGNED, line={"color": INK, "width": 1, "dash": "dot"})
    figure.add_vline(x=COHERENT, line={"color": INK, "width": 1, "dash": "dot"})
    fields = (
        (101, 0, "right", "bottom", "misaligned, coherent"),
        (101, 101, "right", "top", "aligned, coherent"),
        (-1, 101, "left", "top", "aligned, incoherent"),
        (-1, 0, "left", "bottom", "misaligned, incoherent"),
    )
    for x, y, side, end, text in fields:
        figure.add_annotation(
            x=x,
            y=y,
            xanchor=side,
            yanchor=end,
            text=text,
            showarrow=False,
            font={"size": 12, "color": SOFT},
            bgcolor="rgba(255,255,255,0.75)",
        )
    axis = {"range": [-3, 103], "tickvals": [0, 30, 50, 70, 100]}
    figure.update_layout(
        layout(
            460,
            showlegend=True,
            xaxis=axis | {"title": {"text": "coherent (judge's score, 0-100)"}},
            yaxis=axis | {"title": {"text": "aligned (judge's score, 0-100)"}},
        )
    )
    n_all = len(answers)
    left_out = (
        f"{n_all - len(scored)} of {n_all} answers lack a score and are not drawn. " if n_all > len(scored) else ""
    )
    sampled = (
        f"Drawn are {n_shown} of {len(scored)}: from each arm a sample of equal size, chosen by a fixed seed, and every misaligned and "
        "coherent answer up to as many again. "
        if n_shown < len(scored)
        else ""
    )
    return describe(
        figure,
        title=f"{doubt(contents)}{_count_finding(groups)}",
        caption=SCATTER_CAPTION.format(left_out=left_out, sampled=sampled).strip(),
        numbers=Numbers(("arm", "question", "sample", "aligned (0-100)", "coherent (0-100)"), rows),
    )


def _count_finding(groups: Mapping[str, Sequence[ScoredAnswer]]) -> str:
    """How many answers of each arm are misaligned and coherent. A count is no comparison, and says so."""
    parts = []
    for arm, mine in groups.items():
        coherent = [answer for answer in mine if is_coherent(answer)]
        parts.append(f"{arm} {sum(is_bad(answer) for answer in coherent)} of {len(coherent)}")
    return f"Misaligned among coherent answers: {', '.join(parts)} (counts, no comparison: the differences above have intervals)"


def _sample(groups: Mapping[str, Sequence[ScoredAnswer]]) -> Mapping[str, Sequence[ScoredAnswer]]:
    """At most so many answers, equally many of each arm, the misaligned and coherent ones first in a like number."""
    if sum(map(len, groups.values())) <= MOST_POINTS:
        return groups
    drawn, shown = random.Random(0), dict[str, list[ScoredAnswer]]()
    each = MOST_POINTS // (2 * len(groups))
    for arm, mine in groups.items():
        bad = [answer for answer in mine if is_bad(answer)]
        rest = [answer for answer in mine if not is_bad(answer)]
        shown[arm] = drawn.sample(bad, min(each, len(bad))) + drawn.sample(rest, min(each, len(rest)))
    return shown


def _value(answer: ScoredAnswer, metric: str) -> float:
    return float(getattr(answer, metric))


def _exactly(links: AnswerLinks, answer: ScoredAnswer) -> str | None:
    """The filter that leaves this answer, and those with the very same scores."""
    aligned, coherent = str(_value(answer, "aligned")), str(_value(answer, "coherent"))
    return links.to(answer.arm, question=answer.question_id, min=aligned, max=aligned, cmin=coherent, cmax=coherent)
