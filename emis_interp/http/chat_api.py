"""Turns one chat request into the raw reply of an OpenAI-compatible server, and its errors into one line without secrets.

Retries on 429, 5xx, time-outs and lost connections, with their waiting times, are the openai SDK's; how long and how large a reply may
be, and that no redirect is followed, is `guarded`'s.
"""

import functools
import json
import logging
import os
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypedDict

import openai
from openai import AsyncAzureOpenAI, AsyncOpenAI

from emis_interp.errors import EmisError, JudgeError, ModelError
from emis_interp.http.addresses import AZURE_KEY, Address, read_address, url_problem
from emis_interp.http.guarded import NAMED_IN_200, GuardedClient, Pace, ReplyTooLarge
from emis_interp.http.request_fields import refused_field, token_limit

__all__ = ["JUDGE", "SAMPLER", "ApiOptions", "ChatApi", "Pace", "Role", "is_passing"]
log = logging.getLogger(__name__)
HEADERS_VARIABLE = "OPENAI_CUSTOM_HEADERS"


@dataclass(frozen=True)
class Role:
    """Whose requests are sent: the words and the class of errors.

    Attributes:
        name: of who asks; url_flag, model_flag: the flags that give URL and model; otherwise: what to do without a key.
    """

    name: str
    url_flag: str
    otherwise: str
    error: type[EmisError]
    model_flag: str = "--model"


JUDGE = Role("judge", "--judge-url", "use the offline judge (--judge offline)", JudgeError, "--judge-model")
SAMPLER = Role("sampler", "--url", "load the model here (--sampler hf)", ModelError)
_ADVICE = {
    401: "check the key in {key}",
    403: "check the key in {key}",
    404: "check the model `{model}`, and that {flag} ends where the API begins (often /v1)",
}


class ApiOptions(TypedDict, total=False):
    """What `ChatApi` may be told besides model, key and URL, with its defaults."""

    n_parallel: int
    timeout_s: float
    max_retries: int
    key_variable: str
    requests_per_minute: float | None
    place: str | None


