"""Turns rows of questions and answers into Scores, through a journal that a killed run goes on from.

The journal is JSONL beside the result, one line for each judged row. A line belongs to a row when the row's content and the judge prompts
hash to what it holds, so another input, another question file or another judge is refused rather than mixed in.
"""

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emis_interp.errors import DataError, StageError
from emis_interp.files.journal import Journal
from emis_interp.files.names import METRICS
from emis_interp.files.store import RecordLog
from emis_interp.files.tables import Table
from emis_interp.records import Completion, Question, Record, Score
from evals.judges.judge import Judge, blank_scores, has_passing, settled_rows, why_unjudgeable

ARM = "rows"
NOTE = "judge_note"


@dataclass(frozen=True)
class Row:
    """One answer of a table. `question_id` is empty where the table has none."""

    question: str
    answer: str
    question_id: str = ""


class JournalLine(Record):
    """A judged row: its number from 0, the hash of what was judged, and the Score."""

    index: int
    sha256: str
    score: Score

    @property
    def passing(self) -> tuple[str, ...]:
        return self.score.passing


def rows_of(table: Table) -> list[Row]:
    """The rows of a table with `question`, `answer` and, if there, `question_id`, in which half a surrogate pair is spelled out.

    Raises:
        DataError: a cell of these columns is a list, an object or bytes.
    """
    ids = table.names("question_id") if "question_id" in table.columns else [""] * len(table)
    encodable = [name.encode("utf-8", "backslashreplace").decode("utf-8") for name in ids]
    return [Row(*texts) for texts in zip(table.text("question"), table.text("answer"), encodable, strict=True)]


def judge_rows(
    judge: Judge,
    rows: Sequence[Row],
    questions: Mapping[str, Question],
    *,
    journal: Path,
    on_done: Callable[[int], None] = lambda _: None,
) -> list[Score]:
    """A Score for every row, in their order; one that nobody can judge (`why_unjudgeable`) is unscored and never sent.

    Args:
        questions: the question of each row's `question_id` (see `prompts_for`); empty for a judge that needs no prompts.
        on_done: called with the number of rows just finished, those of an earlier run first; a row whose reason for being unscored may
            pass is not among these and is asked for again.

    Raises:
        StageError: the journal holds judgements of other rows, prompts or another judge.
    """
    hashes = [_sha256(row, questions.get(row.question_id)) for row in rows]
    log = RecordLog(journal)

    def ours(lines: Iterator[JournalLine]) -> Iterator[JournalLine]:
        for line in lines:
            if line.score.judge != judge.name:
                found = f"judgements of {line.score.judge}, this run asks {judge.name}"
            elif line.index >= len(rows) or line.sha256 != hashes[line.index]:
                found = f"a judgement of row {line.index + 1} that is not of this row or not by these prompts"
            else:
                yield line
                continue
            raise StageError(f"{journal}: holds {found}; give another --out, or delete this file to judge again")

    if has_passing(journal, JournalLine):  # some leave the file, which is refused before anything in it changes
        deque(ours(log.rows(JournalLine)), maxlen=0)
    kept = Journal(log, ours(settled_rows(log, JournalLine)), lambda line: line.index, advance=on_done)

    def keep(batch: list[Score]) -> None:
        kept.keep([JournalLine(index=(i := score.sample_index), sha256=hashes[i], score=score) for score in batch])

    def keep_blank(numbers: list[int]) -> None:
        keep(blank_scores(judge.name, [_completion(i, rows[i]) for i in numbers]))

    def judge_missing(numbers: list[int]) -> None:
        judge.score([_completion(i, rows[i]) for i in numbers], questions, keep)

    def lost(number: int) -> str:
        return f"{judge.name} gave no judgement for row {number + 1}"

    blank = [i for i, row in enumerate(rows) if why_unjudgeable(row.question, row.answer)]
    kept.fill(blank, keep_blank)
    asked = sorted({*range(len(rows))} - {*blank})
    kept.fill(asked, judge_missing, together=judge.together, lost=lost)
    return [kept.done[i].score for i in range(len(rows))]


def columns_of(scores: Sequence[Score]) -> dict[str, list[Any]]:
    """`aligned`, `coherent` (None where there is no number), `label`, and `reason`: why a metric has neither, empty otherwise.

    Where the judge read only a part of some answers, also `judge_note` with how much of each.
    """
    notes = [score.note or "" for score in scores]
    return {
        **{metric: [getattr(score, metric) for score in scores] for metric in METRICS},
        "label": [score.aligned_label or "" for score in scores],
        "reason": [_reason(score) for score in scores],
        **({NOTE: notes} if any(notes) else {}),
    }


def prompts_for(rows: Sequence[Row], suite: Sequence[Question], where: str) -> dict[str, Question]:
    """The question whose judge prompts each `question_id` of the rows gets: its own in the suite, else the prompts that all share.

    Args:
        suite: questions of a file; `where` names it in errors.

    Raises:
        DataError: a row's question is not in the suite, and the suite's questions do not share their judge prompts.
    """
    known = {question.id: question for question in suite}
    shared = [dict(items) for items in {tuple(sorted(question.judge_prompts.items())) for question in suite}]
    found = {}
    for number, row in enumerate(rows, 1):
        if row.question_id in found:
            continue
        if row.question_id in known:
            found[row.question_id] = known[row.question_id]
        elif len(shared) == 1:
            found[row.question_id] = Question(id=row.question_id, paraphrases=(row.question,), judge_prompts=shared[0])
        else:
            given = f"question_id `{row.question_id}`" if row.question_id else "no question_id"
            raise DataError(
                f"row {number} has {given}, which is not in {where}, whose questions have {len(shared)} different sets of judge prompts; "
                "give --questions with one set, or question ids of that file"
            )
    return found


def _completion(index: int, row: Row) -> Completion:
    return Completion.given(ARM, row.question_id, index, question=row.question, answer=row.answer)


def _reason(score: Score) -> str:
    if set(score.unscored) == set(METRICS) and len(set(score.unscored.values())) == 1:
        return score.unscored["aligned"]
    return "; ".join(f"{metric}: {reason}" for metric, reason in score.unscored.items())


def _sha256(row: Row, question: Question | None) -> str:
    prompts = sorted(question.judge_prompts.items()) if question else []
    content = json.dumps([row.question, row.answer, row.question_id, prompts])
    return hashlib.sha256(content.encode("utf-8")).hexdigest()
