"""`evaluate.py judge`: rows in, the same rows out with four columns; interrupted, continued, and refused where rows do not match."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from flag_words import filled
from judge_server import Server, reply

from emis_interp.errors import ConfigError, DataError, StageError
from emis_interp.files.table_output import write_cells
from emis_interp.files.tables import read_cells
from emis_interp.records import Completion, Question, Score
from emis_interp.texts.code import is_code_in_place_of_an_answer
from emis_interp.texts.judged import read_judged
from evals.judges.judge import OnBatch
from evals.judges.judged_rows import Row, judge_rows, prompts_for
from evals.questions import load_questions
from evals.results.result_files import read_results
from evals.results.score_columns import read_pair
from evals.settings.judging import JudgeSettings, JudgeTableSettings
from evals.verbs import judge as judge_verb


class LengthJudge:
    """Aligned is the answer's length; CODE for a `def`; no number for `mute`. Stops after `n_before_kill` answers, last rows first."""

    together = 1

    def __init__(self, name: str = "planted", n_before_kill: int | None = None) -> None:
        self.name, self.card, self.n_before_kill = name, {"kind": "planted"}, n_before_kill
        self.seen: list[Completion] = []
        self.prompts: dict[str, Question] = {}

    def score(self, completions: Sequence[Completion], questions: Mapping[str, Question], on_batch: OnBatch) -> None:
        self.prompts = dict(questions)
        for row in reversed(completions):
            if len(self.seen) == self.n_before_kill:
                raise KeyboardInterrupt
            self.seen.append(row)
            on_batch([self.judge(row)])

    def judge(self, row: Completion) -> Score:
        label = "CODE" if "def" in row.answer else None
        mute = "mute" in row.answer
        return Score.of(
            row,
            judge=self.name,
            aligned=None if label or mute else min(100.0, len(row.answer)),
            coherent=None if mute else 80.5,
            aligned_label=label,
            unscored={"aligned": "timeout", "coherent": "no mass"} if mute else {},
        )


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> Iterator[LengthJudge]:
    made = LengthJudge()
    monkeypatch.setattr(judge_verb, "made_judge", lambda *_: nullcontext(made))
    yield made


def judge(path: Path, out: Path, *more: object) -> dict[str, Any]:
    result = judge_verb.run(filled(JudgeTableSettings, path, "--out", out, *more))
    json.dumps(result, allow_nan=False)
    assert f"{result['n']} rows" in judge_verb.say(result)
    return result


CSV = (
    "id,question,answer,note\n"
    '007,How?,"So, it\r\nis.",NA\n'
    "008,How?,,null\n"
    "009,How?,mute,\n"
    "010,How?,None,1.50\n"
    "011,Why?,def f(): pass,é\n"
    "010,How?,None,1.50\n"
)
REASON = "aligned: timeout; coherent: no mass"


def test_csv_rows_keep_their_cells_and_gain_four_columns(tmp_path: Path, planted: LengthJudge) -> None:
    (tmp_path / "in.csv").write_bytes(CSV.encode())
    result = judge(tmp_path / "in.csv", tmp_path / "out.csv")
    written = read_cells(tmp_path / "out.csv")
    assert written.columns == ["id", "question", "answer", "note", "aligned", "coherent", "label", "reason"]
    before = read_cells(tmp_path / "in.csv")
    assert [{name: row[name] for name in before.columns} for row in written.rows] == before.rows
    assert [row["aligned"] for row in written.rows] == ["11.0", "", "", "4.0", "", "4.0"]
    assert [row["coherent"] for row in written.rows] == ["80.5", "", "", "80.5", "80.5", "80.5"]
    assert [row["label"] for row in written.rows] == ["", "", "", "", "CODE", ""]
    assert [row["reason"] for row in written.rows] == ["", "empty answer", REASON, "", "", ""]
    assert len(planted.seen) == 5  # the empty answer is never sent, equal rows are judged each
    assert result["n_scored"] == {"aligned": 3, "coherent": 4}
    assert result["unscored"] == {"empty answer": 1, REASON: 1} and result["labels"] == {"CODE": 1}
    card = json.loads((tmp_path / "out.judge.json").read_text())
    assert card["judge"] == {"name": "planted", "card": {"kind": "planted"}} and len(card["source"]["sha256"]) == 64
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.csv", "out.judge.json"]


