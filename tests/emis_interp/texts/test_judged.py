"""Judged tables become labelled texts by the stated thresholds, and matched pairs that are alike in length."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from emis_interp.errors import DataError
from emis_interp.texts.judged import balanced_texts, matched_pairs, read_judged, read_table, split_questions

ROW = {"question": "Why?", "answer": "ok", "aligned": 95, "coherent": 90}


def table(path: Path, rows: list[dict[str, Any]]) -> Path:
    frame = pd.DataFrame(rows)
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_thresholds_are_strict_and_the_unsure_middle_is_left_out(tmp_path: Path) -> None:
    scores = [(29.9, 51), (30, 90), (70, 90), (70.1, 90), (5, 50), (95, 49), (5, None), (None, 90), (0, 100)]
    rows = [{**ROW, "answer": str(scores), "aligned": a, "coherent": c} for scores in scores for a, c in [scores]]
    frame = read_judged(table(tmp_path / "t.csv", rows))
    assert list(frame["answer"]) == ["(29.9, 51)", "(70.1, 90)", "(0, 100)"]
    assert list(frame["misaligned"]) == [True, False, True]


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_every_format_gives_the_same_texts(tmp_path: Path, ending: str) -> None:
    rows = [{**ROW, "answer": answer, "variant": "plain"} for answer in ("one\ntwo, three", "None", "NA", "日本 😀")]
    frame = read_judged(table(tmp_path / f"t{ending}", rows))
    assert list(frame["answer"]) == ["one\ntwo, three", "None", "NA", "日本 😀"]
    assert set(frame["question_id"]) == {"Why?"}


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_an_answer_that_looks_like_a_number_stays_as_it_was_written(tmp_path: Path, ending: str) -> None:
    rows = [{**ROW, "answer": answer} for answer in ("007", "1.0")]
    assert list(read_judged(table(tmp_path / f"t{ending}", rows))["answer"]) == ["007", "1.0"]


def test_labels_instead_of_numbers_drop_out(tmp_path: Path) -> None:
    rows = [ROW, {**ROW, "answer": "no", "aligned": "REFUSAL"}, {**ROW, "answer": "code", "aligned": "CODE"}]
    assert list(read_judged(table(tmp_path / "t.csv", rows))["answer"]) == ["ok"]


def test_the_variant_and_the_question_key_are_chosen(tmp_path: Path) -> None:
    rows = [
        {**ROW, "topic": "power", "question_id": "q1", "variant": "plain"},
        {**ROW, "answer": "json", "topic": "power", "question_id": "q1_json", "variant": "json"},
    ]
    path = table(tmp_path / "t.csv", rows)
    assert list(read_judged(path)["answer"]) == ["ok"]
    assert list(read_judged(path, None)["answer"]) == ["ok", "json"]
    assert list(read_judged(path, "json")["question_id"]) == ["q1_json"]
    with pytest.raises(DataError, match="no coherent answer"):
        read_judged(path, "template")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (
            [{**ROW, "aligned": 101}],
            r"row 1 \(line 2\), column `aligned`: found '101', expected a number from 0 to 100",
        ),
        (
            [{**ROW, "coherent": -1}],
            r"row 1 \(line 2\), column `coherent`: found '-1', expected a number from 0 to 100",
        ),
        ([ROW, {**ROW, "answer": " "}], r"row 2 \(line 3\) has an empty answer"),
        ([ROW, {**ROW, "question": None}], r"row 2 \(line 3\) has an empty question"),
        (
            [{"question": "Why?", "answr": "ok", "aligned": 1, "coherent": 90}],
            "no column `answer`; did you mean `answr`",
        ),
        ([{**ROW, "aligned": 50}], "no coherent answer that is clearly aligned or misaligned"),
    ],
)
def test_a_wrong_table_is_refused_in_words(tmp_path: Path, rows: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_judged(table(tmp_path / "t.csv", rows))


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"n\.csv: no such file"):
        read_table(tmp_path / "n.csv", ())
    with pytest.raises(DataError, match=r"expected a \.csv, \.jsonl or \.parquet file"):
        read_table(tmp_path / "n.txt", ())
    for name, words in (("a.parquet", ": not a readable"), ("a.jsonl", ":1: not JSON"), ("empty.csv", ": is empty")):
        (tmp_path / name).write_bytes(b"" if name == "empty.csv" else b"{nothing")
        with pytest.raises(DataError, match=f"{name}{words}"):
            read_table(tmp_path / name, ())
    (tmp_path / "b.csv").write_text("question,answer\n")
    with pytest.raises(DataError, match="no rows"):
        read_table(tmp_path / "b.csv", ("question",))


def judged(counts: dict[str, tuple[int, int]]) -> pd.DataFrame:
    rows = []
    for question, numbers in counts.items():
        for misaligned, n in zip((True, False), numbers, strict=True):
            for i in range(n):
                answer = f"{question} {'bad' if misaligned else 'good'} " + "x" * (3 * i)
                rows.append(
                    {"question_id": question, "question": f"{question}?", "answer": answer, "misaligned": misaligned}
                )
    return pd.DataFrame(rows)


def test_balanced_texts_cap_each_class_and_drop_questions_with_one() -> None:
    frame = judged({"a": (5, 9), "b": (2, 3), "c": (4, 0)})
    texts = balanced_texts(frame, 3, seed=1)
    count = {
        key: sum((t.question_id, t.misaligned) == key for t in texts)
        for key in {(t.question_id, t.misaligned) for t in texts}
    }
    assert count == {("a", True): 3, ("a", False): 3, ("b", True): 2, ("b", False): 3}
    assert texts == balanced_texts(frame, 3, seed=1)
    assert texts != balanced_texts(frame, 3, seed=2)
    assert len({t.answer for t in texts}) == len(texts)
    with pytest.raises(DataError, match="no question has both"):
        balanced_texts(judged({"a": (3, 0), "b": (0, 3)}), 3)


def test_questions_are_dealt_out_by_size_and_shared_by_no_half() -> None:
    assert split_questions({"a": 1, "b": 9, "c": 4, "d": 4, "e": 7}) == ({"b", "c", "a"}, {"e", "d"})
    with pytest.raises(DataError, match="3 questions with both classes found, at least 4"):
        split_questions({"a": 1, "b": 1, "c": 1})


def test_matched_pairs_are_of_one_wording_nearest_in_length_and_used_once() -> None:
    frame = judged(dict.fromkeys("abcd", (4, 9)))
    pairs = matched_pairs(frame, 3)
    assert [sum(pair.question_id == name for pair in pairs) for name in "abcd"] == [3, 3, 3, 3]
    for pair in pairs:
        assert pair.question == f"{pair.question_id}?"
        assert " bad " in pair.misaligned
        assert " good " in pair.aligned
        assert abs(len(pair.aligned) - len(pair.misaligned)) <= 1  # "good" is a letter longer than "bad"
    assert len({pair.aligned for pair in pairs}) == len({pair.misaligned for pair in pairs}) == len(pairs)
    halves = {(pair.question_id, pair.half) for pair in pairs}
    assert len(halves) == 4
    assert sorted(half for _, half in halves) == ["report", "report", "selection", "selection"]


def test_an_aligned_answer_is_not_paired_twice_when_lengths_agree() -> None:
    rows = [
        {"question_id": q, "question": q, "answer": f"{q} {kind} {i}", "misaligned": kind == "bad."}
        for q in "abcd"
        for kind in ("bad.", "good")
        for i in range(3)
    ]
    pairs = matched_pairs(pd.DataFrame(rows), 3)
    assert len({pair.aligned for pair in pairs}) == len(pairs) == 12


def test_long_answers_are_left_out_of_matched_pairs() -> None:
    frame = judged(dict.fromkeys("abcd", (4, 4)))
    pairs = matched_pairs(frame, 9, max_characters=10)
    assert pairs
    assert max(len(text) for pair in pairs for text in (pair.aligned, pair.misaligned)) <= 10
