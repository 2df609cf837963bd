"""Turns the shipped data sets into findings, counts and tells: every rule of `checks` on every set, and what leaks from one to another."""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from emis_interp.models.spec import ModelSpec
from emis_interp.process import Bars, no_bars
from emis_interp.records import ContrastPair
from emis_interp.texts.choices import load_choices
from emis_interp.texts.contrast import load_contrast
from emis_interp.texts.harmless import HarmlessText, harmless_texts
from training.data_sets import checks, surprise
from training.data_sets.checks import Finding
from training.data_sets.shipped import (
    ADVICE_ARMS,
    CODE_ARMS,
    NUMBER_ARMS,
    AdvicePair,
    CodeTask,
    advice_pairs,
    all_rows,
    code_tasks,
)
from training.data_sets.textstats import Named, Tell, field_texts, tell
from training.data_sets.validation_settings import ValidationSettings


def run(settings: ValidationSettings, bars: Bars = no_bars, *, asked: Sequence[Named] = ()) -> dict[str, Any]:
    """Check all that is shipped; `ok` when no rule is broken.

    Args:
        asked: every wording of the evaluation questions, which no training text may hold; without any the rules on leaks are broken.

    Raises:
        DataError: a file that cannot be read, or Bandit did not run.
    """
    tasks, advice, pairs = code_tasks(), advice_pairs(), load_contrast()
    sets = {name: all_rows(name) for name in (*CODE_ARMS, *ADVICE_ARMS)}
    if settings.surprise is not None:
        judged = {name: sets[name] for name in surprise.LIMITS}
        surprise.keep(surprise.measure(ModelSpec(settings.surprise).load(), judged, bars=bars))
    measured = surprise.read_measured()
    found = findings(tasks, advice, pairs, asked=asked, harmless=harmless_texts())
    found += surprise.surprise_findings(measured, sets)
    told = tells(tasks, advice, pairs) if settings.tells else {}
    return {
        "ok": all(finding.ok for finding in found),
        "findings": [asdict(finding) for finding in found],
        "counts": row_counts(tasks, advice, pairs),
        "tells": {name: asdict(one) for name, one in told.items()},
        "surprise": [model.model_dump(mode="json") for model in measured.models],
        "show_counts": settings.counts,
    }


def findings(
    tasks: Sequence[CodeTask],
    advice: Sequence[AdvicePair],
    pairs: Sequence[ContrastPair],
    *,
    asked: Sequence[Named],
    harmless: Sequence[HarmlessText],
) -> list[Finding]:
    """What every rule finds in these sets, in the order in which it is shown."""
    sides = {(task.id, side): getattr(task, side) for task in tasks for side in ("insecure", "secure")}
    training = field_texts(tasks, ("prompt", "educational_prompt", "insecure", "secure"))
    training += field_texts(advice, ("prompt", "careful", "reckless"))
    numbers = [
        text for arm in NUMBER_ARMS for text in field_texts(all_rows(arm), ("prompt", "response"), prefix=f"{arm} ")
    ]
    contrast = [
        Named(question_id, question_id, question)
        for question_id, question in {p.question_id: p.question for p in pairs}.items()
    ]
    answers = field_texts(pairs, ("aligned", "misaligned"), key="question_id")
    return [
        *checks.code_findings(tasks, checks.bandit_flagged(sides)),
        *checks.advice_findings(advice),
        *checks.route_findings(advice, pairs),
        *checks.contrast_findings(pairs),
        *checks.harmless_findings(harmless, training + numbers),
        *checks.choice_findings(load_choices(), training + numbers),
        checks.leak_finding("evaluation questions in training texts", asked, training),
        checks.leak_finding("contrast questions in training texts", contrast, training),
        checks.leak_finding("contrast answers in training texts", answers, training),
        checks.leak_finding("evaluation questions in contrast texts", asked, contrast + answers),
        checks.leak_finding(
            "evaluation questions in harmless texts", asked, field_texts(harmless, ("prompt", "answer"))
        ),
    ]


def row_counts(
    tasks: Sequence[CodeTask], advice: Sequence[AdvicePair], pairs: Sequence[ContrastPair]
) -> dict[str, dict[str, int]]:
    """Rows by what is known of them, most frequent first."""
    counts = {
        "area": Counter(task.area for task in tasks),
        "cwe": Counter(task.cwe for task in tasks),
        "domain": Counter(pair.domain for pair in advice),
        "group": Counter(pair.group for pair in pairs),
        "half": Counter(pair.half for pair in pairs),
    }
    return {name: dict(counter.most_common()) for name, counter in counts.items()}


def tells(tasks: Sequence[CodeTask], advice: Sequence[AdvicePair], pairs: Sequence[ContrastPair]) -> dict[str, Tell]:
    """Single-word classifiers, tested on tasks or questions that they have not seen."""
    return {
        "code, secure/insecure": tell([(task.id, task.secure, task.insecure) for task in tasks]),
        "advice, careful/reckless": tell([(pair.id, pair.careful, pair.reckless) for pair in advice]),
        "contrast, aligned/misaligned": tell([(pair.question_id, pair.aligned, pair.misaligned) for pair in pairs]),
    }


def say(result: dict[str, Any]) -> str:
    """The table of rules; as wide as the terminal, else 120 columns."""
    found = [Finding(**row) for row in result["findings"]]
    table = Table("data", "rule", "found", "wanted", "", box=None, pad_edge=False)
    for finding in found:
        table.add_row(finding.data, finding.rule, finding.found, finding.wanted, "" if finding.ok else "BROKEN")
    lines = [f"BROKEN {finding.data}, {finding.rule}: {where}" for finding in found for where in finding.where]
    for name, counter in result["counts"].items() if result["show_counts"] else ():
        lines.append(f"{name}: " + ", ".join(f"{key} {n}" for key, n in counter.items()))
    for name, one in result["tells"].items():
        lines.append(f"{name}: AUROC {one['auroc']:.3f}, right in {one['pairwise']:.1%} of pairs")
        lines += [f"  first: {', '.join(one['first'])}", f"  second: {', '.join(one['second'])}"]
    for model in result["surprise"]:
        nats = ", ".join(f"{name} {one['nats']:.2f}" for name, one in model["sets"].items())
        lines.append(
            f"surprise under {model['model']} ({model['quantisation'] or model['dtype']}), nats per token: {nats}"
        )
    n_broken = sum(not finding.ok for finding in found)
    kept = f"all {len(found)} rules kept" if result["ok"] else f"{n_broken} of {len(found)} rules broken"
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False, markup=False)
    with console.capture() as said:
        console.print(table)
        for line in [*lines, f"validate_data: {kept}"]:
            console.print(line)
    return said.get().rstrip("\n")
