"""A loopback server that answers with whatever bytes a test sends, in whatever rhythm; for what no well-behaved server does."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

Serve = Callable[[socket.socket, int], None]
"""(connection, how many requests came before) -> whatever it sends; the connection is closed afterwards."""


class RawServer:
    """`requests` holds head and body of each request as they came; use it in a `with`."""

    def __init__(self, serve: Serve) -> None:
        self.serve, self.requests = serve, list[bytes]()
        self.done = threading.Event()
        self._lock = threading.Lock()
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                threading.Thread(target=self._handle, args=(connection,), daemon=True).start()

    def _handle(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            request = read_request(connection)
            with self._lock:
                asked = len(self.requests)
                self.requests.append(request)
            self.serve(connection, asked)

    def drip(self, connection: socket.socket, content: bytes, every_s: float = 0.02) -> None:
        """One byte after the other, until the client has had enough or the test is over."""
        for i in range(len(content)):
            if self.done.wait(every_s):
                return
            connection.sendall(content[i : i + 1])

    def __enter__(self) -> "RawServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def read_request(connection: socket.socket) -> bytes:
    content = b""
    while b"\r\n\r\n" not in content:
        content += _received(connection)
    head, _, body = content.partition(b"\r\n\r\n")
    length = next((int(line.split(b":")[1]) for line in lines(head) if line.lower().startswith(b"content-length")), 0)
    while len(body) < length:
        body += _received(connection)
    return head + b"\r\n\r\n" + body


def lines(head: bytes) -> Iterator[bytes]:
    yield from head.split(b"\r\n")


def _received(connection: socket.socket) -> bytes:
    piece = connection.recv(65536)
    if not piece:
        raise ConnectionError("the client went away")
    return piece


def http(content: bytes, status: str = "200 OK", *headers: str, kind: str = "application/json") -> bytes:
    """A whole HTTP reply that ends its connection."""
    head = [
        f"HTTP/1.1 {status}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(content)}",
        "Connection: close",
        *headers,
    ]
    return "\r\n".join([*head, "", ""]).encode() + content