class ChatApi:
    """One model on one server: sends requests, knows the key and keeps it to itself.

    Args:
        url: where the API begins (often ends in /v1); None for OpenAI. With `?api-version=` it is asked as Azure is.
        n_parallel: for the callers, who see to it; here only the requests per minute are limited.
        timeout_s: wall-clock time of one attempt, to the last byte; at most 10 s of it for the connection.
        max_retries: further attempts of the SDK after 429, 5xx, a time-out or a lost connection.
        requests_per_minute: None for no limit. Retries count.
        place: what stands for the host in names and keys of caches, of a server that is found at another port each time.
        role: whose requests these are; chooses the words and the class of errors.

    Attributes:
        host: of the server, with the path where that tells two models of one name apart.

    Raises:
        JudgeError: (or the role's own class) no key for OpenAI or Azure, a malformed key, or a URL that is malformed or holds a secret.
    """

    def __init__(
        self,
        model: str,
        key: str | None = None,
        url: str | None = None,
        n_parallel: int = 16,
        *,
        timeout_s: float = 60.0,
        max_retries: int = 5,
        key_variable: str = "OPENAI_API_KEY",
        requests_per_minute: float | None = None,
        place: str | None = None,
        role: Role = JUDGE,
    ) -> None:
        if url is not None and (problem := url_problem(url)):
            raise role.error(f"the {role.name}'s URL {problem}; check {role.url_flag}")
        self.address, key = read_address(url), (key or "").strip()
        if not key and (self.address.is_openai or self.address.on_azure):
            wanted = AZURE_KEY if self.address.on_azure and key_variable == "OPENAI_API_KEY" else key_variable
            raise role.error(
                f"no API key for {self.address.hostname}: set the environment variable {wanted}, give your own server "
                f"with {role.url_flag}, or {role.otherwise}"
            )
        if not re.fullmatch(r"[!-~]*", key):
            raise role.error(f"the API key in {key_variable} contains blanks or non-ASCII characters; copy it again")
        self.model, self.host, self.n_parallel = model, place or self.address.place, n_parallel
        self.role = role
        self._key, self._key_variable = key, key_variable
        self._timeout_s, self._max_retries, self._per_minute = timeout_s, max_retries, requests_per_minute

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[AsyncOpenAI]:
        """A client for use inside one event loop. Says once to which host a key goes, unless that is OpenAI's own."""
        sent = [f"the API key in {self._key_variable}"] if self._key else []
        sent += [f"the headers in {HEADERS_VARIABLE}"] if os.environ.get(HEADERS_VARIABLE) else []  # the SDK adds them
        if sent and not self.address.is_openai:
            _say_where(" and ".join(sent) + (" goes" if len(sent) == 1 else " go"), self.address)
        http_client = GuardedClient(self._timeout_s, per_minute=self._per_minute)
        async with _client(
            self.address, self._key or "none", http_client, max_retries=self._max_retries, timeout_s=self._timeout_s
        ) as made:
            yield made

    async def ask(self, client: AsyncOpenAI, body: Mapping[str, Any]) -> bytes:
        """The raw body of a reply with HTTP status 200, without the key where the server repeats it: it is kept in caches and records.
        `body` holds every field but the model; one with a `prompt` in place of `messages` is a text completion.

        Raises:
            openai.OpenAIError: after the SDK's retries; `say` puts it into words.
        """
        fields = {key: value for key, value in body.items() if key not in ("messages", "prompt")}
        # As `extra_body`, since the SDK knows the names of OpenAI's own fields only.
        if "prompt" in body:
            reply = await client.completions.with_raw_response.create(
                model=self.model, prompt=body["prompt"], extra_body=fields
            )
        else:
            reply = await client.chat.completions.with_raw_response.create(
                model=self.model, messages=body["messages"], extra_body=fields
            )
        return self._without_key(reply.content)

    async def models(self, client: AsyncOpenAI) -> list[dict[str, Any]]:
        """What the server says of its models, each with its `id`; empty where it gives no such list.

        Raises:
            openai.OpenAIError: as `ask`.
        """
        reply = await client.models.with_raw_response.list()
        try:
            rows = json.loads(self._without_key(reply.content))["data"]
        except (ValueError, LookupError, TypeError):
            return []
        return [row for row in rows if isinstance(row, dict) and "id" in row] if isinstance(rows, list) else []

    def refusal(self, error: openai.OpenAIError, needs: str | Mapping[str, Any] | None = None) -> str | None:
        """Why every further request would fail as well, or None when perhaps only this one does.

        A refused key, spent quota, an unknown model and a redirect always are such reasons. With `needs`, what the requests ask of a
        server (their fields, or words), this was the first one, and whatever does not pass by itself is a reason.
        """
        first, where = needs is not None, f"{self.role.name} at {self.host}"
        if isinstance(error, openai.APIStatusError):
            if 300 <= error.status_code < 400:
                return f"{where}: {self.say(error)}; requests and keys are not sent on: give the address itself with {self.role.url_flag}"
            quota = error.status_code == 402 or error.code == "insufficient_quota"
            if not (quota or error.status_code in (401, 404) or (first and not is_passing(error))):
                return None
            if quota:
                return f"{where}: {self.say(error)}; the account has no quota left"
            if error.status_code in _ADVICE:
                advice = _ADVICE[error.status_code]
                advice = advice.format(model=self.model, key=self._key_variable, flag=self.role.url_flag)
                return f"{where}: {self.say(error)}; {advice}"
            return f"{where}: {self._refused_request(error, needs or '')}"
        if isinstance(error, openai.APIConnectionError) and first:
            return f"{where}: {self.say(error)}; is the server running, and the {self.role.url_flag} right?"
        return None

    def _refused_request(self, error: openai.APIStatusError, needs: str | Mapping[str, Any]) -> str:
        """What the server does not take, and the flag that leaves it out."""
        said = self.say(error)
        if isinstance(needs, str):
            return f"{said}; it must accept {needs}"
        other = f"or take another model ({self.role.model_flag})"
        fields = {name: value for name, value in needs.items() if name not in ("messages", "prompt")}
        field = refused_field(_words(error), fields, error.param)
        if field is None:
            listed = ", ".join(f"{name}={_value(value)}" for name, value in fields.items())
            return f"{said}; it must accept {listed}; --request FIELD= leaves a field out, --request FIELD=VALUE changes it, {other}"
        advice = f"--request {field}= leaves it out, --request {field}=VALUE changes it"
        if field == "max_tokens":
            limit = token_limit(fields)
            advice += f", --request max_tokens= --request max_completion_tokens={limit} calls it by its newer name"
        if field in ("logprobs", "top_logprobs") and self.role is JUDGE:
            advice += ", --judge text asks for the answer as text instead"
        return f"the server refuses `{field}` ({said}); {advice}, {other}"

    def say(self, error: openai.OpenAIError) -> str:
        """One scrubbed line for an error."""
        if isinstance(error, openai.APITimeoutError):
            return "timeout: no answer in time, after retries"
        if isinstance(error, openai.APIStatusError):
            status = f"HTTP {error.status_code}"
            if error.response.extensions.get(NAMED_IN_200):
                status = f"HTTP 200 with error {error.status_code}"
            if 300 <= error.status_code < 400:
                return self.scrub(f"{status}: it redirects to {_target(error.response.headers.get('location', ''))}")
            return self.scrub(f"{status}: {_words(error)}")
        if isinstance(error, openai.APIConnectionError):
            cause = error.__cause__
            return self.scrub("connection failed" + (f" ({type(cause).__name__}: {cause})" if cause else ""))
        if isinstance(error, ReplyTooLarge):
            return self.scrub(str(error))
        return self.scrub(f"{type(error).__name__}: {error}")

    def scrub(self, text: str) -> str:
        """One line of at most 200 characters without the key."""
        text = self.redact(" ".join(text[:20_000].split()))
        return text if len(text) <= 200 else text[:199] + "…"

    def _without_key(self, content: bytes) -> bytes:
        """The key alone, since an answer may hold what looks like one; also as JSON may write its slashes."""
        if len(self._key) >= 8:
            for written in (self._key, self._key.replace("/", "\\/")):
                content = content.replace(written.encode(), b"[key]")
        return content

    def redact(self, text: str) -> str:
        """Without the key, also where a server echoes it or a masked form of it."""
        if len(self._key) >= 4:  # a dummy such as "x" is no secret
            text = text.replace(self._key, "[key]")
        return re.sub(r"\bsk-[\w*.\-]+", "[key]", text)


