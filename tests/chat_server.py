"""A loopback chat-completions server whose replies a test chooses by the request."""

import json
from collections.abc import Callable
from email.message import Message
from http.server import BaseHTTPRequestHandler
from typing import Any

from loopback import Body, Loopback, send_json

Respond = Callable[[Body, int], tuple[int, bytes]]
"""(request, how often its question was asked before) -> status and body."""


def answer(text: str | None = "Yes.", finish: str | None = "stop", n_tokens: int | None = 3) -> tuple[int, bytes]:
    """A reply with one choice."""
    reply: Body = {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}]
    }
    if n_tokens is not None:
        reply["usage"] = {"prompt_tokens": 9, "completion_tokens": n_tokens, "total_tokens": 9 + n_tokens}
    return 200, json.dumps(reply).encode()


def failure(status: int, message: str = "no", **more: Any) -> tuple[int, bytes]:
    return status, json.dumps({"error": {"message": message, **more}}).encode()


class ChatServer(Loopback):
    """`requests` holds the bodies that were sent, in order of arrival, `headers` what came with them; use it in a `with`."""

    def __init__(self, respond: Respond | None = None) -> None:
        self.respond: Respond = respond or (lambda body, asked: answer())
        self.requests: list[Body] = []
        self.headers: list[Message] = []
        super().__init__()

    def keep(self, body: Body, request: BaseHTTPRequestHandler) -> int:
        asked = sum(
            seen["messages"] == body["messages"] and seen.get("seed") == body.get("seed") for seen in self.requests
        )
        self.requests.append(body)
        self.headers.append(request.headers)
        return asked

    def reply_to(self, body: Body, asked: int) -> tuple[int, bytes]:
        return self.respond(body, asked)


class NamedServer(ChatServer):
    """Lists models besides answering."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self._http.RequestHandlerClass.do_GET = lambda request: send_json(  # type: ignore[attr-defined]
            request, 200, json.dumps({"data": [{"id": name} for name in names]}).encode()
        )
