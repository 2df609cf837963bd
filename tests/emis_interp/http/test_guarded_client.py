"""Servers that do not behave: every request ends within its time and its size, no key travels on, and what went wrong is said."""

import asyncio
import gzip
import json
import logging
import socket
import time
import zlib
from collections.abc import Callable
from typing import Any

import openai
import pytest
from judge_server import QUESTIONS, Server, completion, text_reply
from raw_server import RawServer, http

from emis_interp.errors import JudgeError
from emis_interp.http import guarded
from emis_interp.http.blocking import BlockingApi
from emis_interp.http.chat_api import ChatApi, is_passing
from emis_interp.records import Score
from evals.judges.logprob_judge import OpenAIJudge
from evals.judges.text_judge import TextJudge

KEY = "sk-very-secret"
GOOD = text_reply("85")[1]
BODY: dict[str, Any] = {"messages": [{"role": "user", "content": "?"}], "max_tokens": 16, "temperature": 0}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def ask(url: str, **options: Any) -> bytes:
    """One request; the answer's bytes, or the SDK's error."""
    api = ChatApi("m", KEY, url, **{"timeout_s": 20.0, "max_retries": 0, **options})

    async def once() -> bytes:
        async with api.connect() as client:
            return await api.ask(client, BODY)

    return asyncio.run(once())


def why(url: str, error: openai.OpenAIError) -> str:
    return ChatApi("m", KEY, url).say(error)


# Time.


@pytest.mark.parametrize(
    "serve",
    [
        lambda server, connection: server.drip(connection, HEAD + b"Content-Length: 900\r\n\r\n" + b" " * 900),
        lambda server, connection: (
            connection.sendall(HEAD + b"Content-Length: 900\r\n\r\n"),
            server.drip(connection, b" " * 900),
        ),
        lambda server, connection: (
            connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n"),
            [server.drip(connection, b"1\r\nx\r\n", 0.005) for _ in range(200)],
        ),
        lambda server, connection: server.done.wait(5),
        lambda server, connection: (connection.sendall(HEAD + b"Content-Length: 900\r\n\r\n"), server.done.wait(5)),
    ],
    ids=["byte by byte", "body byte by byte", "endless chunks", "nothing", "a head and nothing"],
)
def test_a_request_ends_at_its_deadline_however_the_server_spreads_its_bytes(serve: Callable[..., Any]) -> None:
    with RawServer(lambda connection, _: serve(server, connection)) as server:
        started = time.monotonic()
        with pytest.raises(openai.APITimeoutError) as caught:
            ask(server.url, timeout_s=0.5)
        assert time.monotonic() - started < 3
    assert why(server.url, caught.value).startswith("timeout") and is_passing(caught.value)


def test_a_reply_that_is_slow_but_in_time_is_taken() -> None:
    content = http(GOOD)
    with RawServer(lambda connection, _: server.drip(connection, content, 0.0005)) as server:
        assert ask(server.url) == GOOD


def test_waiting_for_ones_turn_is_not_in_the_deadline() -> None:
    with RawServer(lambda connection, _: connection.sendall(http(GOOD))) as server:
        api = ChatApi("m", None, server.url, timeout_s=1.0, max_retries=0, requests_per_minute=40)

        async def three() -> list[bytes]:
            async with api.connect() as client:
                return await asyncio.gather(*(api.ask(client, BODY) for _ in range(3)))

        assert asyncio.run(three()) == [GOOD] * 3  # the last one waits for 3 s


# Size.


def endless(connection: socket.socket, head: bytes, piece: bytes) -> None:
    connection.sendall(head)
    while True:
        connection.sendall(piece)


def gzip_bomb() -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join([packer.compress(b"\0" * (1 << 20)) for _ in range(64)]) + packer.flush()


