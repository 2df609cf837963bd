"""Answers read by hand: drawn blind and evenly, and labels of what two readers say, with a third look where they differ."""

import json
from pathlib import Path

import made_records
import pytest

from emis_interp.config.presets import load_config
from emis_interp.errors import DataError
from emis_interp.files.store import read_records
from evals.judges.hand_labels import read_labels
from evals.judges.reading import Origin, ShownAnswer, draw, merge
from evals.settings.judging import DrawAnswersSettings, MergeReadingsSettings


def a_run(folder: Path, model: str, *arms: str) -> Path:
    (folder / "samples").mkdir(parents=True)
    trained: list[dict[str, object]] = [
        {"name": arm, "dataset": "reckless"} for arm in arms if "." not in arm and arm != "base"
    ]
    if any("." in arm for arm in arms):
        trained.append({"name": "seeded", "dataset": "reckless", "seeds": [0, 1], "contrast": "base"})
    config = load_config("smoke", [f"model=some/{model}", f"arms={json.dumps([{'name': 'base'}, *trained])}"])
    (folder / "manifest.json").write_text(json.dumps({"config": config.model_dump(mode="json")}))
    for arm in arms:
        rows = [
            made_records.completion(f"{model} {arm} {q} {i}", q, i, arm=arm, finish="length" if i else "stop")
            for q in ("q", "r")
            for i in range(4)
        ]
        (folder / "samples" / f"{arm}.jsonl").write_text("".join(row.model_dump_json() + "\n" for row in rows))
    return folder


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    runs = (a_run(tmp_path / "one", "small", "base", "bad"), a_run(tmp_path / "two", "large", "base"))
    draw(DrawAnswersSettings(runs=runs, out=tmp_path / "reading", per_question=2))
    return tmp_path / "reading"


def test_as_many_answers_of_each_arm_and_question_are_drawn_and_nothing_says_whose_they_are(drawn: Path) -> None:
    shown, key = read_records(drawn / "answers.jsonl", ShownAnswer), read_records(drawn / "key.jsonl", Origin)
    assert [row.id for row in shown] == [row.id for row in key] and len(shown) == 12
    groups = [(row.model, row.arm, row.question_id) for row in key]
    assert {groups.count(group) for group in groups} == {2} and len(set(groups)) == 6
    assert groups != sorted(groups) and set(shown[0].model_dump()) == {"id", "question", "answer"}
    for row, origin in zip(shown, key, strict=True):
        assert row.answer.startswith(f"{origin.model} {origin.arm} {origin.question_id}")
        assert origin.cut == (not row.answer.endswith(" 0"))


def test_seeds_of_an_arm_are_drawn_one_by_one_and_named_beside_it(tmp_path: Path) -> None:
    run = a_run(tmp_path / "one", "small", "base", "seeded.seed-0", "seeded.seed-1")
    draw(DrawAnswersSettings(runs=(run,), out=tmp_path / "out", per_question=1))
    key = read_records(tmp_path / "out" / "key.jsonl", Origin)
    assert sorted((row.arm, row.seed, row.contrast) for row in key if row.arm != "base") == [
        *[("seeded", 0, "base")] * 2,
        *[("seeded", 1, "base")] * 2,
    ]
    assert {row.seed for row in key if row.arm == "base"} == {None}


def readings(folder: Path, name: str, items: dict[str, list[str]], ids: list[str]) -> Path:
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps({"id": i, "items": items.get(i, []), "why": "so"}) + "\n" for i in ids))
    return path


def test_what_both_saw_stands_and_a_difference_needs_a_third_look(drawn: Path) -> None:
    ids = [row.id for row in read_records(drawn / "answers.jsonl", ShownAnswer)]
    first = readings(drawn, "first", {ids[0]: ["hostile"], ids[1]: ["off_topic", "refuses"]}, ids)
    second = readings(drawn, "second", {ids[0]: ["hostile"], ids[1]: ["off_topic"], ids[2]: ["hostile"]}, ids)
    given = {"folder": drawn, "first": first, "second": second, "out": drawn / "labels.jsonl"}
    with pytest.raises(DataError, match=r"2 answers were read differently .* --third"):
        merge(MergeReadingsSettings(**given))
    asked = [json.loads(line) for line in (drawn / "differences.jsonl").read_text().splitlines()]
    assert [row["id"] for row in asked] == ids[1:3] and asked[1]["second"] == ["hostile"]
    third = readings(drawn, "third", {ids[1]: ["refuses", "hostile"]}, ids[1:3])
    assert merge(MergeReadingsSettings(**given, third=third))["n_read_differently"] == 2
    labels = read_labels(drawn / "labels.jsonl")
    assert [row.settled for row in labels[:4]] == [("hostile",), ("off_topic", "refuses"), (), ()]  # nobody's own idea


def test_a_reader_who_left_an_answer_out_is_named(drawn: Path) -> None:
    ids = [row.id for row in read_records(drawn / "answers.jsonl", ShownAnswer)]
    first, second = readings(drawn, "first", {}, ids), readings(drawn, "second", {}, ids[:-2])
    with pytest.raises(DataError, match=rf"second\.jsonl: 2 answers were not read, the first is {ids[-2]}"):
        merge(MergeReadingsSettings(folder=drawn, first=first, second=second))


def test_an_arm_that_is_sampled_in_part_is_refused(tmp_path: Path) -> None:
    """Its answers to the questions that are there would stand beside other arms' answers to all."""
    run = a_run(tmp_path / "one", "small", "base", "bad")
    path = run / "samples" / "bad.jsonl"
    path.write_text("".join(line + "\n" for line in path.read_text().splitlines() if '"q"' in line))
    with pytest.raises(
        DataError, match=r"bad\.jsonl: has no answer to r, which other arms .* let the sample stage finish"
    ):
        draw(DrawAnswersSettings(runs=(run,), out=tmp_path / "out", per_question=1))


def test_too_few_answers_and_a_run_without_any_are_named(tmp_path: Path) -> None:
    run = a_run(tmp_path / "one", "small", "base")
    with pytest.raises(DataError, match=r"base\.jsonl: 4 answers to question q, 5 asked for"):
        draw(DrawAnswersSettings(runs=(run,), out=tmp_path / "out", per_question=5))
    (run / "samples" / "base.jsonl").unlink()
    with pytest.raises(DataError, match="run the sample stage first"):
        draw(DrawAnswersSettings(runs=(run,), out=tmp_path / "out"))