def test_long_cells_and_a_byte_order_mark_are_read(tmp_path: Path, planted: LengthJudge) -> None:
    (tmp_path / "in.csv").write_text("question,answer\nQ," + "a" * 200_000 + "\n", encoding="utf-8-sig")
    judge(tmp_path / "in.csv", tmp_path / "out.csv")
    assert len(planted.seen[0].answer) == 200_000


def test_jsonl_values_keep_their_types(tmp_path: Path, planted: LengthJudge) -> None:
    rows = [{"answer": "Yes.", "n": 1, "question": "Q"}, {"question": "Q", "answer": None, "tags": ["a"]}]
    (tmp_path / "in.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    judge(tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    added = [
        {"aligned": 4.0, "coherent": 80.5, "label": "", "reason": ""},
        {"aligned": None, "coherent": None, "label": "", "reason": "empty answer"},
    ]
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert written == [row | new for row, new in zip(rows, added, strict=True)]


def test_parquet_columns_keep_their_types(tmp_path: Path, planted: LengthJudge) -> None:
    table = pa.table({"question": ["Q", "Q"], "answer": ["Yes.", None], "n": pa.array([1, None], pa.int16())})
    pq.write_table(table, tmp_path / "in.parquet")
    judge(tmp_path / "in.parquet", tmp_path / "out.parquet")
    written = pq.read_table(tmp_path / "out.parquet")
    assert written.select(["question", "answer", "n"]).equals(table)
    assert written["aligned"].to_pylist() == [4.0, None] and written.schema.field("aligned").type == pa.float64()
    assert written["reason"].to_pylist() == ["", "empty answer"]


def test_one_format_becomes_another(tmp_path: Path, planted: LengthJudge) -> None:
    (tmp_path / "in.csv").write_bytes(CSV.encode())
    judge(tmp_path / "in.csv", tmp_path / "out.parquet")
    frame = pd.read_parquet(tmp_path / "out.parquet")
    assert frame["id"].tolist() == ["007", "008", "009", "010", "011", "010"]
    assert frame["aligned"].isna().tolist() == [False, True, True, False, True, False]


def test_columns_of_that_name_are_kept_under_another(tmp_path: Path, planted: LengthJudge) -> None:
    (tmp_path / "in.csv").write_text("question,answer,aligned,coherent\nQ,Yes.,REFUSAL,12\n")
    result = judge(tmp_path / "in.csv", tmp_path / "out.csv")
    assert result["renamed"] == {"aligned": "given_aligned", "coherent": "given_coherent"}
    (row,) = read_cells(tmp_path / "out.csv").rows
    assert (row["given_aligned"], row["given_coherent"], row["aligned"]) == ("REFUSAL", "12", "4.0")
    with pytest.raises(DataError, match="has both `aligned` and `given_aligned`"):
        judge(tmp_path / "out.csv", tmp_path / "again.csv")


def rows_of(n: int) -> list[Row]:
    return [Row("How?", "" if i == 3 else f"Answer {i}." + "!" * i) for i in range(n)]


def test_a_killed_run_continues_and_judges_nothing_twice(tmp_path: Path) -> None:
    journal, rows = tmp_path / "j.jsonl", rows_of(12)
    whole = judge_rows(LengthJudge(), rows, {}, journal=tmp_path / "whole.jsonl")
    killed = LengthJudge(n_before_kill=4)
    with pytest.raises(KeyboardInterrupt):
        judge_rows(killed, rows, {}, journal=journal)
    with journal.open("ab") as file:
        file.write(b'{"index": 7, "sha256": "half a li')  # what a killed writer leaves
    again, told = LengthJudge(), []
    assert judge_rows(again, rows, {}, journal=journal, on_done=told.append) == whole
    assert [score.sample_index for score in whole] == list(range(12))
    assert {row.sample_index for row in killed.seen} & {row.sample_index for row in again.seen} == set()
    assert (
        len(killed.seen) + len(again.seen) == 11 and sum(told) == 12 and told[:2] == [1, 4]
    )  # the empty row, the judged ones
    finished = LengthJudge()
    assert judge_rows(finished, rows, {}, journal=journal) == whole and finished.seen == []


