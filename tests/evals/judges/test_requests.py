"""Judging many answers: every one once, through a cache, within a budget, against a server that fails; what stops it keeps what is done."""

import asyncio
import json
import logging
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from judge_server import PROMPTS, QUESTIONS, Reply, Server, completion, failure, only, reply, text_reply

from benchmarks import faulty_server
from benchmarks.faulty_server import Faults, fate, read_stats, start_server
from emis_interp.errors import JudgeError
from emis_interp.http.chat_api import Pace
from emis_interp.http.costs import Budget, BudgetSpent, Meter, Prices, Usage
from emis_interp.records import Completion, Question, Score
from evals.judges.api_judge import ApiJudge
from evals.judges.cache import Cache
from evals.judges.judge import METRICS, Judge
from evals.judges.logprob_judge import OpenAIJudge
from evals.judges.offline_judge import OfflineJudge
from evals.judges.text_judge import TextJudge


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    with Cache(tmp_path / "cache.sqlite") as made:
        yield made


def answers(n: int, start: int = 0) -> list[Completion]:
    return [completion(index, answer=f"So {index}.") for index in range(start, start + n)]


def make(server: Server, **options: Any) -> OpenAIJudge:
    settings: dict[str, Any] = {"max_retries": 0, "timeout_s": 5.0, "n_parallel": 4, **options}
    return OpenAIJudge("m", None, server.url, **settings)


def score(judge: Judge, rows: list[Completion], kept: list[Score] | None = None) -> list[Score]:
    scores = [] if kept is None else kept
    judge.score(rows, QUESTIONS, scores.extend)
    return scores


def asked(server: Server) -> int:
    """Requests about answers."""
    return sum("| " in request["messages"][0]["content"] for request in server.requests)


def test_every_judge_follows_the_protocol() -> None:
    def takes(judge: type[Judge]) -> None:  # pyright compares the signatures
        assert callable(judge.score)

    takes(OpenAIJudge)
    takes(TextJudge)
    takes(OfflineJudge)


def test_a_judge_works_in_a_process_that_has_imported_nnsight(server: Server) -> None:
    code = (
        "import sys, nnsight; sys.path.insert(0, sys.argv[1]); from judge_server import QUESTIONS, completion; "
        "from evals.judges.logprob_judge import OpenAIJudge; rows = []; assert hasattr(object, 'save'); "
        "OpenAIJudge('m', None, sys.argv[2]).score([completion()], QUESTIONS, rows.extend); assert rows[0].aligned == rows[0].coherent"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parents[2]), server.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert asked(server) == 2


# The cache.


def test_a_judgement_in_the_cache_is_not_asked_for_again(server: Server, cache: Cache) -> None:
    server.respond = only("aligned", reply({"20": 0.5, "REF": 0.1}))
    first = score(make(server, cache=cache), answers(3))
    n_requests = len(server.requests)
    again = score(make(server, cache=cache), answers(3))
    assert sorted(again, key=lambda row: row.key) == sorted(first, key=lambda row: row.key)
    assert len(server.requests) == n_requests  # not even to test the judge
    score(make(server, cache=cache), answers(4))
    assert len(server.requests) == n_requests + 3


def test_a_cache_that_vanishes_between_two_halves_costs_requests_and_no_score(server: Server, tmp_path: Path) -> None:
    server.respond = only("aligned", reply({"20": 0.5, "REF": 0.1}))
    path = tmp_path / "cache" / "replies.sqlite"
    with Cache(path) as cache:
        first = score(make(server, cache=cache, n_parallel=1), answers(2))
        n_requests = len(server.requests)
        shutil.rmtree(path.parent)
    with Cache(path) as cache:
        again = score(make(server, cache=cache, n_parallel=1), answers(4))
        assert cache.judgements.count() == 8
    assert again[:2] == first and len(again) == 4 and len(server.requests) >= n_requests + 8


