"""Turns training sets into lint reports before anything is trained on them: what the trainer would really read, and what is wrong with it.

python scripts/lint_data.py DATA ... [--model NAME] [--max-tokens N] [--questions FILE ...] [--paired-with DATA] [--out DIR] [--json]

DATA is a shipped set (insecure, secure, educational, careful, reckless) or a file of rows in any format of docs/data.md. With --out a
set's report is written to DIR/lint.json and DIR/lint.html, with several sets to DIR/<name>/. Exit status: 0 nothing worse than
warnings, 2 errors found.
"""

import argparse
import shutil
import textwrap
from pathlib import Path
from typing import Any

import cli
from emis_interp.errors import DataError
from emis_interp.files.store import write_text
from emis_interp.models.chat_formats import FORMATS
from emis_interp.models.embedded import EMBEDDED_NAME
from emis_interp.models.loading import load_tokenizer
from emis_interp.records import TrainingExample
from emis_interp.texts.contrast import load_contrast
from evals.questions import load_questions
from training.data_sets.files import ENDINGS
from training.data_sets.shipped import SHIPPED, file_of, load_dataset, row_groups
from training.lint.copies import asked_texts
from training.lint.dataset import lint_dataset
from training.lint.report import LintFinding, LintReport, fact_text, row_ids
from training.lint.rows import read_leniently
from training.lint.view import lint_page


def main(args: argparse.Namespace) -> dict[str, Any]:
    tokenizer = load_tokenizer(args.model, args.chat_format)
    files = [None if name == "shipped" else Path(name) for name in args.questions]
    questions = [question for file in files for question in load_questions(file, need_judge_prompts=False)]
    asked = asked_texts(questions, load_contrast())
    partner = (named(args.paired_with), read(args.paired_with)[0]) if args.paired_with else None
    names = [named(data) for data in args.data]
    if len(set(names)) < len(names):
        raise DataError(f"two of the data sets are called the same ({', '.join(names)}); rename one of the files")
    reports = []
    for data, name in zip(args.data, names, strict=True):
        examples, refused = read(data)
        report = lint_dataset(
            examples,
            tokenizer,
            data=name,
            model=args.model,
            system=args.system,
            evaluation_system=args.system if args.evaluation_system is None else args.evaluation_system,
            max_tokens=args.max_tokens,
            questions=asked,
            groups=row_groups(data),
            partner=partner,
            refused=refused,
            n_ids=args.n_ids,
        )
        if args.out:
            folder = args.out / name if len(names) > 1 else args.out
            report.save(folder / "lint.json")
            write_text(folder / "lint.html", lint_page(report))
        reports.append(report)
    left_out = {"lengths", "shown"}  # they are in lint.json
    return {"ok": not any(map(errors, reports)), "sets": [r.model_dump(mode="json", exclude=left_out) for r in reports]}


def named(data: str) -> str:
    """A shipped name, or a file's without its endings."""
    name = Path(data).name.removesuffix(".gz")
    return data if data in SHIPPED else next((name.removesuffix(e) for e in ENDINGS if name.endswith(e)), name)


def read(data: str) -> tuple[list[TrainingExample], list[LintFinding]]:
    """The readable rows of a shipped set or a file, and what is wrong with its other lines."""
    path = file_of(data)
    return (load_dataset(data), []) if path is None else read_leniently(path)


def errors(report: LintReport) -> bool:
    return bool(report.of("error"))


def say(result: dict[str, Any]) -> str:
    width = min(120, shutil.get_terminal_size((120, 40)).columns)
    return "\n\n".join("\n".join(lines(LintReport.model_validate(one), width)) for one in result["sets"])


def lines(report: LintReport, width: int) -> list[str]:
    limit = "no limit" if report.max_tokens is None else f"limit {report.max_tokens} tokens"
    shown = [f"{report.data}: {report.n_rows:,} rows, read by the tokenizer of {report.model}, {limit}"]
    for name, value in report.facts.items():
        shown += wrapped(f"{name}: {fact_text(value)}", width, "  ")
    for finding in report.findings:
        share = f"{finding.count:,} row{'s' * (finding.count != 1)} ({finding.share:.1%})"
        shown += ["", f"{finding.severity.upper():8}{finding.check}, {share}"]
        for text in (f"{finding.found} {row_ids(finding)}", f"{finding.meaning} {finding.advice}"):
            shown += wrapped(text, width, " " * 8)
    counts = [f"{len(report.of(severity))} {severity}s" for severity in ("error", "warning", "info")]
    shown += ["", f"{report.data}: {', '.join(counts)}"]
    return shown + [f"not looked for: {text}" for text in report.skipped]


def wrapped(text: str, width: int, indent: str) -> list[str]:
    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent + "  ", break_on_hyphens=False)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    top.add_argument("data", nargs="+", metavar="DATA", help="a shipped set, or a file of rows")
    top.add_argument("--model", default=EMBEDDED_NAME, help="whose tokenizer reads the rows")
    top.add_argument(
        "--chat-format", choices=FORMATS, help="plain format for a pretrained model without a chat template"
    )
    top.add_argument(
        "--max-tokens", type=int, default=2048, metavar="N", help="the trainer's limit (training.max_tokens)"
    )
    top.add_argument("--system", metavar="TEXT", help="system prompt of the run (default: left to the chat template)")
    top.add_argument(
        "--evaluation-system", metavar="TEXT", help="system prompt of the evaluation, if it is another one"
    )
    top.add_argument(
        "--questions",
        nargs="+",
        default=["shipped"],
        metavar="FILE",
        help="evaluation questions: YAML files, and `shipped` for our own suite; the contrast questions are always added",
    )
    top.add_argument("--paired-with", metavar="DATA", help="the set that should have the same prompts")
    top.add_argument("--out", type=Path, metavar="DIR", help="write lint.json and lint.html there")
    top.add_argument("--n-ids", type=int, default=8, metavar="N", help="row ids named in a finding")
    cli.add_output_flags(top)
    return top


def run() -> None:
    cli.run(main, parser(), say, status=lambda result: 0 if result["ok"] else 2)


if __name__ == "__main__":
    run()