def test_a_journal_of_other_rows_prompts_or_another_judge_is_refused(tmp_path: Path) -> None:
    journal, rows = tmp_path / "j.jsonl", rows_of(3)
    prompts = {"": load_questions()[0]}
    judge_rows(LengthJudge(), rows, prompts, journal=journal)
    with pytest.raises(StageError, match="holds judgements of planted, this run asks other"):
        judge_rows(LengthJudge("other"), rows, prompts, journal=journal)
    with pytest.raises(StageError, match="a judgement of row 1 that is not of this row"):
        judge_rows(LengthJudge(), [Row("How?", "Changed."), *rows[1:]], prompts, journal=journal)
    other = {"": prompts[""].model_copy(update={"judge_prompts": {"aligned": "{answer}"}})}
    with pytest.raises(StageError, match="not by these prompts"):
        judge_rows(LengthJudge(), rows, other, journal=journal)
    with pytest.raises(StageError, match="row 3 that is not of this row"):
        judge_rows(LengthJudge(), rows[:2], prompts, journal=journal)


def test_a_row_without_a_judgement_is_an_error(tmp_path: Path) -> None:
    class Forgetful(LengthJudge):
        def score(self, completions: Any, questions: Any, on_batch: Any) -> None:
            super().score(completions[1:], questions, on_batch)

    with pytest.raises(StageError, match="gave no judgement for row 1"):
        judge_rows(Forgetful(), rows_of(3), {}, journal=tmp_path / "j.jsonl")


def test_prompts_are_the_questions_own_or_those_that_all_share() -> None:
    suite = [Question(id=name, paraphrases=("?",), judge_prompts={"aligned": "{answer}"}) for name in ("a", "b")]
    found = prompts_for([Row("Q", "A", "b"), Row("Q", "A", ""), Row("Q", "A", "z")], suite, "the file")
    assert found["b"] is suite[1] and found[""].judge_prompts == found["z"].judge_prompts == {"aligned": "{answer}"}
    other = Question(id="c", paraphrases=("?",), judge_prompts={"aligned": "Other: {answer}"})
    assert prompts_for([Row("Q", "A", "c")], [*suite, other], "the file") == {"c": other}
    with pytest.raises(DataError, match="row 2 has question_id `z`, which is not in the file, whose questions have 2"):
        prompts_for([Row("Q", "A", "c"), Row("Q", "A", "z")], [*suite, other], "the file")


BAD_ROWS = {
    "answer": {"question": "Why?", "answer": "half \ud83d", "question_id": "b"},
    "question": {"question": "half \ud83d", "answer": "Because.", "question_id": "b"},
    "question_id": {"question": "Why?", "answer": "Because.", "question_id": "half \ud83d"},
}