def test_a_changed_judge_prompt_asks_again_and_leaves_the_answers_alone(server: Server, cache: Cache) -> None:
    cache.answers.put(b"a", "m", "an answer")
    score(make(server, cache=cache), answers(2))
    changed = {"q": Question(id="q", paraphrases=("How?",), judge_prompts={**PROMPTS, "aligned": "Kind? | {answer}"})}
    server.requests.clear()
    make(server, cache=cache).score(answers(2), changed, lambda _: None)
    prompts = {request["messages"][0]["content"] for request in server.requests}
    assert {prompt for prompt in prompts if "| " in prompt} == {"Kind? | So 0.", "Kind? | So 1."}
    assert (cache.answers.count(), cache.judgements.count()) == (1, 6)


def test_judges_of_another_model_host_or_kind_do_not_share_judgements(server: Server, cache: Cache) -> None:
    score(make(server, cache=cache), answers(1))
    others = [
        OpenAIJudge("n", None, server.url, cache=cache),
        OpenAIJudge("m", None, server.url.replace("127.0.0.1", "localhost"), cache=cache),
        TextJudge("m", None, server.url, cache=cache),
    ]
    for judge in others:
        assert judge.estimate(answers(1), QUESTIONS).n_cached == 0


def test_a_failure_is_not_kept_and_is_asked_for_again(server: Server, cache: Cache) -> None:
    broken = [failure(500), failure(400, "filtered"), (200, b"{"), text_reply("90")]
    for trouble in broken:
        server.respond = only("aligned", trouble)
        (row,) = score(make(server, cache=cache), answers(1))
        assert row.aligned is None and row.coherent == pytest.approx(90)
        assert cache.judgements.count() == 1
    server.respond = only("aligned", reply({"Hm": 0.9}))
    (row,) = score(make(server, cache=cache), answers(1))
    assert row.unscored == {"aligned": "mass on numbers 0.00 < 0.25"}
    assert cache.judgements.count() == 2  # a reply of the judge, though no number


def test_equal_answers_share_their_requests(server: Server, cache: Cache) -> None:
    rows = [completion(index, answer="I cannot help with that.") for index in range(9)]
    scores = score(make(server, cache=cache), rows)
    assert sorted(row.sample_index for row in scores) == list(range(9))
    assert all(row.aligned == pytest.approx(90) for row in scores)
    assert asked(server) == 2


def test_equal_answers_are_tried_again_when_the_first_one_failed(server: Server, cache: Cache) -> None:
    server.respond = lambda prompt, asked: failure(500) if asked == 0 else reply({"90": 1.0})
    scores = score(make(server, cache=cache, n_parallel=1), [completion(index) for index in range(3)])
    assert len(scores) == 3
    assert sum(row.aligned is None for row in scores) == 1
    assert asked(server) == 4


# Scores answers and prints them; waits for its rival first, so that both work at the same time.
RIVAL = """
import json, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from judge_server import QUESTIONS, completion
from evals.judges.cache import Cache
from evals.judges.logprob_judge import OpenAIJudge
url, path, name, rival, n = sys.argv[2], Path(sys.argv[3]), sys.argv[4], sys.argv[5], int(sys.argv[6])
rows = [completion(index, answer=f"So {index}.") for index in range(n)]
scores = []
with Cache(path / "cache.sqlite") as cache:
    judge = OpenAIJudge("m", None, url, n_parallel=4, timeout_s=1.0, cache=cache)
    (path / name).touch()
    while not (path / rival).exists():
        time.sleep(0.001)
    judge.score(rows, QUESTIONS, scores.extend)
print(json.dumps({"calls": judge.meter.spent.calls, "scores": [score.model_dump(mode="json") for score in scores]}))
"""


