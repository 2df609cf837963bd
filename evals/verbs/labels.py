"""Turns a judge into what it is worth on answers of small models that were read by hand."""

from typing import Any

from emis_interp.errors import ConfigError
from emis_interp.process import Bars, no_bars
from emis_interp.records import Score
from emis_interp.stats.words import estimate
from evals.judges.hand_labels import (
    agreement_of_readers,
    judge_against,
    read_labels,
    scores_beside,
    shipped_labels,
    style_checks,
    style_figures,
)
from evals.judges.local_judge import LocalJudge
from evals.judges.making import make_judge
from evals.judges.pairwise import pairs_against
from evals.questions import load_questions
from evals.settings.judging import HandLabelSettings


def run(settings: HandLabelSettings, bars: Bars = no_bars) -> dict[str, Any]:
    """Ask the judge about every labelled answer."""
    labels = shipped_labels() if settings.labels is None else read_labels(settings.labels)
    questions = {question.id: question for question in load_questions(settings.questions)}
    judge = make_judge(settings.config, settings.device)
    if settings.pairs and not isinstance(judge, LocalJudge):
        raise ConfigError(f"--pairs is for --judge local: {judge.name} has no model here to ask about two replies")
    scores: list[Score] = []
    with bars("labels", len(labels)) as advance:

        def keep(batch: list[Score]) -> None:
            scores.extend(batch)
            advance(len(batch))

        judge.score([row.completion() for row in labels], questions, keep)
    style, of_style = style_checks(), list[Score]()
    judge.score([row.completion() for row in style], questions, of_style.extend)
    pairwise: dict[str, Any] = {}
    if settings.pairs and isinstance(judge, LocalJudge):
        pairwise = {"pairwise": pairs_against(labels, judge.chat_model, settings.pairs)}
    return {
        "judge": {"name": judge.name, "card": judge.card},
        "readers": agreement_of_readers(labels),
        **judge_against(labels, scores_beside(labels, scores)),
        "style": style_figures(style, scores_beside(style, of_style)),
        **pairwise,
    }


def say(result: dict[str, Any]) -> str:
    lines = [
        f"{result['judge']['name']}: {result['n']} answers that were read by hand, {result['n_unscored']} unscored",
        *(
            f"{key.replace('_', ' ')}: {estimate(result[key], '.3f')}, {result[key]['n']} answers"
            for key in ("auroc_misaligned", "auroc_misaligned_of_coherent", "auroc_coherent")
        ),
        "",
        f"{'by hand':18}{'first':>8}{'second':>8}{'both':>8}{'stands':>8}{'kappa':>8}",
    ]
    for name, row in result["readers"].items():
        kappa = "none" if row["kappa"] is None else f"{row['kappa']:.2f}"
        counts = "".join(f"{row[key]:8}" for key in ("first", "second", "both", "settled"))
        lines.append(f"{name:18}{counts}{kappa:>8}")
    lines += ["", f"{'harmless answers':18}{'n':>4}{'aligned':>9}{'< 30':>6}   change against the plain sentence"]
    for kind, row in result["style"].items():
        aligned = _number(row["mean_aligned"], ".0f")
        lines.append(f"{kind:18}{row['n']:4}{aligned:>9}{row['n_below_30']:6}   {estimate(row['change'], '+.0f')}")
    if pairs := result.get("pairwise"):
        lines.append(
            f"which of two replies does more harm: right in {estimate(pairs['accuracy'], '.2f')} of {pairs['accuracy']['n']} pairs (chance "
            f"0.50); order alone {pairs['position_bias']:+.2f} nats for A; {100 * pairs['mass']:.0f} % of its answers are a letter"
        )
    lines += [
        "",
        f"{'model':26}{'arm':14}{'n':>5}{'misaligned':>12}{'coherent':>10}{'aligned':>9}{'< 30':>7}{'- base':>8}",
    ]
    for row in result["groups"]:
        shares = [_percent(row[key]["value"]) for key in ("misaligned_by_hand", "coherent_by_hand", "below_30")]
        aligned, beyond = row["mean_aligned"]["value"], row["beyond_base"]["mean_aligned"]
        lines.append(
            f"{row['model'][-25:]:26}{row['arm']:14}{row['n']:5}{shares[0]:>12}{shares[1]:>10}"
            f"{_number(aligned, '.0f'):>9}{shares[2]:>7}{_number(beyond, '+.0f'):>8}"
        )
    lines.append(
        "misaligned, coherent: by hand; aligned, < 30, - base: the judge's mean score, its share below 30, the mean minus base's"
    )
    return "\n".join(lines)


def _percent(value: float | None) -> str:
    return _number(None if value is None else 100 * value, ".0f") + ("" if value is None else " %")


def _number(value: float | None, form: str) -> str:
    return "none" if value is None else format(value, form)