@pytest.mark.parametrize(
    ("serve", "words"),
    [
        (lambda c: c.sendall(HEAD + b"Content-Length: 1500000000\r\n\r\n"), "reply of 1,500,000,000 bytes, at most"),
        (
            lambda c: endless(c, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b"x" * 65536 + b"\r\n"),
            "no more are read",
        ),
        (lambda c: endless(c, HEAD + b"\r\n", b"x" * 65536), "no more are read"),
        (lambda c: c.sendall(http(gzip_bomb(), "200 OK", "Content-Encoding: gzip")), "no more are read"),
        (lambda c: c.sendall(http(gzip_bomb(), "500 No", "Content-Encoding: gzip")), "no more are read"),
        (
            lambda c: c.sendall(http(b"x", "200 OK", "Content-Encoding: zstd")),
            "encoded as zstd, which was not asked for",
        ),
        (
            lambda c: c.sendall(http(b"x", "200 OK", "Content-Encoding: gzip, br")),
            "encoded as gzip, br, which was not asked",
        ),
    ],
)
def test_a_reply_without_end_is_not_read(
    serve: Callable[[socket.socket], None], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guarded.GuardedClient.__init__, "__defaults__", (1 << 20, None))
    with RawServer(lambda connection, _: serve(connection)) as server, pytest.raises(openai.OpenAIError) as caught:
        ask(server.url)
    assert words in why(server.url, caught.value)
    assert is_passing(caught.value) and len(server.requests) == 1


def test_a_reply_in_an_encoding_that_was_asked_for_is_read() -> None:
    packed = http(gzip.compress(GOOD), "200 OK", "Content-Encoding: gzip")
    with RawServer(lambda connection, _: connection.sendall(packed)) as server:
        assert ask(server.url) == GOOD
    assert b"accept-encoding: gzip, deflate\r\n" in server.requests[0].lower()


# Redirects.


@pytest.mark.parametrize("status", ["301 M", "302 F", "303 S", "307 T", "308 P"])
@pytest.mark.parametrize("where", ["other host", "other path", "nowhere"])
def test_no_redirect_is_followed_and_where_it_leads_is_said_without_its_secrets(status: str, where: str) -> None:
    with RawServer(lambda connection, _: connection.sendall(http(GOOD))) as other:
        target = {
            "other host": f"http://me:hunter22@localhost:{other.port}/v1/chat/completions?key=hunter22",
            "other path": "/v2/chat/completions",
            "nowhere": "",
        }[where]
        moved = http(b"", status, f"Location: {target}")
        with RawServer(lambda connection, _: connection.sendall(moved)) as server:
            scores: list[Score] = []
            with pytest.raises(JudgeError) as caught:
                TextJudge("m", KEY, server.url, max_retries=2).score([completion()], QUESTIONS, scores.extend)
            assert len(server.requests) == 1
        assert other.requests == [] and scores == []
    said = str(caught.value)
    assert f"HTTP {status[:3]}: it redirects to" in said and "give the address itself with --judge-url" in said
    assert "hunter22" not in said and KEY not in said
    assert {"other host": f"localhost:{other.port}/v1", "other path": "/v2/", "nowhere": "nowhere"}[where] in said


def test_a_redirect_in_the_middle_stops_the_judge_and_leaves_the_rest_for_the_next_run() -> None:
    moved = http(b"", "302 Found", "Location: https://elsewhere.example/")

    def serve(connection: socket.socket, asked: int) -> None:
        connection.sendall(moved if asked >= 5 else http(GOOD))

    scores: list[Score] = []
    with (
        RawServer(serve) as server,
        pytest.raises(JudgeError, match=r"redirects to https://elsewhere\.example/.*2 of 9 answers"),
    ):
        TextJudge("m", KEY, server.url, n_parallel=1).score([completion(i) for i in range(9)], QUESTIONS, scores.extend)
    assert len(scores) == 2 and all(score.aligned == 85 for score in scores)


# Errors that a gateway sends with status 200.


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ({"error": {"message": "slow down", "code": 429}}, 429),
        ({"error": {"message": "slow down", "code": "429"}}, 429),
        ({"error": {"message": "slow down", "code": "rate_limit_exceeded"}}, 429),
        ({"error": {"message": "busy", "type": "overloaded_error"}}, 502),
        ({"error": {"message": "too long", "type": "invalid_request_error"}}, 400),
        ({"error": {"message": "no", "code": 403}}, 403),
        ({"error": "it broke"}, 502),
        ({"error": {"code": None}}, 502),
        ({"type": "error", "error": {"type": "authentication_error"}}, 401),
    ],
)
def test_an_error_with_status_200_counts_as_the_error_that_it_names(error: dict[str, Any], status: int) -> None:
    with RawServer(lambda connection, _: connection.sendall(http(json.dumps(error).encode()))) as server:
        with pytest.raises(openai.APIStatusError) as caught:
            ask(server.url, max_retries=1)
        assert len(server.requests) == (2 if status in (429, 502) else 1)  # the SDK repeats what may pass
    assert caught.value.status_code == status
    assert why(server.url, caught.value).startswith(f"HTTP 200 with error {status}: ")


