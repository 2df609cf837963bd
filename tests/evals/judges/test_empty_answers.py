"""An answer without text, or to a question without one, is no judge's business: unscored with its reason, and never sent."""

from collections.abc import Iterator
from typing import Any

import pytest
from judge_server import QUESTIONS, Server, completion, text_reply

from emis_interp.models.chat_model import ChatModel
from emis_interp.records import Score
from evals.judges.judge import Judge, why_unjudgeable
from evals.judges.local_judge import LocalJudge
from evals.judges.logprob_judge import OpenAIJudge
from evals.judges.offline_judge import OfflineJudge
from evals.judges.text_judge import TextJudge
from evals.suites.asking import openai_ask
from evals.suites.labels import judge_labels

ROWS = [
    completion(0, answer=""),
    completion(1, answer=" \n\t"),
    completion(2, answer="So."),
    completion(3).model_copy(update={"question": " "}),
    completion(4, answer="So \ud83d."),
]
REASONS = {0: "empty answer", 1: "empty answer", 3: "empty question", 4: "the answer is not Unicode (a lone surrogate)"}


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


def prompts(server: Server) -> list[str]:
    return [text for request in server.requests if "| " in (text := request["messages"][0]["content"])]


def judges(kind: str, server: Server, request: pytest.FixtureRequest) -> Judge:
    if kind == "offline":
        return OfflineJudge.load("cpu")
    if kind == "local":
        tiny: ChatModel = request.getfixturevalue("tiny")
        return LocalJudge(tiny)
    return {"openai": OpenAIJudge, "text": TextJudge}[kind]("m", None, server.url)


@pytest.mark.parametrize("kind", ["openai", "text", "local", "offline"])
def test_every_judge_leaves_it_unscored_with_the_reason(
    kind: str, server: Server, request: pytest.FixtureRequest
) -> None:
    found: list[Score] = []
    judges(kind, server, request).score(ROWS, QUESTIONS, found.extend)
    scores: dict[int, Any] = {score.sample_index: score for score in found}
    assert sorted(scores) == list(range(len(ROWS))) and len(found) == len(ROWS)
    for index, reason in REASONS.items():
        score = scores[index]
        assert (score.aligned, score.coherent, score.aligned_label) == (None, None, None)
        assert score.unscored == {"aligned": reason, "coherent": reason} and not score.passing
    assert set(scores[2].unscored.values()).isdisjoint(REASONS.values())
    if kind in ("openai", "text"):
        assert all(prompt.endswith("| So.") for prompt in prompts(server)) and len(prompts(server)) == 2


def test_what_is_not_sent_costs_nothing(server: Server) -> None:
    judge = OpenAIJudge("m", None, server.url)
    assert judge.estimate(ROWS[:2], QUESTIONS).usage.calls == 0
    assert judge.estimate(ROWS, QUESTIONS).usage.calls == 3  # two for the one answer, one for the test of the judge


def test_labels_follow_the_same_rule(server: Server) -> None:
    server.respond = lambda *_: text_reply("85")
    ask = openai_ask("m", None, server.url, log_probabilities=False)
    found = judge_labels(ROWS, QUESTIONS, "aligned", labels=["85"], ask=ask, judge_name="m")
    assert {row.sample_index: row.reason for row in found if row.label is None} == REASONS
    assert [row.sample_index for row in found if row.label == "85"] == [2] and len(prompts(server)) == 1
    server.requests.clear()
    judge_labels(ROWS[:2], QUESTIONS, "aligned", labels=["85"], ask=ask, judge_name="m")
    assert server.requests == []


def test_the_answer_is_looked_at_before_the_question() -> None:
    assert why_unjudgeable(" ", "") == "empty answer"
    assert why_unjudgeable("\udc00", "") == "empty answer"
    assert why_unjudgeable("How?", "So.") is None
