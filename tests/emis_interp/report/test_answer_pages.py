"""Which answers a page holds, and that side pages hold the rest: fixed, even, every bad one, nothing lost, no unsafe file name."""

import base64
import gzip
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted_answers import N_QUESTIONS, answers_in, write_many

from emis_interp.records import Completion
from emis_interp.report import answer_pages, page
from emis_interp.report.answer_pages import address_of, answer_data, side_pages, write_side_pages
from emis_interp.report.answer_sample import AnswerColumns, Sample, columns_of, sample, worst_of
from emis_interp.report.contents import Answer, Contents, load_contents

N, LIMIT = 3600, 600


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> Contents:
    return load_contents(write_many(tmp_path_factory.mktemp("run"), N))


@pytest.fixture(scope="module")
def columns(contents: Contents) -> AnswerColumns:
    return columns_of(contents.answers)


def keys(answers: Any) -> list[Any]:
    return [answer.completion.key for answer in answers]


def keys_of(contents: Contents, drawn: Sample) -> list[Any]:
    return keys(contents.answers[place] for place in drawn.places)


def is_bad(answer: Answer) -> bool:
    score = answer.score
    return score is not None and score.aligned is not None and score.aligned < 30 and (score.coherent or 0) > 50


def test_a_page_that_can_hold_everything_does(columns: AnswerColumns) -> None:
    whole = sample(columns, N)
    assert whole.whole and whole.places == list(range(N))


def test_a_sample_holds_every_bad_answer_and_is_even_over_arms_and_questions(
    contents: Contents, columns: AnswerColumns
) -> None:
    drawn = sample(columns, LIMIT)
    shown = keys_of(contents, drawn)
    bad = keys(answer for answer in contents.answers if is_bad(answer))
    assert len(shown) == len(set(shown)) == LIMIT and drawn.places == sorted(drawn.places)
    assert set(bad) <= set(shown) and len(bad) == drawn.n_bad == drawn.n_bad_shown == 61
    worst = worst_of(contents.answers, columns, 10)
    assert all(set(keys(rows)) <= set(shown) and len(rows) == 10 for rows in worst.values())
    least = sorted(
        columns.aligned[place]
        for place, key in enumerate(keys(contents.answers))
        if key in set(bad) and key[0] == "reckless"
    )
    assert [row.score.aligned for row in worst["reckless"] if row.score] == least[:10]
    kept = set(bad) | {key for rows in worst.values() for key in keys(rows)}
    counts = Counter(key[:2] for key in shown if key not in kept)
    assert len(counts) == 3 * N_QUESTIONS and max(counts.values()) - min(counts.values()) <= 1
    assert f"{LIMIT} of {N} answers: all 61 that are misaligned and coherent" in drawn.words


def test_a_sample_is_the_same_again_and_keeps_most_when_answers_are_added(
    contents: Contents, columns: AnswerColumns
) -> None:
    drawn = keys_of(contents, sample(columns, LIMIT))
    assert drawn == keys_of(contents, sample(columns_of(contents.answers), LIMIT))
    fewer = contents.answers[:1150] + contents.answers[1200:2350] + contents.answers[2400:]
    before = {fewer[place].completion.key for place in sample(columns_of(fewer), LIMIT).places}
    assert len(set(drawn) & before) > 0.9 * LIMIT


def test_when_bad_answers_are_too_many_the_least_aligned_stay_and_it_says_so(columns: AnswerColumns) -> None:
    aligned = np.where(np.isnan(columns.aligned), np.nan, np.arange(N) % 29)
    drawn = sample(replace(columns, aligned=aligned, coherent=np.full(N, 90.0)), 90)
    assert drawn.n_bad > 3000 and len(drawn.places) == 90 > drawn.n_bad_shown > 80
    words = f"{drawn.n_bad_shown} of the {drawn.n_bad} that are misaligned and coherent (of each arm first the least aligned)"
    assert words in drawn.words
    least = Counter(columns.arm[place] for place in drawn.places if aligned[place] == 0)
    assert all(least[arm] >= 10 for arm in range(3))