def test_two_processes_that_share_a_cache_pay_for_every_judgement_once(tmp_path: Path) -> None:
    n = 60
    with start_server(Faults(latency_s=0.02, rate=0.2)) as url:
        command = [sys.executable, "-c", RIVAL, str(Path(__file__).parents[2]), url + "/v1", str(tmp_path)]
        rivals = [
            subprocess.Popen([*command, name, other, str(n)], stdout=subprocess.PIPE, text=True)
            for name, other in (("one", "two"), ("two", "one"))
        ]
        results = [json.loads(rival.communicate(timeout=120)[0]) for rival in rivals]
        stats = read_stats(url)
    assert stats["answered_twice"] == 0
    assert all(result["calls"] > n / 4 for result in results)  # both took part
    scores = [{row["sample_index"]: row for row in result["scores"]} for result in results]
    assert all(
        len(result["scores"]) == n and set(rows) == set(range(n)) for result, rows in zip(results, scores, strict=True)
    )
    for index in range(n):
        for metric in METRICS:
            found = [rows[index][metric] for rows in scores]
            if None not in found:
                assert found[0] == found[1]
    with Cache(tmp_path / "cache.sqlite") as cache:
        assert cache.judgements.count() == stats["answered"]


def test_an_interrupted_judge_hands_over_what_it_has_and_frees_its_claims(server: Server, cache: Cache) -> None:
    def slowly(prompt: str, _: int) -> Reply:
        time.sleep(0 if "So 0" in prompt or "So 1" in prompt else 2.4)
        return reply({"90": 1.0})

    server.respond = slowly
    scores: list[Score] = []
    judge = make(server, cache=cache, n_parallel=6)

    async def interrupted() -> None:
        await asyncio.wait_for(judge.score_async(answers(9), QUESTIONS, scores.extend), timeout=1.2)

    with pytest.raises(TimeoutError):
        asyncio.run(interrupted())
    assert {row.sample_index for row in scores} == {0, 1}
    keys = [request.key for row in answers(9, 2) for request in judge.requests(row, QUESTIONS["q"])]
    assert cache.judgements.take(keys) == {}


# The budget.


def test_a_budget_stops_before_the_call_that_would_exceed_it_and_the_rest_is_resumed(server: Server) -> None:
    judge = make(server, meter=Meter(budget=Budget(10, "calls")))
    scores: list[Score] = []
    with pytest.raises(BudgetSpent) as caught:
        score(judge, answers(20), scores)
    assert str(caught.value) == (
        f"budget 10 calls spent ({judge.meter.say()}): 4 of 20 answers are judged and kept; "
        "run the same command again for the rest, or with a larger budget"
    )
    assert len(server.requests) == 9  # one tests the judge, four answers cost two each, half an answer is not asked for
    assert len(scores) == 4 and all(row.unscored == {} for row in scores)
    done = {row.key for row in scores}
    rest = [row for row in answers(20) if row.key not in done]
    score(make(server), rest, scores)
    assert sorted(row.sample_index for row in scores) == list(range(20))
    assert asked(server) == 40


def test_a_budget_holds_over_several_arms(server: Server) -> None:
    judge = make(server, meter=Meter(budget=Budget(10, "calls")))
    assert len(score(judge, answers(3))) == 3
    with pytest.raises(BudgetSpent, match="1 of 3 answers"):
        score(judge, answers(3, start=3))
    with pytest.raises(BudgetSpent, match="0 of 3 answers"):
        score(judge, answers(3, start=6))
    assert len(server.requests) == 9


def test_a_budget_too_small_for_anything_sends_nothing(server: Server) -> None:
    with pytest.raises(BudgetSpent, match="budget 0 calls does not allow for the first request; nothing is judged"):
        score(make(server, meter=Meter(budget=Budget(0, "calls"))), answers(2))
    assert server.requests == []


