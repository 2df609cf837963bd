"""Which answers a page holds, and that side pages hold the rest: fixed, even, every bad one, nothing lost, no unsafe file name."""

import base64
import gzip
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from planted_answers import N_QUESTIONS, write_many

from emis_interp.records import Completion, Score
from emis_interp.report import answer_pages, page
from emis_interp.report.answer_pages import address_of, answer_data, side_pages, write_side_pages
from emis_interp.report.answer_sample import is_bad, sample, worst_of
from emis_interp.report.contents import Answer, Contents, load_contents

N, LIMIT = 3600, 600


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> Contents:
    return load_contents(write_many(tmp_path_factory.mktemp("run"), N))


def keys(answers: Any) -> list[Any]:
    return [answer.completion.key for answer in answers]


def test_a_page_that_can_hold_everything_does(contents: Contents) -> None:
    whole = sample(contents.answers, N)
    assert whole.whole and whole.answers == contents.answers


def test_a_sample_holds_every_bad_answer_and_is_even_over_arms_and_questions(contents: Contents) -> None:
    drawn = sample(contents.answers, LIMIT)
    bad = [answer for answer in contents.answers if is_bad(answer)]
    assert len(drawn.answers) == len(set(keys(drawn.answers))) == LIMIT
    assert set(keys(bad)) <= set(keys(drawn.answers)) and len(bad) == drawn.n_bad == drawn.n_bad_shown == 61
    worst = worst_of(contents.answers, 10)
    assert all(set(keys(rows)) <= set(keys(drawn.answers)) and len(rows) == 10 for rows in worst.values())
    kept = set(keys(bad)) | {key for rows in worst.values() for key in keys(rows)}
    counts = Counter(key[:2] for key in keys(drawn.answers) if key not in kept)
    assert len(counts) == 3 * N_QUESTIONS and max(counts.values()) - min(counts.values()) <= 1
    assert [key for key in keys(contents.answers) if key in set(keys(drawn.answers))] == keys(drawn.answers)
    assert f"{LIMIT} of {N} answers: all 61 that are misaligned and coherent" in drawn.words


def test_a_sample_is_the_same_whatever_the_order_and_keeps_most_when_the_run_grows(contents: Contents) -> None:
    drawn = set(keys(sample(contents.answers, LIMIT).answers))
    assert drawn == set(keys(sample(contents.answers[::-1], LIMIT).answers))
    rows = contents.answers[:-60]
    assert len(drawn & set(keys(sample(rows, LIMIT).answers))) > 0.9 * LIMIT


def test_when_bad_answers_are_too_many_the_least_aligned_stay_and_it_says_so(contents: Contents) -> None:
    def all_bad(answer: Answer) -> Answer:
        score = (
            Score(**{**answer.score.model_dump(), "aligned": answer.completion.sample_index % 29, "coherent": 90.0})
            if answer.score
            else None
        )
        return replace(answer, score=score)

    drawn = sample(
        [all_bad(answer) for answer in contents.answers if answer.score and not answer.score.aligned_label], 90
    )
    assert drawn.n_bad > 3000 and len(drawn.answers) == 90 == drawn.n_bad_shown
    assert (
        f"90 of the {drawn.n_bad} that are misaligned and coherent (of each arm first the least aligned)" in drawn.words
    )
    least = Counter(answer.completion.arm for answer in drawn.answers if answer.score and answer.score.aligned == 0)
    assert all(least[arm] >= 10 for arm in ("base", "reckless", "careful"))


@pytest.mark.parametrize("limit", [1, 5, 71, 72, 73, 144, 3599])
def test_a_sample_never_passes_its_limit(contents: Contents, limit: int) -> None:
    assert len(sample(contents.answers, limit).answers) == limit


def table_of(text: str) -> dict[str, Any]:
    packed = re.search(r'id="answer-data">([^<]*)<', text)
    assert packed
    return json.loads(gzip.decompress(base64.b64decode(packed[1])))


def test_side_pages_together_hold_every_answer_once(
    contents: Contents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_pages, "MAX_ON_SIDE_PAGE", 500)
    pages = side_pages(contents)
    assert [one.words for one in pages[:3]] == [
        f"base: {a} to {b} of 1200" for a, b in ((1, 500), (501, 1000), (1001, 1200))
    ]
    (tmp_path / "left.html").write_text("of an earlier build")
    written = write_side_pages(tmp_path, contents, pages)
    assert set(tmp_path.iterdir()) == set(written)
    told = []
    for path in written:
        table = table_of(path.read_text("utf-8"))
        assert table["n_all"] == 1200 and len(table["rows"]) <= 500 and 'id="library"' not in path.read_text("utf-8")
        told += [
            (table["arms"][row[0]]["name"], table["questions"][row[1]][0], row[2], row[3]) for row in table["rows"]
        ]
    assert told == keys(contents.answers)


def test_exact_counts_of_the_run_stand_beside_a_sample(contents: Contents) -> None:
    shown = sample(contents.answers, LIMIT).answers
    table = json.loads(gzip.decompress(base64.b64decode(answer_data(shown, {}, counted=contents.answers))))
    assert len(table["rows"]) == LIMIT and table["n_all"] == N == sum(row[2] for row in table["counts"])
    assert sum(row[3] for row in table["counts"]) == 61
    n_cut = sum(answer.completion.finish == "length" for answer in contents.answers)
    assert sum(row[5] for row in table["counts"]) == n_cut
    assert sum(row[6] for row in table["counts"]) == sum(
        answer.score is None or answer.score.aligned is None for answer in contents.answers
    )


def test_file_names_are_safe_and_different_whatever_arms_are_called(contents: Contents) -> None:
    names = ["../../etc/x", "..", "A b", "a_B", "<img src=x>", "a/b", "x" * 300, "arm.seed-0", "base.steer.+0.20"]
    answers = [Answer(Completion.given(name, "q", 0, question="?", answer="!"), None, False) for name in names]
    files = [one.file for one in side_pages(replace(contents, answers=answers))]
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
