"""A loopback chat-completions server in a process of its own that answers after a fixed latency and fails on purpose.

Which calls fail, and how, follows from a hash of the prompt, so a run can be repeated and checked from outside. A marked call fails the
first time that it is asked and is answered after that; a stubborn one fails every time. `GET /stats` tells what the server did.

Start it with `start_server`, or as a program: it prints its port as one JSON line.
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import math
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

KINDS = ("http_429", "http_500", "hang", "truncated", "empty", "disconnect")
RETRIED = ("http_429", "http_500", "hang", "disconnect")  # by the SDK
UNUSABLE = ("truncated", "empty")  # status 200, so not repeated


class Faults(NamedTuple):
    """Latency of an answer in seconds, share of calls that fail, share of these that fail every time, and the client's patience."""

    latency_s: float = 0.05
    rate: float = 0.2
    stubborn_rate: float = 0.0
    timeout_s: float = 1.0
    retry_after_ms: int | None = None


def fate(prompt: str, faults: Faults) -> tuple[int, str | None, bool]:
    """The score 0-100 that the server gives, how the call fails (None: it does not), and whether it always does."""
    digest = hashlib.sha256(prompt.encode("utf-8")).digest()
    score = digest[0] * 256 + digest[1]
    shares = [int.from_bytes(digest[start : start + 4], "big") / 2**32 for start in (4, 8, 12)]
    kind = KINDS[int(shares[1] * len(KINDS))] if shares[0] < faults.rate else None
    return score % 101, kind, kind is not None and shares[2] < faults.stubborn_rate


class FaultyServer:
    """Counts what it is asked; `handle` serves one connection."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.asked: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.held_s = 0.0
        self.running = self.most_running = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                length = next(
                    (
                        int(line.partition(":")[2])
                        for line in head.split("\r\n")
                        if line[:15].lower() == "content-length:"
                    ),
                    0,
                )
                body = await reader.readexactly(length)
                if head.startswith("GET"):
                    await send(writer, 200, json.dumps(self.stats()).encode())
                    continue
                self.running += 1
                self.most_running = max(self.most_running, self.running)
                try:
                    goes_on = await self.answer(json.loads(body), reader, writer)
                finally:
                    self.running -= 1
                if not goes_on:
                    break
        writer.close()

    async def answer(self, request: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer or fail; whether the connection goes on."""
        prompt = request["messages"][0]["content"]
        if prompt.startswith("Write only the number"):
            await send(writer, 200, good_reply(request, 73))
            return True
        score, kind, stubborn = fate(prompt, self.faults)
        self.asked[prompt] += 1
        if self.asked[prompt] > 1 and not stubborn:
            kind = None
        if kind is not None:
            self.failed[kind] += 1
        if kind == "hang":
            self.held_s += self.faults.timeout_s
            await reader.read(1)  # returns when the client has given up
            return False
        if kind != "http_429":  # a rate limiter refuses at once
            self.held_s += self.faults.latency_s
            await asyncio.sleep(self.faults.latency_s)
        if kind == "disconnect":
            return False
        if kind in ("http_429", "http_500"):
            content = json.dumps({"error": {"message": f"injected {kind}"}}).encode()
            await send(writer, int(kind[-3:]), content, retry_after_ms=self.faults.retry_after_ms)
            return True
        content = good_reply(request, score)
        if kind == "truncated":
            content = content[: len(content) // 2]
        elif kind == "empty":
            content = empty_reply(request)
        else:
            self.answered[prompt] += 1
        await send(writer, 200, content)
        return True

    def stats(self) -> dict[str, Any]:
        """`held_s`: seconds of latency and hanging, summed over requests; `answered_twice`: prompts answered well more than once."""
        return {
            "requests": self.asked.total(),
            "prompts": len(self.asked),
            "answered": len(self.answered),
            "answered_twice": sum(count > 1 for count in self.answered.values()),
            "failed": dict(self.failed),
            "held_s": self.held_s,
            "most_running": self.most_running,
        }


async def send(writer: asyncio.StreamWriter, status: int, content: bytes, *, retry_after_ms: int | None = None) -> None:
    after = f"retry-after-ms: {retry_after_ms}\r\n" if retry_after_ms is not None else ""
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n{after}\r\n"
    writer.write(head.encode() + content)
    await writer.drain()


def good_reply(request: dict[str, Any], score: int) -> bytes:
    """The score as the only token, with 19 further numbers of little mass around it when log-probabilities are asked for."""
    logprobs = None
    if request.get("logprobs"):
        top = [{"token": str(score), "logprob": math.log(0.9), "bytes": None}]
        others = [number for number in range(max(0, score - 19), 101) if number != score][:19]
        top += [{"token": str(number), "logprob": -20.0, "bytes": None} for number in others]
        logprobs = {"content": [{**top[0], "top_logprobs": top}]}
    return _reply(str(score), logprobs, request)


def empty_reply(request: dict[str, Any]) -> bytes:
    """A well-formed reply without what was asked for."""
    return _reply(None, {"content": []} if request.get("logprobs") else None, request)


def _reply(text: str | None, logprobs: Any, request: dict[str, Any]) -> bytes:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "finish_reason": "stop", "message": message, "logprobs": logprobs}
    usage = {"prompt_tokens": len(request["messages"][0]["content"]) // 4, "completion_tokens": 1}
    return json.dumps({"id": "1", "object": "chat.completion", "choices": [choice], "usage": usage}).encode()


@contextlib.contextmanager
def start_server(faults: Faults) -> Iterator[str]:
    """The server in a process of its own; yields its URL (`http://127.0.0.1:PORT`, the API is under `/v1`)."""
    command = [sys.executable, __file__, "--faults", json.dumps(faults._asdict())]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{json.loads(process.stdout.readline())['port']}"
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def read_stats(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}/stats", timeout=10) as reply:  # nosec B310 # its own server
        return json.loads(reply.read())


async def main(faults: Faults) -> None:
    server = await asyncio.start_server(FaultyServer(faults).handle, "127.0.0.1", 0, backlog=1024)
    sys.stdout.write(json.dumps({"port": server.sockets[0].getsockname()[1]}) + "\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=json.loads, default={}, help="fields of Faults as a JSON object")
    asyncio.run(main(Faults(**parser.parse_args().faults)))