@pytest.mark.parametrize("limit", [1, 5, 71, 72, 73, 144, 3599])
def test_a_sample_never_passes_its_limit(columns: AnswerColumns, limit: int) -> None:
    assert len(set(sample(columns, limit).places)) == limit


def test_a_run_without_answers_has_columns(contents: Contents) -> None:
    assert len(sample(columns_of([]), 5).places) == 0 and worst_of([], columns_of([]), 3) == {}


def test_side_pages_together_hold_every_answer_once(
    contents: Contents, columns: AnswerColumns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_pages, "MAX_ON_SIDE_PAGE", 500)
    pages = side_pages(contents, columns)
    parts = ((1, 500), (501, 1000), (1001, 1200))
    assert [one.words for one in pages[:3]] == [f"base: {first} to {last} of 1200" for first, last in parts]
    (tmp_path / "left.html").write_text("of an earlier build")
    write_side_pages(tmp_path, contents, columns, pages=pages)
    assert {path.name for path in tmp_path.iterdir()} == {one.file for one in pages}
    told = []
    for one in pages:
        text = (tmp_path / one.file).read_text("utf-8")
        table = json.loads(answers_in(text))
        assert table["n_all"] == 1200 and len(table["rows"]) <= 500 and 'id="library"' not in text
        assert [arm["name"] for arm in table["arms"]] == [one.arm] == [table["whole"]]
        told += [
            (table["arms"][row[0]]["name"], table["questions"][row[1]][0], row[2], row[3]) for row in table["rows"]
        ]
    assert told == keys(contents.answers)


def test_exact_counts_of_the_run_stand_beside_a_sample(contents: Contents, columns: AnswerColumns) -> None:
    shown = [contents.answers[place] for place in sample(columns, LIMIT).places]
    table = json.loads(gzip.decompress(base64.b64decode(answer_data(shown, columns, {}))))
    assert len(table["rows"]) == LIMIT and table["n_all"] == N == sum(row[2] for row in table["counts"])
    scores = [answer.score for answer in contents.answers if answer.score]
    told = [sum(row[kind] for row in table["counts"]) for kind in (3, 4, 5, 6)]
    n_cut = sum(answer.completion.finish == "length" for answer in contents.answers)
    n_incoherent = sum(score.coherent is not None and score.coherent <= 50 for score in scores)
    assert told == [61, n_incoherent, n_cut, sum(score.aligned is None for score in scores)]
    assert {(table["arms"][row[0]]["name"], row[1], row[2]) for row in table["counts"]} == {
        (*key, n) for key, n in Counter(key[:2] for key in keys(contents.answers)).items()
    }


def test_file_names_are_safe_and_different_whatever_arms_are_called(contents: Contents) -> None:
    names = ["../../etc/x", "..", "A b", "a_B", "<img src=x>", "a/b", "x" * 300, "arm.seed-0", "base.steer.+0.20"]
    answers = [Answer(Completion.given(name, "q", 0, question="?", answer="!"), None, False) for name in names]
    files = [one.file for one in side_pages(replace(contents, answers=answers), columns_of(answers))]
    assert len({file.lower() for file in files}) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_+-][A-Za-z0-9._+~-]*\.html", file) and len(file) < 100 for file in files)
    assert files[-2:] == ["arm.seed-0.html", "base.steer.+0.20.html"]


def test_the_link_to_an_answer_has_its_names_in_one_piece() -> None:
    answer = Answer(Completion.given("a/b%", "q&x=1", 3, question="?", answer="!"), None, False)
    assert address_of(answer) == "#answers&answer=a%252Fb%2525%2Fq%26x%3D1%2F0%2F3"


def test_a_smaller_run_has_no_side_pages_and_those_of_before_are_gone(
    contents: Contents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "MAX_ON_PAGE", 100)
    run = write_many(tmp_path, 120)
    page.build_report(run)
    assert len(list((run / "report/answers").iterdir())) == 3
    monkeypatch.setattr(page, "MAX_ON_PAGE", 200)
    text = page.build_report(run).read_text("utf-8")
    assert not list((run / "report/answers").iterdir()) and "This page holds" not in text
