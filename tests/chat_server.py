"""A loopback chat-completions server whose replies a test chooses by the request."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]
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


class ChatServer:
    """`requests` holds the bodies that were sent, in order of arrival; use it in a `with`."""

    def __init__(self, respond: Respond | None = None) -> None:
        self.respond: Respond = respond or (lambda body, asked: answer())
        self.requests: list[Body] = []
        self.running = self.most_running = 0
        lock, server = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    asked = sum(
                        seen["messages"] == body["messages"] and seen.get("seed") == body.get("seed")
                        for seen in server.requests
                    )
                    server.requests.append(body)
                    server.running += 1
                    server.most_running = max(server.most_running, server.running)
                status, content = server.respond(body, asked)
                with lock:
                    server.running -= 1
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.send_header("retry-after-ms", "1")
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    def __enter__(self) -> "ChatServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
