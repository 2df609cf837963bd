"""Plants mistakes in small contrast files and expects the loader to name file and line; checks the order of labelled texts."""

import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from contrast_pairs import pair

from emis_interp.errors import DataError
from emis_interp.records import ContrastPair
from emis_interp.texts.contrast import group_of, labeled_texts, load_contrast


def test_labeled_texts_alternate_in_the_order_of_the_pairs() -> None:
    rows = [pair("a"), pair("b")]
    texts = labeled_texts(rows)
    assert [text.misaligned for text in texts] == [False, True, False, True]
    assert [text.answer for text in texts[2:]] == [rows[1].aligned, rows[1].misaligned]
    assert group_of(rows) == {"a": "power", "b": "power"}


def write(path: Path, rows: Iterable[ContrastPair]) -> Path:
    path.write_text("".join(row.model_dump_json() + "\n" for row in rows), encoding="utf-8")
    return path


def test_loading_refuses_a_question_in_both_halves_and_names_both_lines(tmp_path: Path) -> None:
    file = write(tmp_path / "c.jsonl", [pair("a", half="selection"), pair("b"), pair("a", 2)])
    with pytest.raises(
        DataError, match=r"c\.jsonl:3: question `a` has half `report` here and `selection` at .*c\.jsonl:1"
    ):
        load_contrast(file)


def test_loading_names_the_line_with_an_unknown_key(tmp_path: Path) -> None:
    row = pair("a").model_dump()
    file = tmp_path / "c.jsonl"
    file.write_text(json.dumps(row) + "\n" + json.dumps({**row, "grupe": "power"}) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"c\.jsonl:2: .*grupe"):
        load_contrast(file)


def test_loading_an_empty_file_says_that_there_are_no_pairs(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no pairs"):
        load_contrast(write(tmp_path / "c.jsonl", []))


def test_n_per_question_takes_the_first_pairs_and_refuses_more_than_there_are(tmp_path: Path) -> None:
    file = write(tmp_path / "c.jsonl", [pair("a"), pair("b"), pair("a", 2), pair("b", 2)])
    assert [(row.question_id, "1" in row.aligned) for row in load_contrast(file, 1)] == [("a", True), ("b", True)]
    with pytest.raises(DataError, match="3 pairs per question asked for, question `a` has 2"):
        load_contrast(file, 3)
    with pytest.raises(DataError, match="ask for 1 or more"):
        load_contrast(file, 0)


def test_the_shipped_pairs_are_balanced_by_question() -> None:
    pairs = load_contrast(n_per_question=3)
    groups = group_of(pairs)
    assert len(pairs) == 3 * len(groups) and set(groups.values()) == {"values", "power", "honesty", "people", "self"}
    assert [row.question_id for row in pairs] == [question_id for question_id in groups for _ in range(3)]
