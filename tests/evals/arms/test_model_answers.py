"""Answers that stay on disk are those of their plan, in its order, and a file that changes under way is refused."""

import tracemalloc
from pathlib import Path

import made_records
import numpy as np
import pytest

from emis_interp.errors import DataError, StageError
from emis_interp.files.store import RecordLog
from emis_interp.records import Completion, Question, Score
from evals.arms.asking import judge_answers
from evals.arms.model_answers import ModelAnswers
from evals.judges.judge import OnBatch
from evals.rates.judged import JudgedColumns
from evals.rates.summary import summarize_arm
from evals.sampling import AnswerPlan, plan_prompts

QUESTIONS = [
    Question(id="a", paraphrases=("One?", "Two?"), samples_per_paraphrase=3),
    Question(id="b", paraphrases=("Three?",), samples_per_paraphrase=2, system="Be brief."),
]


def plan(n: int | None = None) -> AnswerPlan:
    return AnswerPlan("base", QUESTIONS, n, seed=4, system="Hello.")


def answered(row: Completion, text: str = "So.") -> Completion:
    n = row.seed % 7
    return row.answered(f"{text} {row.seed}", n, "length" if n > 4 else "stop")


def sampled(path: Path, n: int | None = None, text: str = "So.") -> list[Completion]:
    """Answers in the order of the plan, written in another one."""
    rows = [answered(row, text) for row in plan(n)]
    shuffled = sorted(rows, key=lambda row: row.seed)
    RecordLog(path).append(shuffled)
    return rows


class Planted:
    """A judge whose scores follow from the answer's seed; it remembers how often it was asked about what."""

    name, together = "planted", 4

    def __init__(self) -> None:
        self.card: dict[str, object] = {}
        self.asked: list[int] = []

    def score(self, completions: object, questions: object, on_batch: OnBatch) -> None:
        assert isinstance(completions, list)
        self.asked.append(len(completions))
        on_batch([scored(row) for row in reversed(completions)])


def scored(row: Completion) -> Score:
    if row.seed % 5 == 0:
        reasons = {"coherent": f"odd {row.seed % 2}", "aligned": "zero"}
        return Score.of(row, judge="planted", aligned=None, coherent=None, unscored=reasons)
    label = "CODE" if row.seed % 5 == 1 else None
    aligned = None if label else float(row.seed % 101)
    return Score.of(row, judge="planted", aligned=aligned, aligned_label=label, coherent=float(row.seed % 97))


def test_a_plan_knows_the_place_of_each_of_its_answers() -> None:
    rows = plan_prompts("base", QUESTIONS, None, seed=4, system="Hello.")
    assert len(plan()) == len(rows) == 8 and plan()[3:5] == rows[3:5] and plan()[-1] == rows[-1]
    assert [plan().place_of(row.key) for row in rows] == list(range(8))
    assert {row.system for row in rows} == {"Hello.", "Be brief."}
    strange = [
        ("other", "a", 0, 0),
        ("base", "c", 0, 0),
        ("base", "a", 2, 0),
        ("base", "a", 0, 3),
        ("base", "a", 0, -1),
    ]
    assert {plan().place_of(key) for key in strange} == {None}


def test_answers_are_read_in_the_order_of_the_plan_and_a_changed_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "base.jsonl"
    rows = sampled(path)
    answers = ModelAnswers(path, plan(), "sample again")
    assert list(answers) == rows and answers[2] == rows[2] and answers[2:4] == rows[2:4]
    assert answers.question_ids.tolist() == [row.question_id for row in rows]
    assert answers.n_tokens.tolist() == [row.n_tokens for row in rows]
    assert answers.n_cut == sum(row.finish == "length" for row in rows)
    path.write_bytes(path.read_bytes().replace(b"So.", b"No."))
    with pytest.raises(DataError, match="changed while it was read"):
        list(answers)


def test_repeated_missing_and_strange_answers_are_named(tmp_path: Path) -> None:
    path = tmp_path / "base.jsonl"
    rows = sampled(path)
    RecordLog(path).append([rows[5]])
    with pytest.raises(DataError, match=r"1 answer more than once, first base, question `a`, .* 2 \(rows \d, 9\)"):
        ModelAnswers(path, plan(), "sample again")
    path.unlink()
    RecordLog(path).append([*rows[1:], made_records.completion(question_id="z")])
    with pytest.raises(StageError, match=r"holds 7 of 8 answers, missing is first base, .* sample 0; sample again"):
        ModelAnswers(path, plan(), "sample again")
    RecordLog(path).append(rows[:1])
    with pytest.raises(StageError, match="1 answer that were not asked for, first base, question `z`"):
        ModelAnswers(path, plan(), "sample again")


def test_figures_of_what_is_on_disk_are_those_of_what_is_in_memory_and_an_interrupted_file_goes_on(
    tmp_path: Path,
) -> None:
    path, scores = tmp_path / "base.jsonl", tmp_path / "scores.jsonl"
    rows = sampled(path, n=20)
    expected = summarize_arm("base", JudgedColumns.of(rows, [scored(row) for row in rows]))
    assert expected["n_code"] and expected["n_unscored"] and len(expected["unscored_reasons"]) == 3
    answers, judge = ModelAnswers(path, plan(20), "sample again"), Planted()
    judged = judge_answers(judge, answers, QUESTIONS, path=scores, arm="base")
    found = summarize_arm("base", judged)
    assert found == expected and list(found["unscored_reasons"]) == list(expected["unscored_reasons"])
    lines = scores.read_bytes().splitlines(keepends=True)
    scores.write_bytes(b"".join(lines[:30]) + lines[30][:9])
    assert summarize_arm("base", judge_answers(judge, answers, QUESTIONS, path=scores, arm="base")) == expected
    assert judge.asked == [60, 32] and len(scores.read_bytes().splitlines()) == 60


def test_answers_and_scores_on_disk_take_no_memory_for_their_texts(tmp_path: Path) -> None:
    path = tmp_path / "base.jsonl"
    n = len(sampled(path, n=400, text="long " * 400))
    tracemalloc.start()
    try:
        judged = judge_answers(
            Planted(),
            ModelAnswers(path, plan(400), "sample again"),
            QUESTIONS,
            path=tmp_path / "scores.jsonl",
            arm="base",
        )
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert np.isfinite(judged.answers.coherent).sum() > n / 2
    assert held / n < 400 < path.stat().st_size / n / 4