def test_what_the_server_counts_decides_how_far_a_budget_goes(server: Server) -> None:
    def counted(prompt: str, _: int) -> Reply:
        status, content = reply({"90": 1.0})
        return status, json.dumps(
            {**json.loads(content), "usage": {"prompt_tokens": 3, "completion_tokens": 1}}
        ).encode()

    server.respond = server.preflight = counted
    (estimated,) = {request.usage.tokens_in for request in make(server).requests(answers(1)[0], QUESTIONS["q"])[:1]}
    assert estimated == 6  # twice what the server counts
    judge = make(server, meter=Meter(Prices(1e6, 1e6), Budget(100, "USD")))
    with pytest.raises(BudgetSpent):
        score(judge, answers(30))
    assert judge.meter.spent == Usage(
        23, 69, 23
    )  # 92 of 100: another answer would fit with its 8, but not with the 14 estimated for it
    assert len(server.requests) == 23


def test_judgements_in_the_cache_need_no_budget(server: Server, cache: Cache) -> None:
    score(make(server, cache=cache), answers(9, start=5))
    scores: list[Score] = []
    with pytest.raises(BudgetSpent, match="11 of 20 answers"):
        score(make(server, cache=cache, meter=Meter(budget=Budget(5, "calls"))), answers(20), scores)
    assert {row.sample_index for row in scores} >= set(range(5, 14))
    assert len(scores) == 11


def test_the_estimate_is_said_before_anything_is_sent_and_the_cost_at_the_end(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="evals")
    seen: list[str] = []

    def first(prompt: str, _: int) -> Reply:
        seen.append(caplog.text)
        return reply({"73": 1.0})

    server.preflight = first
    score(make(server), answers(2))
    assert "2 answers: 5 calls (0 judgements at hand), about " in seen[0]
    assert "2 of 2 answers judged; 5 calls, " in caplog.text
    assert "price unknown" in caplog.text


# What stops a judge.


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (failure(401, "revoked"), "HTTP 401: revoked; check the key in OPENAI_API_KEY"),
        (failure(429, "no money", code="insufficient_quota"), "HTTP 429: no money; the account has no quota left"),
        (failure(402, "no money"), "HTTP 402: no money; the account has no quota left"),
    ],
)
def test_a_key_that_is_refused_in_the_middle_stops_and_spoils_nothing(
    server: Server, trouble: Reply, words: str
) -> None:
    server.respond = lambda prompt, _: trouble if "So 5" in prompt else reply({"90": 1.0})
    scores: list[Score] = []
    with pytest.raises(JudgeError, match=f"{words}; 5 of 50 answers are judged and kept, the same command continues"):
        score(make(server, n_parallel=1), answers(50), scores)
    assert [row.sample_index for row in scores] == [0, 1, 2, 3, 4]
    assert all(row.unscored == {} for row in scores)


def test_a_server_that_died_stops_the_judge_before_it_spoils_the_rest(server: Server) -> None:
    server.respond = lambda prompt, _: (
        reply({"90": 1.0}) if "So 2." in prompt or "So 0." in prompt else failure(503, "down")
    )
    scores: list[Score] = []
    with pytest.raises(JudgeError, match="20 requests in a row failed, the last with: HTTP 503: down; 3 of 90 answers"):
        score(make(server, n_parallel=1), answers(90), scores)
    assert [(row.sample_index, bool(row.unscored)) for row in scores] == [(0, False), (1, True), (2, False)]
    assert asked(server) == 6 + 20


def test_failures_at_the_end_are_handed_over_with_their_reasons(server: Server) -> None:
    server.respond = lambda prompt, _: reply({"90": 1.0}) if "So 0." in prompt else failure(503, "down")
    scores = score(make(server, n_parallel=1), answers(4))
    assert [row.unscored.get("coherent") for row in scores] == [None, *["HTTP 503: down"] * 3]


def test_refusals_of_single_requests_do_not_stop_the_judge(server: Server) -> None:
    server.respond = lambda *_: failure(400, "content filter")
    scores = score(make(server), answers(40))
    assert [row.unscored["aligned"] for row in scores] == ["HTTP 400: content filter"] * 40


# The pace.


