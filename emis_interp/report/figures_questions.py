"""Turns scored answers into a figure of what the arms score on each question."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from scipy import stats

from emis_interp.report.answer_links import AnswerLinks
from emis_interp.report.contents import Contents
from emis_interp.report.described import Numbers, describe, narrow_rows, row_label
from emis_interp.report.differences import doubt
from emis_interp.report.scored_answers import ScoredAnswer, bad_rate, by_arm, mean_score, of_arms
from emis_interp.report.style import ArmStyle, error_bars, faded, hover, interval, layout, number, percent, with_choices
from emis_interp.results import Estimate

MOST_QUESTIONS = 40
Cells = Mapping[tuple[str, str], list[ScoredAnswer]]
"""(arm, question) -> its judged answers."""
QUESTIONS_CAPTION = (
    "One mark for each arm and question, with 95 % intervals over the answers to it (t intervals of means, exact ones of shares, answers "
    "taken as independent); few answers make them wide. Questions stand in the order of the difference between the first arm and its "
    "control. {left_out}"
)


def questions_figure(contents: Contents, styles: dict[str, ArmStyle]) -> go.Figure | None:
    """Mean scores and the rate of every arm by question; a dropdown for what is shown."""
    scored = [answer for answer in of_arms(contents) if answer.is_judged]
    questions = list(dict.fromkeys(answer.question_id for answer in scored))
    if not scored or len(questions) < 2:
        return None
    groups, cells = by_arm(contents, scored), dict[tuple[str, str], list[ScoredAnswer]]()
    arms = [arm for arm in groups if arm in styles]
    for arm, mine in groups.items():
        for answer in mine:
            cells.setdefault((arm, answer.question_id), []).append(answer)
    measures: list[tuple[str, str, Callable[[Sequence[ScoredAnswer]], Estimate]]] = [
        ("mean aligned", "mean aligned score (0-100)", lambda found: mean_score(found, "aligned")),
        ("em_of_coherent", "em_of_coherent (share of coherent answers)", bad_rate),
        ("mean coherent", "mean coherent score (0-100)", lambda found: mean_score(found, "coherent")),
    ]
    pair = next(
        ((arm, control) for arm, control in contents.contrast_arms.items() if {arm, control} <= set(arms)), None
    )
    shown = _ends(questions, cells, pair)
    figure, owner, rows, links = go.Figure(), list[str](), list[tuple[Any, ...]](), AnswerLinks(contents)
    for measure, _, of in measures:
        for place, arm in enumerate(arms):
            found = [(name, of(cells.get((arm, name), []))) for name in shown]
            there = [(name, value) for name, value in found if value.value is not None]
            show = percent if measure.startswith("em") else lambda value: number(value, 1)
            offset = 0.6 * ((len(arms) - 1) / 2 - place) / max(len(arms), 2)
            figure.add_scatter(
                name=row_label(arm),
                x=[value.value for _, value in there],
                y=[len(shown) - 1 - shown.index(name) + offset for name, _ in there],
                error_x=error_bars([value for _, value in there]) | {"color": faded(styles[arm].color, 0.6)},
                mode="markers",
                marker={"size": 9, "symbol": styles[arm].symbol, "color": styles[arm].color},
                hovertext=[
                    hover(f"{arm}, {name}: {show(value.value)} {interval(value, show)}", f"{value.n} answers")
                    for name, value in there
                ],
                hoverinfo="text",
                customdata=[links.to(arm, question=name, order="low") for name, _ in there],
            )
            owner.append(measure)
            rows += [(arm, name, measure, value.value, value.low, value.high, value.n) for name, value in there]
    figure.update_layout(
        layout(
            120 + len(shown) * max(28, 15 * len(arms) + 8),
            showlegend=True,
            yaxis={
                "tickvals": list(range(len(shown))),
                "ticktext": [row_label(name) for name in shown[::-1]],
                "range": [-0.6, len(shown) - 0.4],
                "showgrid": False,
            },
        )
    )
    for line in range(len(shown) - 1):
        figure.add_hline(y=line + 0.5, line={"color": "#d5dae2", "width": 1, "dash": "dot"})
    left_out = (
        f"Shown are {len(shown)} of {len(questions)} questions, those at the ends of that order. "
        if len(shown) < len(questions)
        else ""
    )
    choices = [(name, [own == name for own in owner], {"xaxis.title.text": title}) for name, title, _ in measures]
    return describe(
        with_choices(figure, "Show", choices),
        title=[
            f"{doubt(contents)}{_sign_finding(cells, questions, pair, name=name, of=of)}" for name, _, of in measures
        ],
        caption=QUESTIONS_CAPTION.format(left_out=left_out).strip(),
        numbers=Numbers(("arm", "question", "measure", "value (score 0-100 or share)", "low", "high", "answers"), rows),
        narrow=narrow_rows(len(shown), room=130, row=max(56, 17 * len(arms) + 26), shift=max(24, 8 * len(arms) + 8)),
    )


def _sign_finding(
    cells: Cells,
    questions: Sequence[str],
    pair: tuple[str, str] | None,
    *,
    name: str,
    of: Callable[[Sequence[ScoredAnswer]], Estimate],
) -> str:
    """On how many questions an arm lies above its control, and whether coins would do as much (sign test)."""
    if pair is None:
        return f"{name} by question: no arm and its control were both judged"
    values = [(of(cells.get((pair[0], one), [])).value, of(cells.get((pair[1], one), [])).value) for one in questions]
    both = [(own, other) for own, other in values if own is not None and other is not None]
    above, below = sum(own > other for own, other in both), sum(own < other for own, other in both)
    text = f"{pair[0]} lies above {pair[1]} on {above} and below it on {below} of {len(both)} questions ({name})"
    if not above + below:
        return f"{text}: no difference seen"
    p = float(stats.binomtest(above, above + below).pvalue)
    return f"{text}: {'more often one way than chance' if p < 0.05 else 'no difference seen'}, sign test p {p:.2g}"


def _ends(questions: Sequence[str], cells: Cells, pair: tuple[str, str] | None) -> list[str]:
    """Questions in the order of the arm's mean aligned score minus its control's, lowest first; of many, those at both ends."""
    if pair is not None:
        gaps = {name: [mean_score(cells.get((arm, name), []), "aligned").value for arm in pair] for name in questions}
        known = {name: own - other for name, (own, other) in gaps.items() if own is not None and other is not None}
        questions = sorted(known, key=lambda name: known[name]) + [name for name in questions if name not in known]
    if len(questions) <= MOST_QUESTIONS:
        return list(questions)
    return [*questions[: MOST_QUESTIONS // 2], *questions[-(MOST_QUESTIONS // 2) :]]
