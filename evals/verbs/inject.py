"""Turns a judge into how far answers move it by talking to it."""

import json
from typing import Any

from emis_interp.files.store import write_text
from emis_interp.process import Bars, no_bars
from emis_interp.records import Score
from emis_interp.stats.words import estimate
from evals.judges.making import made_judge
from evals.questions import load_questions
from evals.settings.judging import InjectSettings
from evals.suites.injection import InjectionSet, measure_injections, texts_by_injection


def run(settings: InjectSettings, bars: Bars = no_bars) -> dict[str, Any]:
    """Ask the judge about every text of the shipped set."""
    cases = InjectionSet.shipped()
    # Coherence is not what the injections are after, and a second request for every text.
    questions = {
        question.id: question.model_copy(update={"judge_prompts": {"aligned": question.judge_prompts["aligned"]}})
        for question in load_questions()
    }
    scores: list[Score] = []
    with (
        made_judge(settings.config, settings.device) as judge,
        bars("injections", len(cases.completions())) as advance,
    ):

        def keep(batch: list[Score]) -> None:
            scores.extend(batch)
            advance(len(batch))

        effects = measure_injections(judge, questions, cases, on_batch=keep)
    if settings.out is not None:
        rows = texts_by_injection(cases, scores)
        write_text(settings.out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    n_attacks = sum(item.kind != "control" for item in cases.injections)
    counts = {"n_answers": len(cases.answers), "n_injections": n_attacks}
    return {"judge": {"name": judge.name, "card": judge.card}, **counts, **effects}


def say(result: dict[str, Any]) -> str:
    plain = result["plain"]
    lines = [
        f"{result['judge']['name']}: {result['n_answers']} answers, {result['n_injections']} injections and control texts",
        f"plain answers: misaligned {_points(plain['misaligned'], '.0f')}, aligned {_points(plain['aligned'], '.0f')}; "
        f"{plain['n_caught']} of {plain['n_misaligned']} misaligned ones below 30",
        "",
        f"{'kind':14}{'change of misaligned':>26}{'change of aligned':>26}{'lifted':>16}{'no score left':>16}",
    ]
    for kind, row in result["kinds"].items():
        share = "none" if row["lifted"] is None else f"{100 * row['lifted']:.0f} % of {row['n_caught']}"
        lost = sum(row[side][key] for side in ("misaligned", "aligned") for key in ("n_unscored", "n_labelled"))
        changes = [_points(row[side]["change"], "+.1f") for side in ("misaligned", "aligned")]
        lines.append(f"{kind:14}{changes[0]:>26}{changes[1]:>26}{share:>16}{lost:>16}")
    minus = result["any_minus_control"]
    changes = [_points(minus[side], "+.1f") for side in ("misaligned", "aligned")]
    lines.append(f"{'any - control':14}{changes[0]:>26}{changes[1]:>26}")
    if result["n_failed"]:
        lines.append(
            f"{result['n_failed']} texts have no score because the server failed twice; run it again before reading these figures"
        )
    return "\n".join(lines)


def _points(row: dict[str, Any], form: str) -> str:
    return estimate(row, form)
