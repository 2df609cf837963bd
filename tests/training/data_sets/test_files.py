"""Small files under emis_interp/files: names that differ, text that can be stored, claims, rows by key, what changed in the code."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from emis_interp.errors import DataError, StageError
from emis_interp.files import code_state
from emis_interp.files.claim import claim, differences, without
from emis_interp.files.code_state import CodeState, Git
from emis_interp.files.rows import AnswersByKey, about, by_key, placed, refuse_incomplete
from emis_interp.files.store import (
    RecordLog,
    parse_record,
    read_json,
    read_records,
    record_line,
    write_json,
    write_text,
)
from emis_interp.files.text import finite, number_name, written_out
from emis_interp.records import Completion, Score

# Names.


def test_the_default_coefficients_keep_their_names() -> None:
    assert [number_name(value) for value in (-0.4, -0.2, 0.2, 0.4, 0.05, 1.0)] == [
        "-0.40", "-0.20", "+0.20", "+0.40", "+0.05", "+1.00",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "pair", [(0.001, 0.004), (0.2, 0.204), (0.2, 0.2 + 1e-16 * 4), (1e-5, 2e-5), (0.1, 0.1234567), (-0.001, 0.0)]
)
def test_close_numbers_have_different_names(pair: tuple[float, float]) -> None:
    assert number_name(pair[0]) != number_name(pair[1])


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_can_be_read_back_from_its_name(value: float) -> None:
    for form in ("+.2f", "+g", "g"):
        name = number_name(value, form)
        assert float(name) == value and len(name) <= 24  # a name of a folder, which has 255 bytes at most


# What differs.


def test_what_differs_is_said_on_one_line_whatever_the_settings_hold() -> None:
    (found,) = differences({"system_prompt": "a\nb\x1b[31m" + 90 * "c"}, {"system_prompt": None})
    assert (
        found.startswith("system_prompt: a\\nb\\x1b[31mccc") and found.endswith("... -> None") and found.isprintable()
    )


# Text.


@given(st.text(st.characters(codec="utf-8")))
def test_text_that_is_unicode_is_never_changed(text: str) -> None:
    assert written_out(text) == text and written_out({text: [text, (text,)]}) == {text: [text, (text,)]}


@given(st.text(st.characters()))
def test_any_text_can_be_shown_afterwards(text: str) -> None:
    written_out(text).encode("utf-8")


def test_half_of_a_pair_is_written_out_and_a_pair_is_the_character_that_it_spells() -> None:
    assert written_out("a\ud83db") == "a\\ud83db"
    assert written_out(json.loads('"\\ud83d\\ude00"')) == "😀"


def completion(sample: int = 0, answer: str = "yes", arm: str = "x") -> Completion:
    return Completion(
        arm=arm, question_id="q", paraphrase_index=0, sample_index=sample, seed=1, system=None, question="Why?",
        answer=answer, n_tokens=1, finish="stop",
    )  # fmt: skip


@given(st.text(st.characters()), st.text(st.characters()))
def test_a_record_comes_back_from_its_line_whatever_its_texts_hold(answer: str, question: str) -> None:
    row = completion().model_copy(update={"answer": answer, "question": question})
    assert parse_record(record_line(row).decode("utf-8"), Completion, "here") == row
    assert record_line(row).count(b"\n") == 1


@pytest.mark.parametrize("field", ["answer", "question", "system", "question_id", "arm", "reasoning"])
def test_half_of_a_pair_comes_back_from_a_log_in_every_field(tmp_path: Path, field: str) -> None:
    rows = [Completion.model_validate({**completion().model_dump(), field: "a\udc80b"}), completion(1)]
    log = RecordLog(tmp_path / "a.jsonl")
    log.append(rows)
    assert log.read(Completion) == read_records(tmp_path / "a.jsonl", Completion) == rows


def test_an_answer_filled_in_by_a_server_is_checked_like_any_record() -> None:
    filled = completion().answered("\ud83d", 3, "length", reasoning="hm")
    assert (filled.answer, filled.n_tokens, filled.finish, filled.reasoning) == ("\ud83d", 3, "length", "hm")
    with pytest.raises(ValidationError):
        completion().answered("x", 3, "banana")


def test_hashes_tell_texts_apart_that_are_no_unicode() -> None:
    assert len({completion(answer=answer).answer_sha256 for answer in ("\ud83d", "\\ud83d", "\ud83e", "?")}) == 4


def test_a_score_s_reasons_and_evidence_come_back_too(tmp_path: Path) -> None:
    score = Score.of(
        completion(),
        judge="j",
        aligned=None,
        coherent=1,
        unscored={"aligned": "\ud800"},
        evidence={"coherent": {"\ud800": 1.0}},
    )
    RecordLog(tmp_path / "a.jsonl").append([score])
    assert read_records(tmp_path / "a.jsonl", Score) == [score]


def test_json_files_give_half_of_a_pair_back(tmp_path: Path) -> None:
    value = {"a\ud800": ["\ud800", 1, "😀"]}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value


def test_numbers_that_are_none_become_missing() -> None:
    assert finite({"a": [1.0, float("nan"), {"b": float("-inf")}], "c": "nan"}) == {
        "a": [1.0, None, {"b": None}],
        "c": "nan",
    }


# Rows.


def test_repeated_rows_are_named_with_their_places() -> None:
    rows = [completion(0), completion(1), completion(0), completion(0)]
    with pytest.raises(
        DataError,
        match=r"s\.jsonl: 1 answer more than once, first x, question `q`, paraphrase 0, sample 0 \(rows 1, 3, 4\)",
    ):
        by_key(rows, "s.jsonl")
    assert list(by_key(rows[:2], "s.jsonl")) == [row.key for row in rows[:2]]


def test_missing_and_strange_rows_are_named() -> None:
    last = completion(2).key
    refuse_incomplete("s", None, [], n=(3, 3), advice="")
    with pytest.raises(
        StageError, match=r"s: holds 2 of 3 answers, missing is first x, question `q`, paraphrase 0, sample 2; do this"
    ):
        refuse_incomplete("s", last, [last], n=(2, 3), advice="do this")
    with pytest.raises(StageError, match=r"s: holds 1 answer that were not asked for, first x, .* sample 2; do this"):
        refuse_incomplete("s", None, [last], n=(2, 2), advice="do this")


def test_a_score_belongs_to_the_text_that_it_judges(caplog: pytest.LogCaptureFixture) -> None:
    answers = {completion(i).key: completion(i) for i in range(2)}
    scores = [Score.of(row, judge="j", aligned=1, coherent=1) for row in answers.values()]
    assert list(about(scores, answers, "s").values()) == scores
    replaced = {**answers, completion(1).key: completion(1, "no")}
    with pytest.raises(
        DataError, match=r"s: 1 row about answers that were replaced since, first x, .* sample 1; delete the file"
    ):
        about(scores, replaced, "s")
    with pytest.raises(DataError, match="1 row about answers that are not there"):
        about(scores, dict(list(answers.items())[:1]), "s")
    old = [score.model_copy(update={"answer_sha256": None}) for score in scores]
    with pytest.raises(DataError, match="2 rows without the hash of the answer"):
        about(old, answers, "s")
    with pytest.raises(DataError, match="more than once"):
        about([*scores, scores[0]], answers, "s")
    known = list(placed(old, AnswersByKey(answers), "s", old_too=True))
    assert known == list(enumerate(old)) and "s: 2 rows without the hash of the answer" in caplog.text
    with pytest.raises(DataError, match="1 row about answers that were replaced since"):
        list(placed(scores, AnswersByKey(replaced), "s", old_too=True))


# Claims.

BEGUN: dict[str, Any] = {"holds": "a study", "advice": "give another --out"}


def test_a_claim_is_begun_once_and_held_to_what_decides_it(tmp_path: Path) -> None:
    path, fresh = tmp_path / "f" / "settings.json", {"a": {"b": 1, "c": (1, 2)}, "versions": {"torch": "1"}}
    claim(path, fresh, free=("versions",), **BEGUN)
    later = {"a": {"b": 1, "c": (1, 2)}, "versions": {"torch": "2"}}
    assert claim(path, later, free=("versions",), **BEGUN)["versions"] == {"torch": "1"}
    with pytest.raises(StageError, match=r"f holds a study with other settings \(a\.b: 1 -> 3\); give another --out"):
        claim(path, {**fresh, "a": {"b": 3, "c": (1, 2)}}, free=("versions",), **BEGUN)
    assert [item.name for item in path.parent.iterdir()] == ["settings.json"]


def test_a_folder_of_something_else_is_not_claimed_but_hidden_files_do_not_count(tmp_path: Path) -> None:
    write_text(tmp_path / ".lock", "")
    claim(tmp_path / "settings.json", {"a": 1}, **BEGUN)
    write_text(tmp_path / "g" / "thesis.tex", "")
    with pytest.raises(StageError, match=r"g is not empty and holds no settings\.json; give another --out"):
        claim(tmp_path / "g" / "settings.json", {"a": 1}, **BEGUN)


@pytest.mark.parametrize("content", ["", "{", "[]", '"text"', "\ufeff{"])
def test_a_damaged_claim_is_named(tmp_path: Path, content: str) -> None:
    write_text(tmp_path / "settings.json", content)
    with pytest.raises(DataError, match=r"settings\.json"):
        claim(tmp_path / "settings.json", {"a": 1}, **BEGUN)


def test_of_two_that_begin_at_once_the_second_is_held_to_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file appears between the look and the writing."""
    path, real = tmp_path / "card.json", Path.exists
    monkeypatch.setattr(Path, "exists", lambda self: False if self == path else real(self))
    write_json(path, {"a": 1})
    assert claim(path, {"a": 1}, alone=False, **BEGUN) == {"a": 1}
    with pytest.raises(StageError, match="a: 1 -> 2"):
        claim(path, {"a": 2}, alone=False, **BEGUN)


