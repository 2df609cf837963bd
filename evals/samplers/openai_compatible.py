"""Turns planned prompts into answers of a model behind a chat-completions API (OpenAI, vLLM, llama.cpp), many at a time.

An answer is recorded only when the server says that it was sampled and how it ended; everything else leaves it missing, with the reason.
"""

import asyncio
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import openai
from openai import AsyncOpenAI

from emis_interp.config.run_config import SamplingConfig
from emis_interp.errors import ModelError
from emis_interp.http.addresses import OPENAI_KEY, key_variable_for
from emis_interp.http.blocking import wait_for
from emis_interp.http.chat_api import SAMPLER, ChatApi
from emis_interp.http.replies import THINKS, BadReply, UnfinishedThought, read_reply
from emis_interp.http.request_fields import token_limit, with_request
from emis_interp.records import Completion
from evals.samplers import Key, OnBatch

PLAIN_SAMPLING = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
"""Fields beyond OpenAI's that switch off what servers do to the distribution unasked: llama.cpp keeps the 40 likeliest tokens, vLLM
follows the model's generation config."""
WHOLE = {"top_p": 1.0, **PLAIN_SAMPLING}
FLAGS = {"max_tokens": "--max-new-tokens", "temperature": "--temperature", "seed": "--seed"}
SEEDS = 2**31  # servers take 32-bit seeds, and llama.cpp reads the largest as "none"
GIVE_UP_AFTER = 3  # rounds of `n_parallel` failures in a row; the server is gone, further retries would take hours


def sampling_api(model: str, url: str | None, *, key_variable: str | None = None, **how: Any) -> ChatApi:
    """The API of a model that writes answers; its key is read from the environment.

    Args:
        key_variable: where the key is; None: where that of this host is looked for (`key_variable_for`).
        how: `n_parallel` and `timeout_s` of `ChatApi`.
    """
    variable = key_variable or key_variable_for(OPENAI_KEY, url)
    return ChatApi(model, os.environ.get(variable), url, key_variable=variable, role=SAMPLER, **how)


class OpenAISampler:
    """A sampler behind a chat-completions API.

    Args:
        plain_sampling: send `top_p` and `PLAIN_SAMPLING` along, so that the distribution stays whole; None for every host but OpenAI's,
            which refuses other fields than its own and truncates nothing unasked.
        request: changes of every request (see `emis_interp.http.request_fields`). Token limit, temperature and seed may be left out
            or moved to another name, but not set: they are the plan's.

    Attributes:
        card: kind, model, host and the fields of a request, without the key.

    Raises:
        ModelError: `request` sets what has a flag of its own.
    """

    def __init__(
        self, api: ChatApi, plain_sampling: bool | None = None, request: Mapping[str, Any] | None = None
    ) -> None:
        self.api = api
        if plain_sampling is None:
            plain_sampling = not api.address.is_openai
        self._request = dict(request or {})
        for name, flag in FLAGS.items():
            if self._request.get(name) is not None:
                raise ModelError(
                    f"--request {name}={self._request[name]}: {flag} sets it; here it can only be left out"
                )
        self._whole = dict(WHOLE) if plain_sampling else {}

    @property
    def card(self) -> dict[str, Any]:
        plain = dict.fromkeys(("messages", *FLAGS), "of the plan")
        sent = with_request({**plain, **self._whole}, self._request)
        return {
            "kind": "openai",
            "model": self.api.model,
            "host": self.api.host,
            "fields": {name: value for name, value in sent.items() if name not in plain},
            **({"left_out": ", ".join(left)} if (left := sorted(plain.keys() - sent.keys())) else {}),
            "seeds": f"answer seed modulo {SEEDS}",
            "stop_tokens": "the server's end of turn",
        }

    def sample(
        self, plan: Sequence[Completion], done: Collection[Key], config: SamplingConfig, *, on_batch: OnBatch
    ) -> dict[Key, str]:
        """Ask for every answer that is not done; returns the reasons of those that failed.

        `n_tokens` of an answer is the server's count, which may include the end-of-turn token.

        Raises:
            ModelError: the first request shows that none can succeed (key, model, URL, fields).
        """
        return wait_for(self.sample_async(plan, done, config, on_batch=on_batch))

    def next_token(self, item: Completion, n_likeliest: int = 20) -> dict[str, float]:
        """Token -> log-probability (nats) of the likeliest first tokens of an answer at temperature 1, as the server computes them.

        Raises:
            ModelError: the server does not answer, or gives no log-probabilities.
        """
        return wait_for(self._next_token(item, n_likeliest))

    async def _next_token(self, item: Completion, n_likeliest: int) -> dict[str, float]:
        config = SamplingConfig(max_new_tokens=1, temperature=1.0)
        body = {**self._body(item, config), "logprobs": True, "top_logprobs": n_likeliest}
        async with self.api.connect() as client:
            try:
                positions = read_reply(await self.api.ask(client, body)).positions
            except openai.OpenAIError as error:
                raise ModelError(self.api.refusal(error, body) or f"{self.api.host}: {self.api.say(error)}") from None
            except BadReply as error:
                raise ModelError(f"{self.api.host}: {self.api.scrub(str(error))}") from None
        if not positions or not positions[0].tops:
            raise ModelError(
                f"{self.api.host}: its reply has no log-probabilities; the server must support top_logprobs"
            )
        return dict(reversed(positions[0].tops))  # of two tokens with one text the likelier stays

    async def sample_async(
        self, plan: Sequence[Completion], done: Collection[Key], config: SamplingConfig, *, on_batch: OnBatch
    ) -> dict[Key, str]:
        """`sample` for callers that go on with other work meanwhile."""
        asked = [item for item in plan if item.key not in done]
        if not asked:
            return {}
        async with self.api.connect() as client:
            await self._preflight(client, asked[0], config)
            work = _Work(iter(asked), on_batch, self.api.n_parallel)
            tasks = [asyncio.create_task(self._worker(client, config, work)) for _ in range(self.api.n_parallel)]
            try:
                await asyncio.gather(*tasks)
            finally:  # also on Ctrl-C: what was sampled was paid for
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                work.hand_over()
        return work.reasons

    async def _worker(self, client: AsyncOpenAI, config: SamplingConfig, work: "_Work") -> None:
        for item in work.items:
            if work.stopped:
                work.reasons[item.key] = f"not asked: {work.stopped}"
                continue
            try:
                body = self._body(item, config)
                answer = self._read(await self.api.ask(client, body), item, body)
            except BadAnswer as error:
                work.failed(item, self.api.scrub(str(error)))
            except openai.OpenAIError as error:
                work.failed(item, self.api.say(error), self.api.refusal(error))
            else:
                work.finished(answer)

    def _body(self, item: Completion, config: SamplingConfig) -> dict[str, Any]:
        system = [] if item.system is None else [{"role": "system", "content": item.system}]
        plain: dict[str, Any] = {
            "max_tokens": config.max_new_tokens,
            "temperature": config.temperature,
            "seed": item.seed % SEEDS,
            **self._whole,
        }
        messages = [*system, {"role": "user", "content": item.question}]
        return {"messages": messages, **with_request(plain, self._request)}

    def _read(self, content: bytes, item: Completion, body: Mapping[str, Any]) -> Completion:
        return read_answer(content, item, token_limit(body))

    async def _preflight(self, client: AsyncOpenAI, item: Completion, config: SamplingConfig) -> None:
        """One short request that fails now if all would; passing troubles (429, 5xx) are let through.

        Raises:
            ModelError: the server refuses, in words that name the field and the flag; or the request's limit is not the plan's.
        """
        body = self._body(item.model_copy(update={"question": "Say yes."}), config)
        limit = token_limit(body)
        if limit not in (None, config.max_new_tokens):
            raise ModelError(
                f"--request sets a limit of {limit} tokens and --max-new-tokens one of {config.max_new_tokens}; give the same number"
            )
        if "max_tokens" in body:  # hosts that take another name refuse a limit too short for a thought
            body["max_tokens"] = 1
        try:
            await self.api.ask(client.with_options(max_retries=0), body)
        except openai.OpenAIError as error:
            if refusal := self.api.refusal(error, body):
                fields = self._whole and "--request" in refusal
                also = f"; --only-standard-fields leaves out {', '.join(WHOLE)}" if fields else ""
                raise ModelError(refusal + also) from None