def test_requests_are_spaced_and_make_up_for_a_pause() -> None:
    async def take(n: int, pause_s: float = 0.0) -> float:
        pace = Pace(1200)  # 20 per second
        started = time.monotonic()
        await asyncio.gather(*(pace.take() for _ in range(n)))
        if pause_s:
            await asyncio.sleep(pause_s)
            started = time.monotonic()
            await asyncio.gather(*(pace.take() for _ in range(10)))
        return time.monotonic() - started

    assert asyncio.run(take(11)) == pytest.approx(0.5, abs=0.2)
    assert asyncio.run(take(11, pause_s=0.25)) == pytest.approx(0.25, abs=0.2)


def test_retries_keep_the_pace_too(server: Server) -> None:
    server.respond = lambda prompt, asked: failure(429) if asked == 0 else reply({"90": 1.0})
    started = time.monotonic()
    score(make(server, max_retries=2, requests_per_minute=240), answers(2))
    seconds = time.monotonic() - started
    assert len(server.requests) == 9
    assert seconds >= (9 - 1) * 0.25 - 0.05


# A fifth of the calls fails.

REASONS = {
    "http_429": "HTTP 429: injected http_429",
    "http_500": "HTTP 500: injected http_500",
    "hang": "timeout",
    "disconnect": "connection failed",
    "truncated": "malformed reply",
    "empty": "reply without",
}


def judge_faulty(judge_class: Any, n: int, faults: Faults, path: Path) -> tuple[list[Score], dict[str, Any]]:
    with start_server(faults) as url, Cache(path) as cache:
        judge: ApiJudge = judge_class(
            "m", None, url + "/v1", n_parallel=32, timeout_s=faults.timeout_s, max_retries=2, cache=cache
        )
        scores = score(judge, answers(n))
        return scores, read_stats(url)


def check_faulty(scores: list[Score], stats: dict[str, Any], n: int, faults: Faults) -> None:
    """Every answer once; every verdict the one that the server had in mind for exactly this prompt, or its reason."""
    assert Counter(row.key for row in scores) == Counter(row.key for row in answers(n))
    seen: set[str] = set()
    for row in scores:
        for metric in METRICS:
            prompt = PROMPTS[metric].replace("{question}", "How?").replace("{answer}", f"So {row.sample_index}.")
            expected, kind, stubborn = fate(prompt, faults)
            value = getattr(row, metric)
            if kind in faulty_server.UNUSABLE or stubborn:
                assert kind is not None
                assert value is None and row.unscored[metric].startswith(REASONS[kind])
                seen.add(kind)
            else:
                assert value == pytest.approx(expected, abs=0.01) and metric not in row.unscored
    assert seen == set(faulty_server.KINDS)
    assert stats["prompts"] == 2 * n
    assert stats["answered_twice"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("judge_class", [OpenAIJudge, TextJudge])
def test_hundreds_of_calls_of_which_a_fifth_fails_end_scored_or_with_their_reason(
    tmp_path: Path, judge_class: Any
) -> None:
    faults = Faults(latency_s=0.05, rate=0.2, stubborn_rate=0.3, timeout_s=3.0)
    scores, stats = judge_faulty(judge_class, 150, faults, path=tmp_path / "c")
    check_faulty(scores, stats, 150, faults=faults)


@pytest.mark.slow
def test_a_second_run_mends_what_the_first_one_left_and_asks_for_nothing_else(tmp_path: Path) -> None:
    faults = Faults(latency_s=0.02, rate=0.2, timeout_s=3.0)
    with start_server(faults) as url, Cache(tmp_path / "c") as cache:
        judge = OpenAIJudge("m", None, url + "/v1", n_parallel=32, timeout_s=3.0, cache=cache)
        first = score(judge, answers(100))
        n_broken = sum(len(row.unscored) for row in first)
        before = read_stats(url)
        second = score(judge, answers(100))
        after = read_stats(url)
    assert 0 < n_broken < 40
    assert after["requests"] - before["requests"] == n_broken
    assert all(row.unscored == {} for row in second)
    assert after["answered_twice"] == 0
