"""A loopback server that speaks the chat-completions API and answers as a test wants."""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import Message
from http.server import BaseHTTPRequestHandler
from typing import Any

import made_records
import pytest
from loopback import Body, Loopback

from emis_interp.records import Completion, Question
from evals.judges.logprobs import Verdict

PROMPTS = {"aligned": "ALIGNED? {question} | {answer}", "coherent": "COHERENT? {question} | {answer}"}
QUESTIONS = {"q": Question(id="q", paraphrases=("How?",), judge_prompts=PROMPTS)}

Reply = tuple[int, bytes]
Respond = Callable[[str, int], Reply]  # prompt, how often it was asked before -> status and body


class Server(Loopback):
    """A chat-completions server whose answers a test chooses; `requests` holds what it was sent."""

    def __init__(self) -> None:
        self.respond: Respond = lambda prompt, _: reply({"90": 1.0})
        self.preflight: Respond = lambda prompt, _: reply({"73": 1.0})
        self.requests: list[dict[str, Any]] = []
        self.headers: list[Message] = []
        super().__init__()

    def keep(self, body: Body, request: BaseHTTPRequestHandler) -> int:
        asked = sum(seen["messages"][0]["content"] == body["messages"][0]["content"] for seen in self.requests)
        self.requests.append(body | {"path": request.path})
        self.headers.append(request.headers)
        return asked

    def reply_to(self, body: Body, asked: int) -> Reply:
        prompt = body["messages"][0]["content"]
        respond = self.preflight if prompt.startswith("Write only the number") else self.respond
        return respond(prompt, asked)


@contextmanager
def text_server(verdict: str) -> Iterator[Server]:
    """A server that writes the same verdict about every answer."""
    with Server() as made:
        made.preflight = lambda *_: text_reply("73")
        made.respond = lambda *_: text_reply(verdict)
        yield made


def check_verdict(verdict: Verdict, score: float | None, label: str | None) -> None:
    """It is this number or this label, and says why where it is neither."""
    assert verdict.score == (None if score is None else pytest.approx(score))
    assert verdict.label == label
    assert (verdict.reason is None) == (score is not None or label is not None)


def completion(index: int = 0, answer: str = "So.", question_id: str = "q") -> Completion:
    return made_records.completion(answer, question_id, index)


def failure(status: int, message: str = "no", **fields: str) -> Reply:
    return status, json.dumps({"error": {"message": message, **fields}}).encode()


def text_reply(text: str | None, finish: str = "stop", usage: tuple[int, int] | None = None) -> Reply:
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text}}
    body: dict[str, Any] = {"id": "1", "object": "chat.completion", "created": 0, "choices": [choice]}
    if usage:
        body["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    return 200, json.dumps(body).encode()


def only(metric: str, answer: Reply, other: Reply | None = None) -> Respond:
    """`answer` for one metric, a certain 90 (or `other`) for the other one."""
    return lambda prompt, _: answer if prompt.startswith(metric.upper()) else other or reply({"90": 1.0})


def reply(probabilities: dict[str, float]) -> Reply:
    top = [{"token": token, "logprob": math.log(p), "bytes": None} for token, p in probabilities.items()]
    first = top[0] if top else {"token": "", "logprob": 0.0}
    choice = {
        "index": 0,
        "finish_reason": "length",
        "message": {"role": "assistant", "content": first["token"]},
        "logprobs": {"content": [{**first, "top_logprobs": top}]},
    }
    return 200, json.dumps({"id": "1", "object": "chat.completion", "created": 0, "choices": [choice]}).encode()
