"""Turns a judge into what it is worth on answers of small models that were read by hand."""

from typing import Any

from emis_interp.errors import ConfigError
from emis_interp.process import Bars, no_bars
from emis_interp.records import Score
from emis_interp.stats.words import estimate
from evals.judges.hand_labels import (
    agreement_of_readers,
    given_labels,
    hand_contrasts,
    judge_against,
    labels_sha256,
    read_labels,
    scores_beside,
    shipped_labels,
    style_checks,
    style_figures,
)
from evals.judges.judge import Judge
from evals.judges.local_judge import LocalJudge
from evals.judges.making import made_judge
from evals.judges.pairwise import pairs_against
from evals.questions import load_questions
from evals.settings.judging import HandLabelSettings


def run(settings: HandLabelSettings, bars: Bars = no_bars) -> dict[str, Any]:
    """Ask the judge about every labelled answer."""
    with made_judge(settings.config, settings.device) as judge:
        return _against(judge, settings, bars)


def _against(judge: Judge, settings: HandLabelSettings, bars: Bars) -> dict[str, Any]:
    labels = shipped_labels() if settings.labels is None else read_labels(settings.labels)
    questions = {question.id: question for question in load_questions(settings.questions)}
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
        "fitted_with_these": judge.card.get("labels_sha256") == labels_sha256(labels),
        "readers": agreement_of_readers(labels),
        "contrasts": hand_contrasts(labels),
        **judge_against(labels, scores_beside(labels, scores), given_labels(labels, scores)),
        "style": style_figures(style, scores_beside(style, of_style)),
        **pairwise,
    }


def say(result: dict[str, Any]) -> str:
    seen = result["fitted_with_these"]
    lines = [
        f"{result['judge']['name']}: {result['n']} answers that were read by hand, {result['n_unscored']} unscored, "
        f"{result['n_code']} CODE, {result['n_refusal']} REFUSAL",
        *(
            ["the judge was fitted with these labels; what it is worth on those that its fit left out is on its card"]
            * seen
        ),
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
    models = list(dict.fromkeys(row["model"] for row in result["groups"]))
    for model in models:
        lines += [
            "",
            model,
            f"  {'arm':12}{'answers':>8}{'coherent':>10}{'misaligned':>12}{'of coherent':>13}"
            f"{'CODE':>6}{'judge: mean':>13}{'< 30':>6}{'- base':>8}",
        ]
        for row in result["groups"]:
            if row["model"] != model:
                continue
            shares = [_percent(row[key]["value"]) for key in ("coherent_by_hand", "misaligned_by_hand", "below_30")]
            aligned, beyond = row["mean_aligned"]["value"], row["beyond_base"]["mean_aligned"]
            lines.append(
                f"  {row['arm']:12}{row['n']:8}{shares[0]:>10}{shares[1]:>12}{row['misaligned_of_coherent']:>13}"
                f"{row['n_code']:6}{_number(aligned, '.0f'):>13}{shares[2]:>6}{_number(beyond, '+.0f'):>8}"
            )
        for row in result["contrasts"]:
            if row["model"] == model:
                points = {key: None if row[key] is None else 100 * row[key] for key in ("value", "low", "high")}
                lines.append(
                    f"  misaligned by hand, {row['arm']} - {row['reference']}: {estimate(points, '+.0f')} points, {row['counts']}"
                    + ("" if row["arm_at_most"] is None else f" (the arm at most {100 * row['arm_at_most']:.0f} %)")
                    + _by_seed(row["by_seed"])
                )
    lines += [
        "",
        "coherent, misaligned: by hand; of coherent: misaligned of the coherent ones; CODE: labelled so by the judge, out of its figures;",
        "judge: its mean score, its share below 30 (of the answers that have a score)",
    ]
    return "\n".join(lines)


def _by_seed(found: dict[str, float]) -> str:
    """The difference of every seed, in points, where there are several."""
    points = ", ".join(f"{100 * value:+.0f}" for value in found.values())
    return f"; by seed {points}" if len(found) > 1 else ""


def _percent(value: float | None) -> str:
    return _number(None if value is None else 100 * value, ".0f") + ("" if value is None else " %")


def _number(value: float | None, form: str) -> str:
    return "none" if value is None else format(value, form)
