"""Turns the SDK's HTTP client into one that ends: a wall-clock limit and a size for every reply, and no redirect is followed.

The SDK's own time limits are for single reads, which a server that sends a byte per second never exceeds.
"""

import asyncio
import json
from typing import Any

import httpx2
import openai
from openai import DefaultAsyncHttpxClient

MAX_REPLY_BYTES = 64 << 20
"""Log-probabilities of 32,000 tokens with 20 alternatives each are about as much."""
NAMED_IN_200 = "emis_error_in_200"
_ENCODINGS = ("", "identity", "gzip", "deflate")
_STATUS_OF = {
    "invalid_request_error": 400,
    "context_length_exceeded": 400,
    "content_filter": 400,
    "authentication_error": 401,
    "insufficient_quota": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "model_not_found": 404,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
}


class ReplyTooLarge(openai.OpenAIError):
    """A reply larger than any chat completion, or in an encoding that was not asked for; it is not read."""


class Pace:
    """A token bucket, empty at first, that holds one second's worth of requests, at least one."""

    def __init__(self, per_minute: float) -> None:
        self._interval_s = 60.0 / per_minute
        self._slack_s = max(1.0, self._interval_s) - self._interval_s
        self._next: float | None = None

    async def take(self) -> None:
        """Wait for the next token; those who wait are served in order."""
        now = asyncio.get_running_loop().time()
        due = now if self._next is None else max(self._next, now - self._slack_s)
        self._next = due + self._interval_s
        if due > now:
            await asyncio.sleep(due - now)


class GuardedClient(DefaultAsyncHttpxClient):
    """The client that the SDK is given.

    Args:
        deadline_s: seconds of wall-clock time for one attempt, from the connection to the last byte.
        max_bytes: of a reply, decoded.
        per_minute: requests, repetitions included; None for no limit. Waiting for a turn is not in the deadline.

    Raises:
        httpx2.ReadTimeout: from `send`, when the deadline has passed; the SDK repeats it like any other time-out.
        ReplyTooLarge: from `send`; the SDK hands it on.
    """

    def __init__(self, deadline_s: float, max_bytes: int = MAX_REPLY_BYTES, per_minute: float | None = None) -> None:
        limits = httpx2.Timeout(deadline_s, connect=min(deadline_s, 10.0))
        # Other encodings expand a few bytes without bound before a single piece of them can be counted.
        headers = {"Accept-Encoding": "gzip, deflate"}
        super().__init__(timeout=limits, follow_redirects=False, headers=headers)
        self._deadline_s, self._max_bytes = deadline_s, max_bytes
        self._pace = None if per_minute is None else Pace(per_minute)

    async def send(self, request: httpx2.Request, *, stream: bool = False, **options: Any) -> httpx2.Response:
        """The whole reply; with `stream` only its head, as the SDK's streaming calls want it."""
        options["follow_redirects"] = False
        if self._pace is not None:
            await self._pace.take()
        try:
            async with asyncio.timeout(self._deadline_s):
                response = await super().send(request, stream=True, **options)
                return response if stream else await self._read(response)
        except TimeoutError:
            raise httpx2.ReadTimeout(f"no whole reply within {self._deadline_s:g} s", request=request) from None

    async def _read(self, response: httpx2.Response) -> httpx2.Response:
        try:
            declared = response.headers.get("content-length", "")
            encoding = response.headers.get("content-encoding", "").strip().lower()
            if encoding not in _ENCODINGS:
                raise ReplyTooLarge(f"reply encoded as {encoding[:20]}, which was not asked for; it is not read")
            if declared.isascii() and declared.isdecimal() and len(declared) < 20 and int(declared) > self._max_bytes:
                raise ReplyTooLarge(f"reply of {int(declared):,} bytes, at most {self._max_bytes:,} are read")
            content = bytearray()
            async for piece in response.aiter_bytes():
                content += piece
                if len(content) > self._max_bytes:
                    raise ReplyTooLarge(f"reply of more than {self._max_bytes:,} bytes, no more are read")
        finally:
            await response.aclose()
        named = error_status(bytes(content)) if _is_chat_reply(response) else None
        kept = ("content-encoding", "content-length", "transfer-encoding")
        return httpx2.Response(
            named or response.status_code,
            headers=[(name, value) for name, value in response.headers.multi_items() if name.lower() not in kept],
            content=bytes(content),
            request=response.request,
            extensions={NAMED_IN_200: True} if named else {},
        )


def error_status(content: bytes) -> int | None:
    """The status that an error names which a gateway sends with status 200, or None for a reply that is none.

    An error is a field `error`, or a whole object that calls itself one (vLLM, FastChat). One that names no status counts as the gateway's
    own, 502.
    """
    if b'"error"' not in content:
        return None
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(body, dict) or body.get("choices"):
        return None
    error = body if body.get("object") == "error" else body.get("error")
    if not error:
        return None
    for code in (error.get(name) for name in ("code", "status", "type")) if isinstance(error, dict) else ():
        number = int(code) if isinstance(code, str) and code.isascii() and code.isdecimal() and len(code) == 3 else code
        if isinstance(number, int) and not isinstance(number, bool) and 400 <= number < 600:
            return number
        if isinstance(code, str) and code in _STATUS_OF:
            return _STATUS_OF[code]
    return 502


def _is_chat_reply(response: httpx2.Response) -> bool:
    return response.status_code == 200 and response.request.url.path.endswith("/chat/completions")
