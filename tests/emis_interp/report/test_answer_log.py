"""Answers that are read from disk when they are asked for are those that stand in the files."""

import json
from pathlib import Path
from typing import Any

import made_records
import numpy as np
import pytest
from planted_page import write_run

from emis_interp.errors import DataError
from emis_interp.files.store import RecordLog
from emis_interp.records import Completion, Score
from emis_interp.report.answer_log import ANOTHER_TEXT, NOT_JUDGED, AnswerLog
from emis_interp.report.contents import load_contents
from emis_interp.report.provenance import RowReader


def planted(folder: Path, n: int = 6, arm: str = "base") -> tuple[list[Completion], list[Score]]:
    """Answers of two questions, and scores of all but the last, in the opposite order."""
    answers = [
        made_records.completion(
            f"said\n{i} é \u2028", f"q{i % 2}", sample=i, arm=arm, finish="length" if i == 1 else "stop"
        )
        for i in range(n)
    ]
    scores = [
        Score.of(row, judge="j", aligned=10.0 * i, coherent=None if i == 2 else 80.0) for i, row in enumerate(answers)
    ]
    RecordLog(folder / "samples" / f"{arm}.jsonl").append(answers)
    RecordLog(folder / "scores" / f"{arm}.jsonl").append(reversed(scores[:-1]))
    return answers, scores


def log_of(folder: Path, *arms: str) -> tuple[AnswerLog, RowReader]:
    found, reader = AnswerLog(), RowReader(folder)
    for arm in arms:
        found.add(reader, folder / "samples" / f"{arm}.jsonl", folder / "scores" / f"{arm}.jsonl")
    return found, reader


def test_every_answer_has_its_own_score_wherever_it_stands(tmp_path: Path) -> None:
    first, scores = planted(tmp_path)
    second, _ = planted(tmp_path, arm="bad")
    found, reader = log_of(tmp_path, "base", "bad")
    assert [answer.completion for answer in found] == [*first, *second] and len(found) == 12
    assert [answer.score for answer in found][:6] == [*scores[:5], None]
    assert found[5].why_no_score == NOT_JUDGED and found[-1].completion == second[-1]
    assert [answer.completion for answer in found[4:8]] == [*first[4:], *second[:2]]
    assert [answer.completion for answer in found.at([11, 0, 7])] == [second[5], first[0], second[1]]
    with pytest.raises(IndexError):
        _ = found[12]
    assert reader.notes == []


def test_the_columns_are_those_of_the_rows(tmp_path: Path) -> None:
    planted(tmp_path)
    found, _ = log_of(tmp_path, "base")
    columns = found.columns
    assert columns.arms == [("base", False)] and columns.questions == ["q0", "q1"]
    np.testing.assert_array_equal(columns.aligned, [0, 10, 20, 30, 40, np.nan])
    np.testing.assert_array_equal(columns.coherent, [80, 80, np.nan, 80, 80, np.nan])
    assert columns.question.tolist() == [0, 1] * 3 and columns.is_cut.tolist() == [False, True, *[False] * 4]


def test_repeated_broken_and_unfinished_rows_are_named_and_left_out(tmp_path: Path) -> None:
    answers, _ = planted(tmp_path)
    path = tmp_path / "samples" / "base.jsonl"
    row = json.loads(path.read_bytes().splitlines()[0])
    with path.open("ab") as file:
        file.write(json.dumps(row | {"answer": "a second one"}).encode() + b"\n{broken\n\xff\n" + b'{"arm": "ba')
    found, reader = log_of(tmp_path, "base")
    assert [answer.completion for answer in found] == answers
    assert any("2 row(s) that cannot be read" in note and "line 8" in note for note in reader.notes)
    assert any("1 row(s) about an answer that stands there before" in note for note in reader.notes)


def test_a_score_of_another_text_is_not_shown_and_not_counted(tmp_path: Path) -> None:
    planted(tmp_path)
    path = tmp_path / "samples" / "base.jsonl"
    path.write_bytes(path.read_bytes().replace(b"said\\n3", b"says\\n3"))
    found, reader = log_of(tmp_path, "base")
    assert found[3].score is None and found[3].why_no_score == ANOTHER_TEXT and np.isnan(found.columns.aligned[3])
    assert found[4].score is not None and any(
        "1 score(s) of answers that were replaced" in note for note in reader.notes
    )


@pytest.mark.parametrize(
    "change", [lambda text: b"\n" + text, lambda text: text[:40], lambda text: text.replace(b'"base"', b'"else"')]
)
@pytest.mark.parametrize("name", ["samples", "scores"])
def test_a_file_that_changes_in_the_meantime_is_named(tmp_path: Path, change: Any, name: str) -> None:
    planted(tmp_path)
    found, _ = log_of(tmp_path, "base")
    path = tmp_path / name / "base.jsonl"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError, match=r"base\.jsonl: changed while it was read"):
        list(found)


def test_a_planted_run_gives_its_answers_arms_before_interventions(tmp_path: Path) -> None:
    contents = load_contents(write_run(tmp_path))
    assert [answer.is_intervention for answer in contents.answers] == [False] * 9 + [True] * 3
    assert len({answer.completion.arm for answer in contents.answers}) == 4


def test_answers_with_half_of_a_surrogate_pair_are_counted(tmp_path: Path) -> None:
    RecordLog(tmp_path / "samples" / "base.jsonl").append(
        [made_records.completion(text, sample=i) for i, text in enumerate(["fine", "half \ud83d", "\udc00"])]
    )
    found, reader = log_of(tmp_path, "base")
    assert [answer.completion.answer for answer in found] == ["fine", "half \ud83d", "\udc00"]
    assert reader.notes == [
        "samples/base.jsonl: 2 answer(s) with half of a surrogate pair, which is written out on the page "
        "(base, question `q`, paraphrase 0, sample 1; base, question `q`, paraphrase 0, sample 2)."
    ]
