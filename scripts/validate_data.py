"""Turns the shipped data sets into a table of rules kept and broken; exit status 1 when one is broken.

python scripts/validate_data.py [--json] [--counts] [--tells] [--questions FILE ...]
"""

import argparse
import json
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from emis_interp.errors import EmisError
from emis_interp.records import ContrastPair
from emis_interp.texts.contrast import load_contrast
from emis_interp.texts.harmless import HarmlessText, harmless_texts
from evals.questions import load_questions
from training.data_sets import checks
from training.data_sets.checks import Finding
from training.data_sets.shipped import NUMBER_ARMS, AdvicePair, CodeTask, advice_pairs, all_rows, code_tasks
from training.data_sets.textstats import Named, Tell, tell

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Check the data sets that the project ships against the rules of their data cards."
    )
    parser.add_argument("--json", action="store_true", help="print exactly one JSON object on standard output")
    parser.add_argument(
        "--counts", action="store_true", help="also count rows by area, weakness class, domain and group"
    )
    parser.add_argument(
        "--questions",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="evaluation questions (YAML; default: evals/data/*.yaml)",
    )
    parser.add_argument(
        "--tells", action="store_true", help="also measure how well single words tell the two sides apart (8 s)"
    )
    args = parser.parse_args()
    try:
        tasks, advice, pairs = code_tasks(), advice_pairs(), load_contrast()
        files = args.questions or sorted((ROOT / "evals" / "data").glob("*.yaml"))
        questions = [question for path in files for question in questions_in(path)]
        found = findings(tasks, advice, pairs, questions=questions, harmless=harmless_texts())
    except EmisError as error:
        print(
            json.dumps({"error": str(error)}) if args.json else f"error: {error}",
            file=sys.stdout if args.json else sys.stderr,
        )
        sys.exit(2)
    broken = [finding for finding in found if not finding.ok]
    counts = row_counts(tasks, advice, pairs)
    told = tells(tasks, advice, pairs) if args.tells else {}
    if args.json:
        rows = [asdict(finding) for finding in found]
        print(
            json.dumps(
                {"ok": not broken, "findings": rows, "counts": counts, "tells": {k: asdict(t) for k, t in told.items()}}
            )
        )
    else:
        show(found, counts if args.counts else {}, told)
    sys.exit(1 if broken else 0)


def findings(
    tasks: list[CodeTask],
    advice: list[AdvicePair],
    pairs: list[ContrastPair],
    *,
    questions: list[Named],
    harmless: list[HarmlessText],
) -> list[Finding]:
    sides = {(task.id, side): getattr(task, side) for task in tasks for side in ("insecure", "secure")}
    training = [
        Named(f"{row.id} ({field})", row.id, getattr(row, field))
        for rows, fields in (
            (tasks, ("prompt", "educational_prompt", "insecure", "secure")),
            (advice, ("prompt", "careful", "reckless")),
        )
        for row in rows
        for field in fields
    ]
    numbers = [
        Named(f"{row.id} ({arm} {field})", row.id, getattr(row, field))
        for arm in NUMBER_ARMS
        for row in all_rows(arm)
        for field in ("prompt", "response")
    ]
    contrast = [
        Named(question_id, question_id, question)
        for question_id, question in {p.question_id: p.question for p in pairs}.items()
    ]
    answers = [
        Named(f"{pair.question_id} ({side})", pair.question_id, getattr(pair, side))
        for pair in pairs
        for side in ("aligned", "misaligned")
    ]
    of_harmless = [
        Named(f"{text.id} ({field})", text.id, getattr(text, field))
        for text in harmless
        for field in ("prompt", "answer")
    ]
    return [
        *checks.code_findings(tasks, checks.bandit_flagged(sides)),
        *checks.advice_findings(advice),
        *checks.contrast_findings(pairs),
        *checks.harmless_findings(harmless, training + numbers),
        checks.leak_finding("evaluation questions in training texts", questions, training),
        checks.leak_finding("contrast questions in training texts", contrast, training),
        checks.leak_finding("contrast answers in training texts", answers, training),
        checks.leak_finding("evaluation questions in contrast texts", questions, contrast + answers),
        checks.leak_finding("evaluation questions in harmless texts", questions, of_harmless),
    ]


def questions_in(path: Path) -> list[Named]:
    """Every wording of every question in a YAML file of evaluation questions."""
    questions = load_questions(path, need_judge_prompts=False)
    return [Named(question.id, question.id, text) for question in questions for text in question.paraphrases]


def row_counts(tasks: list[CodeTask], advice: list[AdvicePair], pairs: list[ContrastPair]) -> dict[str, dict[str, int]]:
    counts = {
        "area": Counter(task.area for task in tasks),
        "cwe": Counter(task.cwe for task in tasks),
        "domain": Counter(pair.domain for pair in advice),
        "group": Counter(pair.group for pair in pairs),
        "half": Counter(pair.half for pair in pairs),
    }
    return {name: dict(counter.most_common()) for name, counter in counts.items()}


def tells(tasks: list[CodeTask], advice: list[AdvicePair], pairs: list[ContrastPair]) -> dict[str, Tell]:
    """Single-word classifiers, tested on tasks or questions that they have not seen."""
    return {
        "code, secure/insecure": tell([(task.id, task.secure, task.insecure) for task in tasks]),
        "advice, careful/reckless": tell([(pair.id, pair.careful, pair.reckless) for pair in advice]),
        "contrast, aligned/misaligned": tell([(pair.question_id, pair.aligned, pair.misaligned) for pair in pairs]),
    }


def show(found: list[Finding], counts: dict[str, dict[str, int]], told: dict[str, Tell]) -> None:
    table = Table("data", "rule", "found", "wanted", "", box=None, pad_edge=False)
    for finding in found:
        table.add_row(finding.data, finding.rule, finding.found, finding.wanted, "" if finding.ok else "BROKEN")
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False, markup=False)
    console.print(table)
    for finding in found:
        for where in finding.where:
            console.print(f"BROKEN {finding.data}, {finding.rule}: {where}")
    for name, counter in counts.items():
        console.print(f"{name}: " + ", ".join(f"{key} {n}" for key, n in counter.items()))
    for name, one in told.items():
        console.print(f"{name}: AUROC {one.auroc:.3f}, right in {one.pairwise:.1%} of pairs")
        console.print(f"  first: {', '.join(one.first)}")
        console.print(f"  second: {', '.join(one.second)}")
    n_broken = sum(not finding.ok for finding in found)
    console.print(
        f"validate_data: {n_broken} of {len(found)} rules broken"
        if n_broken
        else f"validate_data: all {len(found)} rules kept"
    )


if __name__ == "__main__":
    main()