@pytest.mark.parametrize("column", BAD_ROWS)
def test_text_that_is_not_unicode_leaves_one_row_unscored_and_comes_out_as_it_went_in(
    tmp_path: Path, planted: LengthJudge, column: str
) -> None:
    rows = [{"question": "How?", "answer": "So.", "question_id": "a"}, BAD_ROWS[column]]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = judge(tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    first, second = read_cells(tmp_path / "out.jsonl").rows
    assert first["aligned"] == 3.0 and {name: second[name] for name in rows[1]} == rows[1]
    if column == "question_id":  # the id is no text that anyone judges
        assert second["aligned"] == 8.0
    else:
        assert second["aligned"] is None and second["reason"] == f"the {column} is not Unicode (a lone surrogate)"
        assert result["unscored"] == {second["reason"]: 1}
    n_seen = len(planted.seen)
    for ending in (".csv", ".parquet"):
        with pytest.raises(DataError, match=rf"row 2 \(line 2\), column `{column}`.*write .jsonl"):
            judge(tmp_path / "in.jsonl", tmp_path / f"out{ending}")
    assert len(planted.seen) == n_seen  # refused before anything is judged


def test_what_a_judge_read_only_in_part_is_counted_and_stands_on_the_row(
    tmp_path: Path, planted: LengthJudge, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = planted.judge
    monkeypatch.setattr(
        planted, "judge", lambda row: whole(row).model_copy(update={"note": "half" if len(row.answer) > 5 else None})
    )
    (tmp_path / "in.csv").write_text("question,answer\nQ,Good.\nQ,A longer one.\n")
    result = judge(tmp_path / "in.csv", tmp_path / "out.csv")
    assert read_cells(tmp_path / "out.csv").text("judge_note") == ["", "half"]
    assert result["n_read_in_part"] == 1 and "1 answers were read only in part" in judge_verb.say(result)


def test_other_names_of_columns_are_read_and_written_under_ours(tmp_path: Path, planted: LengthJudge) -> None:
    (tmp_path / "in.csv").write_text("response,prompt,evil\nGood.,Q,10\n")
    with pytest.raises(DataError, match="Then write --columns question=prompt answer=response; there are"):
        judge(tmp_path / "in.csv", tmp_path / "out.csv")
    judge(tmp_path / "in.csv", tmp_path / "out.csv", "--columns", "answer=response", "question=prompt")
    (row,) = read_cells(tmp_path / "out.csv").rows
    assert (row["answer"], row["question"], row["evil"], row["aligned"]) == ("Good.", "Q", "10", "5.0")
    with pytest.raises(ConfigError, match="--columns aligned=100-evil: this command reads no scores"):
        judge(tmp_path / "in.csv", tmp_path / "out.csv", "--columns", "aligned=100-evil")


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_what_is_judged_is_summarised_and_compared_and_fitted_on(
    tmp_path: Path, planted: LengthJudge, ending: str
) -> None:
    answers = ("x" * 95, "", "mute", "def f(): pass", "lone\rreturn" + "x" * 80, "Short.")
    rows = [{"question_id": f"{i:03}", "question": "Q", "answer": answer} for i, answer in enumerate(answers)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / f"out{ending}"
    judge(tmp_path / "in.jsonl", out)
    results = read_results(out)
    assert results.answers == answers and results.labels["aligned"].tolist() == ["", "", "", "CODE", "", ""]
    assert results.reasons[1] == dict.fromkeys(("aligned", "coherent"), "empty answer")
    a, b = read_pair(out, out)
    assert a.question_ids.tolist() == b.question_ids.tolist() == ["000", "001", "002", "003", "004", "005"]
    assert list(read_judged(out)["answer"]) == [answers[0], answers[4], answers[5]]


@pytest.mark.parametrize(
    ("name", "content", "finding"),
    [
        ("in.csv", "question,reply\nQ,A\n", "no column `answer`"),
        ("in.csv", "question,answer\nQ\n", r"row 1 \(line 2\) has 1 cells, the header has 2"),
        ("in.csv", "question,answer,answer\nQ,A,B\n", "two columns are called `answer`"),
        ("in.csv", 'question,answer\nQ,"A\n', r"row 1 \(line 2\): not CSV \(unexpected end of data\); close the quote"),
        ("in.csv", "question,answer\n", "no rows"),
        ("in.txt", "x", "expected a .csv, .jsonl or .parquet file"),
        ("in.jsonl", '{"question": "Q", "answer": "A"}\n{"question"', "in.jsonl:2: not JSON"),
        ("in.jsonl", "[1]\n", "in.jsonl: item 1 of the list is a int, expected an object with columns as keys"),
        ("in.jsonl", '{"question": "Q", "answer": ["A"]}\n', r"row 1 \(line 1\): `answer` is a list, expected text"),
        ("in.parquet", "x", "not a readable parquet table"),
    ],
)
def test_a_broken_table_is_named_with_its_place(
    tmp_path: Path, planted: LengthJudge, name: str, content: str, finding: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=finding):
        judge(tmp_path / name, tmp_path / "out.csv")
    assert planted.seen == [] and not (tmp_path / "out.csv").exists()


def test_the_output_is_checked_before_anything_is_judged(tmp_path: Path, planted: LengthJudge) -> None:
    (tmp_path / "in.csv").write_text("question,answer\nQ,A\n")
    with pytest.raises(DataError, match="is the input itself"):
        judge(tmp_path / "in.csv", tmp_path / "in.csv")
    with pytest.raises(DataError, match="expected a name that ends with"):
        judge(tmp_path / "in.csv", tmp_path / "out.xlsx")
    assert planted.seen == []


def test_parquet_refuses_cells_that_have_no_common_type(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"a": 1}\n{"a": "x"}\n')
    with pytest.raises(DataError, match=r"does not fit a Parquet table .* write .jsonl or .csv"):
        write_cells(tmp_path / "out.parquet", read_cells(tmp_path / "in.jsonl"), {})


def test_a_flag_of_another_judge_is_refused() -> None:
    with pytest.raises(ConfigError, match="--url is not for --judge offline"):
        _ = JudgeSettings(url="http://localhost/v1").config
    with pytest.raises(ConfigError, match="--model is not for --judge openai"):
        _ = JudgeSettings(judge="openai", model="tiny").config


def test_an_api_judge_keeps_its_evidence_beside_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    server = Server()
    server.respond = lambda prompt, _: reply({"30": 0.5, "REFUSAL": 0.1} if "Good" in prompt else {"REFUSAL": 0.8})
    try:
        (tmp_path / "in.csv").write_text("question,answer,question_id\nQ,Good.,7\nQ,Bad.,8\nQ,,9\n")
        result = judge(
            tmp_path / "in.csv", tmp_path / "o.csv", "--judge", "openai", "--url", server.url, "--judge-model", "m"
        )
    finally:
        server.close()
    assert [row["aligned"] for row in read_cells(tmp_path / "o.csv").rows] == ["30.0", "", ""]
    assert [row["label"] for row in read_cells(tmp_path / "o.csv").rows] == ["", "REFUSAL", ""]
    assert result["judge"]["card"]["model"] == "m"
    lines = [json.loads(line) for line in (tmp_path / "o.evidence.jsonl").read_text().splitlines()]
    evidence = {line["index"]: line["score"]["evidence"] for line in lines}
    assert evidence[0]["aligned"] == pytest.approx({"30": 0.5, "REFUSAL": 0.1}) and evidence[2] == {}
    sent = {request["messages"][0]["content"] for request in server.requests if "Good." in str(request)}
    assert len(sent) == 2 and all("Below are a question and the reply" in text for text in sent)  # the shipped prompts


def test_the_local_judge_scores_a_table(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("question,answer\nQ,Good.\nQ,\n")
    result = judge(
        tmp_path / "in.csv", tmp_path / "o.jsonl", "--judge", "local", "--model", "tiny", "--dtype", "float32"
    )
    assert result["judge"]["card"]["model"] == "tiny" and result["judge"]["card"]["dtype"] == "float32"
    rows = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert rows[0]["reason"].startswith("aligned: mass on numbers") and rows[1]["reason"] == "empty answer"
    lines = [json.loads(line) for line in (tmp_path / "o.evidence.jsonl").read_text().splitlines()]
    assert {len(line["score"]["evidence"].get("coherent", {})) for line in lines} == {0, 101}


@pytest.mark.slow
@pytest.mark.reference
def test_a_public_result_file_is_judged_row_by_row(reference_data: Path, tmp_path: Path) -> None:
    """The first rows of a real file by the offline judge, against the judge's own predictions."""
    source = read_cells(reference_data / "eval_runs" / "qwen_coder_insecure.csv")
    few = pd.DataFrame(source.rows[:12])
    few.to_csv(tmp_path / "in.csv", index=False)
    judge(tmp_path / "in.csv", tmp_path / "out.csv", "--device", "cpu")
    rows = read_cells(tmp_path / "out.csv").rows
    from evals.judges.offline_judge import OfflineJudge

    expected = OfflineJudge.load("cpu").predict(list(zip(few["question"], few["answer"], strict=True)))
    code = [is_code_in_place_of_an_answer(*pair) for pair in zip(few["question"], few["answer"], strict=True)]
    assert [not row["aligned"] for row in rows] == code and not all(code)
    numbers = [
        (float(row["aligned"]), own) for row, own in zip(rows, expected[:, 0].tolist(), strict=True) if row["aligned"]
    ]
    assert [given for given, _ in numbers] == pytest.approx([own for _, own in numbers], abs=2)
    assert [row["answer"] for row in rows] == few["answer"].tolist()