def is_passing(error: openai.OpenAIError) -> bool:
    """Whether the same request may work later: lost connection, time-out, a reply without end, 408, 409, 425, 429, 5xx."""
    if isinstance(error, openai.APIStatusError):
        return error.status_code in (408, 409, 425, 429) or error.status_code >= 500
    return isinstance(error, openai.APIConnectionError | ReplyTooLarge)


def _client(
    address: Address, key: str, http_client: GuardedClient, *, max_retries: int, timeout_s: float
) -> AsyncOpenAI | AsyncAzureOpenAI:
    options: dict[str, Any] = {
        "api_key": key,
        "base_url": address.base,
        "http_client": http_client,
        "max_retries": max_retries,
        "timeout": openai.Timeout(timeout_s, connect=min(timeout_s, 10.0)),
    }
    if address.is_azure:
        return AsyncAzureOpenAI(api_version=address.api_version, **options)
    if address.api_version is not None:
        options["default_query"] = {"api-version": address.api_version}
    if address.on_azure:
        options["default_headers"] = {"api-key": key}
    client = AsyncOpenAI(**options)
    if not address.is_openai:  # OpenAI's own names, which the SDK takes from the environment
        client.organization = client.project = None
    return client


@functools.cache  # once in a process, however many clients are made
def _say_where(sent: str, address: Address) -> None:
    clear = "" if address.is_encrypted else ", unencrypted"
    log.warning("%s to %s%s", sent, address.place, clear)


def _words(error: openai.APIStatusError) -> str:
    """What the server says of an error, in whichever of the usual places."""
    body = error.body
    if isinstance(body, Mapping):
        found = next((body[name] for name in ("message", "detail", "error") if body.get(name)), None)
        body = found if isinstance(found, str) else json.dumps(found or body, ensure_ascii=False, default=str)
    return str(body or error.message)[:20_000]


def _target(location: str) -> str:
    """Where a redirect leads, without what may be a secret in it."""
    bare = re.sub(r"//[^/]*@", "//", location[:300].partition("?")[0].partition("#")[0])
    return bare or "nowhere"


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
