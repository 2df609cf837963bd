"""Turns an OpenAI-compatible server, or a local chat model, into the `Ask` function of `labels`."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Unpack

from emis_interp.http.blocking import wait_for
from emis_interp.http.chat_api import ApiOptions, ChatApi
from emis_interp.http.costs import Meter, Usage, count_tokens
from emis_interp.http.replies import BadReply, read_reply
from emis_interp.http.request_fields import token_limit, with_request
from emis_interp.models.chat import encode_chats
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.likelihood import mean_logprobs
from evals.judges.cache import request_key
from evals.judges.logprobs import parse_reply
from evals.judges.methods import Evidence, Failure, Outcome, Request
from evals.judges.requests import Asking
from evals.suites.labels import Ask

N_TOP = 20


def openai_ask(
    model: str,
    key: str | None = None,
    url: str | None = None,
    *,
    log_probabilities: bool = True,
    max_tokens: int = 8,
    request: Mapping[str, Any] | None = None,
    **options: Unpack[ApiOptions],
) -> Ask:
    """Ask a server for its first token with log-probabilities, or, where it returns none, for a short text.

    Rate limits, server errors and timeouts are tried again with the SDK's own back-off; what then still fails leaves that one answer
    unlabelled, with a reason that the next run takes up again.

    Args:
        log_probabilities: False for servers without `top_logprobs`: the reply's text (up to `max_tokens`) gets the probability 1.
        request: changes of every request (see `emis_interp.http.request_fields`).

    Raises:
        JudgeError: no key for OpenAI, a malformed key or URL; from the returned function, when the server refuses what would be refused
            for every answer, or failed many times in a row.
    """
    api = ChatApi(model, key, url, **options)
    wanted: dict[str, Any] = {"max_tokens": max_tokens, "temperature": 0}
    if log_probabilities:
        wanted = {"max_tokens": 1, "temperature": 0, "logprobs": True, "top_logprobs": N_TOP}
    fields = with_request(wanted, request or {})
    limit, proven = token_limit(fields), False

    def parse(content: bytes) -> Evidence:
        if log_probabilities:
            return parse_reply(content, limit)
        reply = read_reply(content)
        if (missing := reply.missing_answer(limit)) is not None:
            raise missing
        return {reply.text: 1.0}

    def request_of(prompt: str) -> Request:
        body = {"messages": [{"role": "user", "content": prompt}], **fields}
        key = request_key("judgement", model, api.host, request=body, version="labels-1")
        return Request("", key, body, Usage(1, count_tokens(prompt), limit or 0))

    async def ask_all(prompts: Sequence[str], on_reply: Callable[[int, Outcome], None]) -> None:
        nonlocal proven

        def hand_over(batch: list[tuple[int, Outcome]]) -> None:
            for number, outcome in batch:
                on_reply(number, outcome)

        asking = Asking(
            api,
            range(len(prompts)),
            requests=lambda number: [request_of(prompts[number])],
            parse=parse,
            finish=lambda number, asked: (number, asked[0][1]),
            on_batch=hand_over,
            name=model,
            meter=Meter(),
            proven=proven,
        )
        async with api.connect() as client:
            try:
                await asking.run(client)
            finally:
                proven = asking.proven

    def ask(prompts: Sequence[str], on_reply: Callable[[int, Outcome], None]) -> None:
        if prompts:
            wait_for(ask_all(prompts, on_reply))

    return ask


def local_ask(chat_model: ChatModel, labels: Sequence[str], max_batch_tokens: int = 4096) -> Ask:
    """Ask a local chat model: the exact probability that its answer begins with each label, however many tokens a label has."""

    def ask(prompt: str) -> Evidence:
        chats = encode_chats(chat_model.tokenizer, [(prompt, label) for label in labels])
        means = mean_logprobs(chat_model, chats, max_batch_tokens)
        lengths = [chat.n_response for chat in chats]
        return {
            label: math.exp(mean * length) for label, mean, length in zip(labels, means.tolist(), lengths, strict=True)
        }

    return one_by_one(ask)


def one_by_one(ask: Callable[[str], Evidence]) -> Ask:
    """Asks one prompt after the other; a BadReply of `ask` leaves that one without an answer."""

    def ask_all(prompts: Sequence[str], on_reply: Callable[[int, Outcome], None]) -> None:
        for number, prompt in enumerate(prompts):
            try:
                outcome: Outcome = ask(prompt)
            except BadReply as error:
                outcome = Failure(str(error), error.passing)
            on_reply(number, outcome)

    return ask_all
