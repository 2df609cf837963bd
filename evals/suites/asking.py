"""Turns an OpenAI-compatible server, or a local chat model, into the `Ask` function of `labels`."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import openai

from emis_interp.errors import JudgeError
from emis_interp.http.blocking import BlockingApi
from emis_interp.http.chat_api import ChatApi, is_passing
from emis_interp.http.replies import BadReply, read_reply
from emis_interp.http.request_fields import token_limit, with_request
from emis_interp.models.chat import encode_chats
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.likelihood import mean_logprobs
from evals.judges.logprobs import parse_reply
from evals.suites.labels import Ask

N_TOP = 20


def openai_ask(
    model: str,
    key: str | None = None,
    url: str | None = None,
    *,
    timeout_s: float = 60.0,
    max_retries: int = 5,
    log_probabilities: bool = True,
    max_tokens: int = 8,
    key_variable: str = "OPENAI_API_KEY",
    request: Mapping[str, Any] | None = None,
) -> Ask:
    """Ask a server for its first token with log-probabilities, or, where it returns none, for a short text.

    Rate limits, server errors and timeouts are tried again with the SDK's own back-off; what then still fails leaves that one answer
    unlabelled, with a reason that the next run takes up again.

    Args:
        log_probabilities: False for servers without `top_logprobs`: the reply's text (up to `max_tokens`) gets the probability 1.
        request: changes of every request (see `emis_interp.http.request_fields`).

    Raises:
        JudgeError: no key for OpenAI, a malformed key or URL; from the returned function, when the server refuses what would be refused
            for every answer.
    """
    api = ChatApi(model, key, url, timeout_s=timeout_s, max_retries=max_retries, key_variable=key_variable)
    server = BlockingApi(api)
    wanted: dict[str, Any] = {"max_tokens": max_tokens, "temperature": 0}
    if log_probabilities:
        wanted = {"max_tokens": 1, "temperature": 0, "logprobs": True, "top_logprobs": N_TOP}
    fields = with_request(wanted, request or {})
    limit, answered = token_limit(fields), False

    def ask(prompt: str) -> dict[str, float]:
        nonlocal answered
        try:
            content = server.ask({"messages": [{"role": "user", "content": prompt}], **fields})
        except openai.OpenAIError as error:
            if refusal := api.refusal(error, None if answered else fields):
                raise JudgeError(refusal) from None
            raise BadReply(api.say(error), is_passing(error)) from None
        answered = True
        if log_probabilities:
            return parse_reply(content, limit)
        reply = read_reply(content)
        if (missing := reply.missing_answer(limit)) is not None:
            raise missing
        return {reply.text: 1.0}

    return ask


def local_ask(chat_model: ChatModel, labels: Sequence[str], max_batch_tokens: int = 4096) -> Ask:
    """Ask a local chat model: the exact probability that its answer begins with each label, however many tokens a label has."""

    def ask(prompt: str) -> dict[str, float]:
        chats = encode_chats(chat_model.tokenizer, [(prompt, label) for label in labels])
        means = mean_logprobs(chat_model, chats, max_batch_tokens)
        lengths = [chat.n_response for chat in chats]
        return {
            label: math.exp(mean * length) for label, mean, length in zip(labels, means.tolist(), lengths, strict=True)
        }

    return ask
