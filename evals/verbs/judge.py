"""Turns a table of answers into the same table with a judge's scores."""

from collections import Counter
from typing import Any

import numpy as np

from emis_interp.errors import DataError
from emis_interp.files.names import METRICS
from emis_interp.files.store import file_sha256, write_bytes, write_json
from emis_interp.files.table_output import check_ending, check_writable, write_cells
from emis_interp.files.tables import Table
from emis_interp.process import Bars, no_bars, only_writer
from evals.judges.judge import passing_note, passing_reasons
from evals.judges.judged_rows import NOTE, columns_of, judge_rows, prompts_for, rows_of
from evals.judges.making import made_judge
from evals.questions import load_questions
from evals.settings.judging import JudgeTableSettings


def run(settings: JudgeTableSettings, bars: Bars = no_bars) -> dict[str, Any]:
    """Read, judge through the journal, write."""
    with only_writer(settings.out.parent, settings.out.name):
        return _judge(settings, bars)


def _judge(settings: JudgeTableSettings, bars: Bars) -> dict[str, Any]:
    check_ending(settings.out)
    table = settings.reading().table(settings.file, ("question", "answer"))
    if settings.out.exists() and settings.out.samefile(settings.file):
        raise DataError(f"--out {settings.out} is the input itself; give another file")
    rows = rows_of(table)
    check_writable(settings.out, table)
    prompts = {}
    if settings.judge != "offline":  # it has a rubric of its own
        prompts = prompts_for(
            rows, load_questions(settings.questions), str(settings.questions or "the shipped questions")
        )
    renamed = _renamed(table)
    journal = settings.out.with_name(settings.out.name + ".partial.jsonl")
    n_before = 0
    with (
        made_judge(settings.config, settings.device) as judge,
        bars(f"judge {settings.file.name}", len(rows)) as advance,
    ):
        counts: list[int] = []

        def tell(n: int) -> None:
            counts.append(n)
            advance(n)

        scores = judge_rows(judge, rows, prompts, journal=journal, on_done=tell)
        n_before = counts[0]
    columns = columns_of(scores)
    added = {**columns, **{metric: np.array(columns[metric], dtype=float) for metric in METRICS}}
    write_cells(settings.out, table, added, renamed=renamed)
    result = {
        "out": str(settings.out),
        "n": len(rows),
        "n_from_journal": n_before,
        "n_scored": {metric: int(np.isfinite(added[metric]).sum()) for metric in METRICS},
        "labels": dict(Counter(label for label in columns["label"] if label)),
        "unscored": dict(Counter(reason for reason in columns["reason"] if reason)),
        "n_read_in_part": sum(bool(note) for note in columns.get(NOTE, ())),
        "renamed": renamed,
        "judge": {"name": judge.name, "card": judge.card},
    }
    source = {
        "file": str(settings.file),
        "sha256": file_sha256(settings.file),
        "questions": str(settings.questions or "shipped"),
    }
    result["again"] = passing_note(passing_reasons(scores))
    write_json(settings.out.with_suffix(".judge.json"), {**result, "source": source})
    if any(score.evidence for score in scores):
        write_bytes(settings.out.with_suffix(".evidence.jsonl"), journal.read_bytes())
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
