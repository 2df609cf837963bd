"""Turns planned prompts into answers of a model behind a chat-completions API (OpenAI, vLLM, llama.cpp), many at a time.

An answer is recorded only when the server says that it was sampled and how it ended; everything else leaves it missing, with the reason.
"""

import asyncio
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import openai
from openai import AsyncOpenAI
from pydantic import BaseModel, ValidationError

from emis_interp.config import SamplingConfig
from emis_interp.errors import ModelError
from emis_interp.http.chat_api import ChatApi
from emis_interp.records import Completion
from evals.samplers import Key, OnBatch

PLAIN_SAMPLING = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
"""Fields beyond OpenAI's that switch off what servers do to the distribution unasked: llama.cpp keeps the 40 likeliest tokens, vLLM
follows the model's generation config."""
OPENAI_HOST = "api.openai.com"
SEEDS = 2**31  # servers take 32-bit seeds, and llama.cpp reads the largest as "none"
GIVE_UP_AFTER = 3  # rounds of `n_parallel` failures in a row; the server is gone, further retries would take hours


class OpenAISampler:
    """A sampler behind a chat-completions API.

    Args:
        plain_sampling: send `PLAIN_SAMPLING` along; None for every host but OpenAI's, which refuses other fields than its own and
            does not truncate the distribution.

    Attributes:
        card: kind, model, host and the fields of a request, without the key.
    """

    def __init__(self, api: ChatApi, plain_sampling: bool | None = None) -> None:
        self.api = api
        if plain_sampling is None:
            plain_sampling = api.host != OPENAI_HOST
        self._fields: dict[str, Any] = {"top_p": 1.0}
        self._extra = dict(PLAIN_SAMPLING) if plain_sampling else {}

    @property
    def card(self) -> dict[str, Any]:
        return {
            "kind": "openai",
            "model": self.api.model,
            "host": self.api.host,
            "fields": {**self._fields, **self._extra},
            "seeds": f"answer seed modulo {SEEDS}",
            "stop_tokens": "the server's end of turn",
        }

    def sample(
        self, plan: Sequence[Completion], done: Collection[Key], config: SamplingConfig, on_batch: OnBatch
    ) -> dict[Key, str]:
        """Ask for every answer that is not done; returns the reasons of those that failed.

        `n_tokens` of an answer is the server's count, which may include the end-of-turn token.

        Raises:
            ModelError: the first request shows that none can succeed (key, model, URL, fields).
        """
        return asyncio.run(self.sample_async(plan, done, config, on_batch))

    async def sample_async(
        self, plan: Sequence[Completion], done: Collection[Key], config: SamplingConfig, on_batch: OnBatch
    ) -> dict[Key, str]:
        """`sample` for callers that already run an event loop (a notebook)."""
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
                answer = read_answer(await self.api.ask(client, self._body(item, config)), item)
            except BadAnswer as error:
                work.failed(item, self.api.scrub(str(error)))
            except openai.OpenAIError as error:
                work.failed(item, self.api.say(error), self.api.refusal(error))
            else:
                work.finished(answer)

    def _body(self, item: Completion, config: SamplingConfig) -> dict[str, Any]:
        system = [] if item.system is None else [{"role": "system", "content": item.system}]
        body: dict[str, Any] = {
            "messages": [*system, {"role": "user", "content": item.question}],
            "max_tokens": config.max_new_tokens,
            "temperature": config.temperature,
            "seed": item.seed % SEEDS,
            **self._fields,
        }
        return body | ({"extra_body": self._extra} if self._extra else {})

    async def _preflight(self, client: AsyncOpenAI, item: Completion, config: SamplingConfig) -> None:
        """One short request that fails now if all would; passing troubles (429, 5xx) are let through."""
        harmless = item.model_copy(update={"question": "Say yes."})
        body = self._body(harmless, config) | {"max_tokens": 1}
        needs = "max_tokens, temperature, top_p and seed" + (
            f", and {', '.join(self._extra)} (leave these out with --only-standard-fields)" if self._extra else ""
        )
        try:
            await self.api.ask(client.with_options(max_retries=0), body)
        except openai.OpenAIError as error:
            if refusal := self.api.refusal(error, needs):
                raise ModelError(refusal) from None


class BadAnswer(Exception):
    """HTTP 200 without an answer that was sampled to its end or to the token limit."""


def read_answer(content: bytes, item: Completion) -> Completion:
    """`item` filled in from the raw reply of a server.

    Raises:
        BadAnswer: the reply is malformed, was filtered, or its text is empty although more than the end of turn was sampled.
    """
    try:
        reply = _Reply.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadAnswer(f"malformed reply ({f'{where}: ' if where else ''}{first['msg']})") from None
    if not reply.choices:
        raise BadAnswer("the reply holds no choice")
    choice, n_tokens = reply.choices[0], reply.usage.completion_tokens
    if choice.finish_reason not in ("stop", "length"):
        raise BadAnswer(f"the answer ended by `{choice.finish_reason}`, neither by itself nor at the token limit")
    text = choice.message.content
    if text is None or (not text and not (choice.finish_reason == "stop" and n_tokens == 1)):
        raise BadAnswer(f"no text in the reply ({n_tokens} tokens, finish `{choice.finish_reason}`)")
    return item.model_copy(update={"answer": text, "n_tokens": n_tokens, "finish": choice.finish_reason})


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


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None


class _Usage(BaseModel):
    completion_tokens: int


class _Reply(BaseModel):
    choices: list[_Choice]
    usage: _Usage
