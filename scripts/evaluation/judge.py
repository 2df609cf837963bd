"""Judge the answers of a table: adds aligned, coherent, label and reason to its columns, row by row.

FILE is a CSV, JSONL or Parquet table with the columns `question` and `answer`. The rows keep their order and their cells. A row that
cannot be judged stays unscored with its reason (`empty answer`). Where the judge read only a part of an answer, a column `judge_note` says
how much. A killed run continues with the same command, and where a server failed in passing (a time-out, a busy or broken server) the
same command asks again.

Examples:
  python scripts/evaluate.py judge answers.csv --judge offline --out judged.csv
  python scripts/evaluate.py judge answers.jsonl --judge local --model Qwen/Qwen2.5-7B-Instruct --out judged.jsonl
  python scripts/evaluate.py judge answers.parquet --judge openai --questions questions.yaml --out judged.parquet
  python scripts/evaluate.py judge theirs.csv --columns answer=response question=prompt --out judged.csv

The judge prompts are those of --questions (the shipped suite's by default): of the row's `question_id` where that file has it, else the
ones that all questions of the file share. Beside OUT stand OUT's card (.judge.json) and, for judges that give it, the evidence of every
judgement (.evidence.jsonl). A column of the input that is called like a new one is kept as `given_...`; one that --columns names gets our
name, so that every other command reads OUT as it is.
"""

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from cli import progress_bar
from emis_interp.errors import DataError
from emis_interp.files.names import METRICS
from emis_interp.files.store import file_sha256, write_bytes, write_json
from emis_interp.files.table_output import check_ending, check_writable, write_cells
from emis_interp.files.tables import Table
from evals.judges.judge import passing_note, passing_reasons
from evals.judges.judged_rows import NOTE, columns_of, judge_rows, prompts_for, rows_of
from evals.questions import load_questions
from evaluation.judge_choice import add_judge_flags, make_judge
from table_flags import add_table_flags, reading_of


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="table of answers: .csv, .jsonl or .parquet")
    add_judge_flags(parser)
    parser.add_argument("--out", type=Path, required=True, help="where to write: .csv, .jsonl or .parquet")
    parser.add_argument("--questions", type=Path, help="YAML file of questions with judge prompts (default: shipped)")
    add_table_flags(parser, scores=False, arms=False)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Read, judge through the journal, write."""
    check_ending(args.out)
    table = reading_of(args).table(args.file, ("question", "answer"))
    if args.out.exists() and args.out.samefile(args.file):
        raise DataError(f"--out {args.out} is the input itself; give another file")
    rows = rows_of(table)
    check_writable(args.out, table)
    prompts = {}
    if args.judge != "offline":  # it has a rubric of its own
        prompts = prompts_for(rows, load_questions(args.questions), str(args.questions or "the shipped questions"))
    renamed = _renamed(table)
    judge = make_judge(args)
    journal = args.out.with_name(args.out.name + ".partial.jsonl")
    n_before = 0
    with progress_bar(f"judge {args.file.name}", len(rows)) as advance:
        counts: list[int] = []

        def tell(n: int) -> None:
            counts.append(n)
            advance(n)

        scores = judge_rows(judge, rows, prompts, journal=journal, on_done=tell)
        n_before = counts[0]
    columns = columns_of(scores)
    added = {**columns, **{metric: np.array(columns[metric], dtype=float) for metric in METRICS}}
    write_cells(args.out, table, added, renamed=renamed)
    result = {
        "out": str(args.out),
        "n": len(rows),
        "n_from_journal": n_before,
        "n_scored": {metric: int(np.isfinite(added[metric]).sum()) for metric in METRICS},
        "labels": dict(Counter(label for label in columns["label"] if label)),
        "unscored": dict(Counter(reason for reason in columns["reason"] if reason)),
        "n_read_in_part": sum(bool(note) for note in columns.get(NOTE, ())),
        "renamed": renamed,
        "judge": {"name": judge.name, "card": judge.card},
    }
    source = {"file": str(args.file), "sha256": file_sha256(args.file), "questions": str(args.questions or "shipped")}
    result["again"] = passing_note(passing_reasons(scores))
    write_json(args.out.with_suffix(".judge.json"), {**result, "source": source})
    if any(score.evidence for score in scores):
        write_bytes(args.out.with_suffix(".evidence.jsonl"), journal.read_bytes())
    if not result["again"]:
        journal.unlink()
    return result


def say(result: dict[str, Any]) -> str:
    scored = result["n_scored"]
    lines = [
        f"{result['out']}: {result['n']} rows by {result['judge']['name']}; "
        f"{scored['aligned']} with an aligned and {scored['coherent']} with a coherent score"
    ]
    lines += [f"  {n} x label {label}" for label, n in result["labels"].items()]
    lines += [f"  {n} x unscored: {reason}" for reason, n in result["unscored"].items()]
    lines += [f"  {result['again']}"] if result["again"] else []
    if result["n_read_in_part"]:
        lines.append(
            f"  {result['n_read_in_part']} answers were read only in part; column `{NOTE}` says how much of each"
        )
    lines += [f"  the input's `{old}` is kept as `{new}`" for old, new in result["renamed"].items()]
    return "\n".join(lines)


def _renamed(table: Table) -> dict[str, str]:
    """New names for columns of the input that are called like ours."""
    renamed = {name: f"given_{name}" for name in (*METRICS, "label", "reason", NOTE) if name in table.columns}
    for old, new in renamed.items():
        if new in table.columns:
            raise DataError(f"{table.path}: has both `{old}` and `{new}`; rename or drop one of them")
    return renamed
