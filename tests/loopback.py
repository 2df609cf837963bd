"""A loopback server in a thread that answers JSON to JSON; what it answers is up to the class that inherits it."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

Body = dict[str, Any]


class Loopback:
    """Serves from the beginning; use it in a `with`, or `close` it. `most_running` requests were in work at once."""

    def __init__(self) -> None:
        self.running = self.most_running = 0
        lock, server = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # head and body are two packets, the second of which would wait 40 ms

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    asked = server.keep(body, self)
                    server.running += 1
                    server.most_running = max(server.most_running, server.running)
                status, content = server.reply_to(body, asked)
                with lock:
                    server.running -= 1
                send_json(self, status, content)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def keep(self, body: Body, request: BaseHTTPRequestHandler) -> int:
        """Keep a request, one at a time; returns how often the same was asked before."""
        raise NotImplementedError

    def reply_to(self, body: Body, asked: int) -> tuple[int, bytes]:
        """Status and body of the answer."""
        raise NotImplementedError

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def send_json(request: BaseHTTPRequestHandler, status: int, content: bytes) -> None:
    """Send an answer; a client that will ask again need not wait."""
    request.send_response(status)
    request.send_header("Content-Type", "application/json")
    request.send_header("Content-Length", str(len(content)))
    request.send_header("retry-after-ms", "1")
    request.end_headers()
    request.wfile.write(content)