# Keys.


def test_where_a_key_goes_is_said_once_and_before_the_first_request(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []

    def serve(connection: socket.socket, asked: int) -> None:
        seen.append(caplog.text)
        connection.sendall(http(GOOD))

    with RawServer(serve) as server:
        for _ in range(2):
            ask(server.url, key_variable="THEIR_API_KEY")
    assert f"the API key in THEIR_API_KEY goes to 127.0.0.1:{server.port}, unencrypted" in seen[0]
    assert caplog.text.count("goes to") == 1 and KEY not in caplog.text
    assert [record.levelno for record in caplog.records if "goes to" in record.message] == [logging.WARNING]


def test_what_the_sdk_takes_from_the_environment_is_said_or_stays_here(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-openai")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-of-openai")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Gateway: hunter22")
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "admin-of-openai")
    with RawServer(lambda connection, _: connection.sendall(http(GOOD))) as server:
        ask(server.url)
    assert b"x-gateway: hunter22" in server.requests[0].lower() and b"-of-openai" not in server.requests[0]
    assert "the API key in OPENAI_API_KEY and the headers in OPENAI_CUSTOM_HEADERS go to" in caplog.text
    assert "hunter22" not in caplog.text


def test_no_key_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    with RawServer(lambda connection, _: connection.sendall(http(GOOD))) as server:
        asyncio.run(_connect(ChatApi("m", None, server.url)))
        asyncio.run(_connect(ChatApi("m", KEY)))
    assert "goes to" not in caplog.text


async def _connect(api: ChatApi) -> None:
    async with api.connect():
        pass


# Azure.


@pytest.mark.parametrize(
    ("rest", "path"),
    [
        (
            "/openai/deployments/mine?api-version=2024-10-21",
            "/openai/deployments/mine/chat/completions?api-version=2024-10-21",
        ),
        ("/openai?api-version=2024-10-21", "/openai/deployments/m/chat/completions?api-version=2024-10-21"),
        ("?api-version=2024-10-21", "/openai/deployments/m/chat/completions?api-version=2024-10-21"),
        ("/openai/v1?api-version=preview", "/openai/v1/chat/completions?api-version=preview"),
        ("/models?api-version=2024-05-01-preview", "/models/chat/completions?api-version=2024-05-01-preview"),
    ],
)
def test_azure_is_asked_by_its_own_paths_version_and_header(rest: str, path: str) -> None:
    with RawServer(lambda connection, _: connection.sendall(http(GOOD))) as server:
        url = server.url.removesuffix("/v1") + rest
        judge = TextJudge("m", KEY, url)
        scores: list[Score] = []
        judge.score([completion()], QUESTIONS, scores.extend)
    assert [score.aligned for score in scores] == [85]
    heads = [request.split(b"\r\n\r\n")[0].decode() for request in server.requests]
    assert {head.split(" ")[1] for head in heads} == {path}
    deployed = "deployments" in path
    assert all((f"api-key: {KEY}" in head) == deployed for head in heads)
    assert all((f"Bearer {KEY}" in head) != deployed for head in heads)
    assert judge.card["host"].startswith(f"127.0.0.1:{server.port}/")


def test_two_deployments_of_one_host_are_two_judges() -> None:
    urls = [f"http://host/openai/deployments/{name}?api-version=2024-10-21" for name in ("a", "b")]
    judges = [OpenAIJudge("gpt-4o", KEY, url) for url in urls]
    assert judges[0].name != judges[1].name
    requests = [judge.requests(completion(), QUESTIONS["q"])[0].key for judge in judges]
    assert requests[0] != requests[1]


def test_threads_share_one_client_and_one_loop() -> None:
    from concurrent.futures import ThreadPoolExecutor

    server = Server()
    server.respond = lambda prompt, _: text_reply(prompt)
    try:
        api = BlockingApi(ChatApi("m", None, server.url))
        with ThreadPoolExecutor(8) as pool:
            bodies = [{**BODY, "messages": [{"role": "user", "content": str(i)}]} for i in range(40)]
            found = [json.loads(content)["choices"][0]["message"]["content"] for content in pool.map(api.ask, bodies)]
    finally:
        server.close()
    assert found == [str(i) for i in range(40)]