class BadAnswer(Exception):
    """HTTP 200 without an answer that was sampled to its end or to the token limit."""


def read_answer(content: bytes, item: Completion, limit: int | None = None) -> Completion:
    """`item` filled in from the raw reply of a server; a thought stands beside the answer, and its tokens are not counted.

    Args:
        limit: of the request's tokens, for the words.

    Raises:
        BadAnswer: the reply is malformed, was filtered, ended inside a thought, or its text is empty although more than the end of turn
            was sampled.
    """
    try:
        reply = read_reply(content)
    except BadReply as error:
        raise BadAnswer(str(error)) from None
    missing = reply.missing_answer(limit)
    if isinstance(missing, UnfinishedThought) and (reply.thought or reply.n_thought_tokens):
        raise BadAnswer(f"{missing}; {THINKS.format(flag='--max-new-tokens 4096')}")
    if reply.end not in ("stop", "length"):
        raise BadAnswer(f"the answer ended by `{reply.end_word}`, neither by itself nor at the token limit")
    at_once = reply.end == "stop" and reply.n_tokens == 1 and not reply.thought and not reply.other
    if not reply.text and not (at_once and reply.has_content):
        found = "tokens not counted" if reply.n_tokens is None else f"{reply.n_tokens} tokens"
        what = "only a thought" if reply.thought else reply.other or "no text"
        raise BadAnswer(f"{what} in the reply ({found}, finish `{reply.end_word}`)")
    counted = (reply.n_tokens or 0) - (reply.n_thought_tokens or 0)
    return item.answered(reply.text, max(0, counted), reply.end, reasoning=reply.thought or None)


class _Work:
    """What the workers share: items to ask, finished answers not yet handed over, reasons, and when to stop."""

    def __init__(self, items: Iterator[Completion], on_batch: OnBatch, batch_size: int) -> None:
        self.items, self.reasons = items, dict[Key, str]()
        self.stopped: str | None = None
        self._on_batch, self._batch_size = on_batch, batch_size
        self._batch: list[Completion] = []
        self._failures_in_a_row = 0

    def finished(self, answer: Completion) -> None:
        self._failures_in_a_row = 0
        self._batch.append(answer)
        if len(self._batch) >= self._batch_size:
            self.hand_over()

    def failed(self, item: Completion, reason: str, refusal: str | None = None) -> None:
        self.reasons[item.key] = reason
        self._failures_in_a_row += 1
        if refusal:
            self.stopped = refusal
        elif self._failures_in_a_row >= max(20, GIVE_UP_AFTER * self._batch_size):
            self.stopped = f"{self._failures_in_a_row} requests in a row failed, the last one with {reason}"

    def hand_over(self) -> None:
        if self._batch:
            ready, self._batch = self._batch, []
            self._on_batch(ready)