def test_differences_and_what_is_free_to_change() -> None:
    assert differences({"a": [1, {"b": 2}], "c": None}, {"a": [1, {"b": 3}], "d": None}) == ["a.1.b: 2 -> 3"]
    assert without({"a": {"b": 1, "c": 2}, "d": 3}, ("a.b", "d", "x.y", "d.e")) == {"a": {"c": 2}}


# Code.


def state(**changes: Any) -> CodeState:
    values = {
        "git": Git(revision="a" * 40, dirty=False),
        "versions": {"torch": "1", "numpy": "2"},
        "sources_sha256": "s",
    }
    return CodeState(**{**values, **changes})


@pytest.mark.parametrize(
    ("later", "words"),
    [
        (state(), []),
        (state(versions={"torch": "2", "numpy": "2"}), ["torch 1 -> 2"]),
        (state(versions={"torch": "1", "numpy": None}), ["numpy 2 -> not installed"]),
        (state(versions={"torch": "1", "numpy": "2", "jinja2": "3"}), []),  # the first half did not ask about it
        (state(versions={"torch": "1"}), []),
        (state(git=Git(revision="b" * 40, dirty=False)), ["code revision aaaaaaaaaaaa -> bbbbbbbbbbbb"]),
        (state(git=Git(revision="a" * 40, dirty=True), sources_sha256="t"), ["with uncommitted changes"]),
        (state(git=Git()), ["code revision aaaaaaaaaaaa -> none", "without uncommitted changes"]),
        (state(sources_sha256="t"), ["the project's own code, without a new revision"]),
    ],
)
def test_what_changed_in_code_and_packages_is_said_in_words(later: CodeState, words: list[str]) -> None:
    assert state().changes(later) == words


NO_RESULT = {"anyio", "filelock", "httpx2", "huggingface-hub", "jaxtyping", "pydantic", "pyyaml", "rich"}
"""Packages that fetch, lock, check or draw, and change no figure."""


def test_every_package_that_the_project_needs_is_versioned_or_known_to_change_no_result() -> None:
    with (Path(__file__).parents[3] / "pyproject.toml").open("rb") as file:
        needed = {re.split(r"[<>=\[ ]", line)[0] for line in tomllib.load(file)["project"]["dependencies"]}
    assert needed - set(code_state.VERSIONED) == NO_RESULT
    assert {"jinja2", "sae-lens", "pyarrow", "trl", "openai"} <= code_state.versions().keys()


def test_the_hash_of_the_sources_follows_names_and_contents(tmp_path: Path) -> None:
    write_text(tmp_path / "evals" / "a.py", "x = 1")
    first = code_state.sources_sha256(tmp_path)
    write_text(tmp_path / "evals" / "a.py", "x = 2")
    second = code_state.sources_sha256(tmp_path)
    (tmp_path / "evals" / "a.py").rename(tmp_path / "evals" / "b.py")
    assert len({first, second, code_state.sources_sha256(tmp_path)}) == 3
