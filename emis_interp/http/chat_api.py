"""Turns one chat request into the raw reply of an OpenAI-compatible server, and its errors into one line without secrets.

Retries on 429, 5xx, time-outs and lost connections, with their waiting times, are the openai SDK's.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

import openai
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from emis_interp.errors import EmisError, JudgeError, ModelError

_OPENAI_URL = "https://api.openai.com/v1"


@dataclass(frozen=True)
class Role:
    """Whose requests are sent: the words and the class of errors.

    Attributes:
        name: of who asks; url_flag: the flag that gives the URL; otherwise: what to do without a key.
    """

    name: str
    url_flag: str
    otherwise: str
    error: type[EmisError]


JUDGE = Role("judge", "--judge-url", "use the offline judge (--judge offline)", JudgeError)
SAMPLER = Role("sampler", "--url", "load the model here (--sampler hf)", ModelError)
_ADVICE = {
    401: "check the key in {key}",
    403: "check the key in {key}",
    404: "check the model `{model}`, and that {flag} ends where the API begins (often /v1)",
}


class ChatApi:
    """One model on one server: sends requests, knows the key and keeps it to itself.

    Args:
        url: where the API begins (often ends in /v1); None for OpenAI.
        n_parallel: for the callers, who see to it; here only the requests per minute are limited.
        timeout_s: for one attempt; at most 10 s of it for the connection.
        max_retries: further attempts of the SDK after 429, 5xx, a time-out or a lost connection.
        requests_per_minute: None for no limit. Retries count.
        role: whose requests these are; chooses the words and the class of errors.

    Raises:
        JudgeError: no key for OpenAI, a malformed key, or a malformed URL.
    """

    def __init__(
        self,
        model: str,
        key: str | None = None,
        url: str | None = None,
        n_parallel: int = 16,
        timeout_s: float = 60.0,
        max_retries: int = 5,
        key_variable: str = "OPENAI_API_KEY",
        requests_per_minute: float | None = None,
        role: Role = JUDGE,
    ) -> None:
        parts, key = _split_url(url or _OPENAI_URL, role), (key or "").strip()
        if not key and parts.hostname == urlsplit(_OPENAI_URL).hostname:
            raise role.error(
                f"no API key for {parts.hostname}: set the environment variable {key_variable}, give your own server "
                f"with {role.url_flag}, or {role.otherwise}"
            )
        if not re.fullmatch(r"[!-~]*", key):
            raise role.error(f"the API key in {key_variable} contains blanks or non-ASCII characters; copy it again")
        self.model, self.host, self.n_parallel = model, parts.netloc, n_parallel
        self.role = role
        self._key, self._key_variable, self._per_minute = key, key_variable, requests_per_minute
        self._client_options: dict[str, Any] = {
            "api_key": key or "none",
            "base_url": url or _OPENAI_URL,
            "timeout": openai.Timeout(timeout_s, connect=min(timeout_s, 10.0)),
            "max_retries": max_retries,
        }

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[AsyncOpenAI]:
        """A client for use inside one event loop."""
        options = dict(self._client_options)
        if self._per_minute is not None:
            pace = Pace(self._per_minute)

            async def wait(_: object) -> None:  # inside the SDK's attempts, so that retries are paced too
                await pace.take()

            options["http_client"] = DefaultAsyncHttpxClient(event_hooks={"request": [wait]})
        async with AsyncOpenAI(**options) as client:
            yield client

    async def ask(self, client: AsyncOpenAI, body: Mapping[str, Any]) -> bytes:
        """The raw body of a reply with HTTP status 200. `body` holds everything but the model.

        Raises:
            openai.OpenAIError: after the SDK's retries; `say` puts it into words.
        """
        reply = await client.chat.completions.with_raw_response.create(model=self.model, **body)
        return reply.content

    def refusal(self, error: openai.OpenAIError, needs: str | None = None) -> str | None:
        """Why every further request would fail as well, or None when perhaps only this one does.

        A refused key, spent quota and an unknown model always are such reasons. With `needs`, what the requests ask of a server, this was
        the first one, and whatever does not pass by itself is a reason.
        """
        first = needs is not None
        if isinstance(error, openai.APIStatusError):
            quota = error.status_code == 402 or error.code == "insufficient_quota"
            if not (quota or error.status_code in (401, 404) or (first and not is_passing(error))):
                return None
            advice = (
                "the account has no quota left" if quota else _ADVICE.get(error.status_code, f"it must accept {needs}")
            )
            advice = advice.format(model=self.model, key=self._key_variable, flag=self.role.url_flag)
            return f"{self.role.name} at {self.host}: {self.say(error)}; {advice}"
        if isinstance(error, openai.APIConnectionError) and first:
            where = f"{self.role.name} at {self.host}"
            return f"{where}: {self.say(error)}; is the server running, and the {self.role.url_flag} right?"
        return None

    def say(self, error: openai.OpenAIError) -> str:
        """One scrubbed line for an error."""
        if isinstance(error, openai.APITimeoutError):
            return "timeout: no answer in time, after retries"
        if isinstance(error, openai.APIStatusError):
            detail = error.body.get("message") if isinstance(error.body, dict) else error.body
            return self.scrub(f"HTTP {error.status_code}: {detail or error.message}")
        if isinstance(error, openai.APIConnectionError):
            cause = error.__cause__
            return self.scrub("connection failed" + (f" ({type(cause).__name__}: {cause})" if cause else ""))
        return self.scrub(f"{type(error).__name__}: {error}")

    def scrub(self, text: str) -> str:
        """One line of at most 200 characters without the key."""
        text = self.redact(" ".join(text.split()))
        return text if len(text) <= 200 else text[:199] + "…"

    def redact(self, text: str) -> str:
        """Without the key, also where a server echoes it or a masked form of it."""
        if len(self._key) >= 4:  # a dummy such as "x" is no secret
            text = text.replace(self._key, "[key]")
        return re.sub(r"\bsk-[\w*.\-]+", "[key]", text)


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


def is_passing(error: openai.OpenAIError) -> bool:
    """Whether the same request may work later: lost connection, time-out, 408, 409, 429, 5xx."""
    if isinstance(error, openai.APIStatusError):
        return error.status_code in (408, 409, 429) or error.status_code >= 500
    return isinstance(error, openai.APIConnectionError)


def _split_url(url: str, role: Role) -> SplitResult:
    try:
        parts = urlsplit(url)
        if "@" in parts.netloc or parts.query:  # the HTTP library logs whole URLs
            raise role.error(
                f"{role.url_flag} must not contain a password or a query; a key belongs in the environment"
            )
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:  # .port raises when not a number
            return parts
    except ValueError:
        pass
    raise role.error(f"the {role.name}'s URL must look like http://localhost:8000/v1; check {role.url_flag}")
