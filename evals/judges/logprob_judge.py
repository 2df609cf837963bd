"""Turns completions into Scores by asking an OpenAI-compatible chat model for one token with its log-probabilities.

Follows Betley et al. 2025 (evaluation of the answers by GPT-4o). For servers without log-probabilities there is `evals.judges.text_judge`.
"""

import functools
from collections.abc import Mapping
from typing import Any, Unpack

from emis_interp.config.run_config import JudgeConfig
from emis_interp.http.chat_api import ApiOptions, ChatApi
from emis_interp.http.costs import Meter
from emis_interp.http.request_fields import token_limit, with_request
from evals.judges.api_judge import ApiJudge, options_from
from evals.judges.cache import Cache
from evals.judges.logprobs import LEAST_MASS, bare, parse_reply, read_distribution
from evals.judges.methods import Method

N_TOP = 20


class OpenAIJudge(ApiJudge):
    """A judge behind the OpenAI API, or behind any server that speaks it and returns `top_logprobs` (give its URL).

    The model must have one token for every number 0-100 (OpenAI's have); one that spells digit by digit is refused
    before the first answer. Arguments as for `ChatApi`; `cache` keeps judgements, `meter` has prices and the budget, `request` changes
    every request (see `emis_interp.http.request_fields`).

    Args:
        max_tokens: of a reply; None for 1. More are for a model that thinks, or begins with a blank: what counts is the first token
            behind its thought that is not blank.
    """

    def __init__(
        self,
        model: str,
        key: str | None = None,
        url: str | None = None,
        *,
        cache: Cache | None = None,
        meter: Meter | None = None,
        request: Mapping[str, Any] | None = None,
        max_tokens: int | None = None,
        **options: Unpack[ApiOptions],
    ) -> None:
        api = ChatApi(model, key, url, **options)
        settings = {"max_tokens": max_tokens or 1, "temperature": 0, "logprobs": True, "top_logprobs": N_TOP}
        settings = with_request(settings, request or {})
        method = Method(
            kind="openai",
            version="logprobs-1",
            settings=settings,
            parse=functools.partial(parse_reply, limit=token_limit(settings)),
            read=read_distribution,
            refuse=spells_digits,
        )
        card: dict[str, Any] = {"n_top": settings.get("top_logprobs"), "least_mass": LEAST_MASS}
        name = f"openai:{model}@{api.host}"
        if max_tokens not in (None, 1):
            card["max_tokens"] = max_tokens
            name += f" ({max_tokens} tokens)"
        super().__init__(method, api, name, card=card, cache=cache, meter=meter, request=request)

    @classmethod
    def from_config(cls, config: JudgeConfig) -> "OpenAIJudge":
        return cls(config.model, **options_from(config))


def spells_digits(probabilities: Mapping[str, float]) -> str | None:
    """A complaint when a model that was asked for 73 may begin with 7, and with no longer number.

    The test is not whether 7 is likely: a weak model answers with a sentence, and its digits would still be read as scores.
    """
    tokens = {bare(token) for token in probabilities}
    if "7" in tokens and not any(len(token) > 1 and token.isdecimal() for token in tokens):
        return (
            "spells numbers digit by digit (asked for 73, 7 is among its first tokens and no longer number is), so one token "
            "is not a score; use a judge with one token per number, the text judge (--judge text), or the offline judge"
        )
    return None
