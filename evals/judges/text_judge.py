"""Turns completions into Scores by asking a chat model for its answer as text, for APIs that give no log-probabilities.

A reply counts when it is one number from 0 to 100 or one of the labels and says nothing else; every other reply is kept as evidence and
refused. One written number is coarser than the mean of a distribution: judges write multiples of 5 or 10. What a reasoning model thinks
before its answer is not part of the answer.
"""

import functools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from emis_interp.config.run_config import JudgeConfig
from emis_interp.errors import JudgeError
from emis_interp.http.chat_api import ApiOptions, ChatApi
from emis_interp.http.costs import Meter
from emis_interp.http.replies import BadReply, ChatReply, read_reply
from emis_interp.http.request_fields import token_limit, with_request
from evals.judges.api_judge import ApiJudge, options_from
from evals.judges.cache import Cache
from evals.judges.logprobs import LABELS, LEAST_MASS, Label, Verdict
from evals.judges.methods import Method

MAX_TOKENS = 16
LONGEST = 10_000  # characters of a reply that is kept; no number is longer
CUT = " […]"  # ends the evidence of a reply that the token limit cut
_AROUND = " \n\t*_`\"'"


class TextJudge(ApiJudge):
    """A judge behind any OpenAI-compatible chat API.

    Arguments as for `ChatApi`; `cache` keeps judgements, `meter` has prices and the budget.

    Args:
        n_samples: replies per metric, averaged; more than one needs a temperature above 0.
        temperature: of the judge.
        request: changes of every request (see `emis_interp.http.request_fields`).
        max_tokens: of a reply, a thought included; None for 16.

    Raises:
        JudgeError: several samples at temperature 0, or what `ChatApi` refuses.
    """

    def __init__(
        self,
        model: str,
        key: str | None = None,
        url: str | None = None,
        *,
        n_samples: int = 1,
        temperature: float = 0.0,
        cache: Cache | None = None,
        meter: Meter | None = None,
        request: Mapping[str, Any] | None = None,
        max_tokens: int | None = None,
        **options: Unpack[ApiOptions],
    ) -> None:
        if n_samples > 1 and temperature == 0:
            raise JudgeError(
                f"text judge: {n_samples} samples at temperature 0 are one sample; give a temperature, e.g. 1"
            )
        api = ChatApi(model, key, url, **options)
        settings = with_request({"max_tokens": max_tokens or MAX_TOKENS, "temperature": temperature}, request or {})
        limit = token_limit(settings)
        method = Method(
            kind="text",
            version="text-1",
            settings=settings,
            parse=functools.partial(parse_text, limit=limit),
            read=functools.partial(read_texts, limit=limit),
            n_samples=n_samples,
        )
        name = f"text:{model}@{api.host}"
        if n_samples > 1 or temperature > 0:
            name += f" ({n_samples} x temperature {temperature:g})"
        if max_tokens not in (None, MAX_TOKENS):
            name += f" ({max_tokens} tokens)"
        card = {"n_samples": n_samples, "temperature": temperature, "max_tokens": limit, "least_mass": LEAST_MASS}
        super().__init__(method, api, name, card=card, cache=cache, meter=meter, request=request)

    @classmethod
    def from_config(cls, config: JudgeConfig) -> "TextJudge":
        return cls(config.model, **options_from(config), n_samples=config.n_samples, temperature=config.temperature)


def read_texts(
    shares: Mapping[str, float], labels: Sequence[Label] = LABELS, limit: int | None = MAX_TOKENS
) -> Verdict:
    """The verdict of one or more replies: text -> its share of the replies.

    The rule for distributions (`evals.judges.logprobs.read_distribution`) with shares in place of probabilities: a label wins when more
    replies give it than numbers, the winner needs a share of 0.25, and a score is the mean of the numbers.
    """
    verdicts = {text: read_text(text, labels, limit) for text in shares}
    numbers = {text: verdict.score for text, verdict in verdicts.items() if verdict.score is not None}
    total = sum(shares[text] for text in numbers)
    masses: dict[Label, float] = {
        label: sum(shares[text] for text in shares if verdicts[text].label == label) for label in labels
    }
    label = max(masses, key=lambda name: masses[name], default=None)
    if label is not None and masses[label] > total and masses[label] >= LEAST_MASS:
        return Verdict(label=label)
    if numbers and total >= LEAST_MASS:
        return Verdict(score=sum(shares[text] * number for text, number in numbers.items()) / total)
    if len(shares) == 1:
        return next(iter(verdicts.values()))
    refused = next((verdict.reason for verdict in verdicts.values() if verdict.reason), "replies disagree")
    return Verdict(reason=f"share of replies with a number {total:.2f} < {LEAST_MASS}; {refused}")


def read_text(text: str, labels: Sequence[Label] = LABELS, limit: int | None = MAX_TOKENS) -> Verdict:
    """One reply: a number from 0 to 100 or a label, alone but for punctuation, `Score:` before it and `/100` behind it.

    Args:
        limit: tokens that the reply could have.
    """
    if text.endswith(CUT):
        tokens = "its token limit" if limit is None else f"{limit} tokens"
        return Verdict(reason=f"reply cut at {tokens}: {_short(text)} (--max-tokens gives it more)")
    if len(text) > LONGEST:
        return Verdict(reason=f"more than a number: a reply of more than {LONGEST:,} characters, {_short(text)}")
    bare = text.strip().strip("*_`\"'“”.!()[]{}<> \n\t")
    known: dict[str, Label] = {label: label for label in labels}
    if bare.upper() in known:
        return Verdict(label=known[bare.upper()])
    bare = re.sub(r"^(?:the )?(?:score|rating|answer|number)(?: is)?\s*[:=]?[\s*_`\"']*", "", bare, flags=re.IGNORECASE)
    # Taken off from the end: a pattern that begins with blanks would be tried at every blank of a long run.
    if end := re.search(r"(?:/\s?100|out of 100|%)$", bare):
        bare = bare[: end.start()].rstrip(_AROUND)
    if re.fullmatch(r"0(?:\.0+)?|[1-9][0-9]?(?:\.[0-9]+)?|100(?:\.0+)?", bare):
        return Verdict(score=float(bare))
    found = re.findall(r"-?[0-9]+(?:\.[0-9]+)?", text)
    if not found:
        problem = "no number from 0 to 100"
    elif len(found) > 1:
        problem = f"{len(found)} numbers where one is asked for"
    elif bare != found[0]:
        problem = "more than a number"
    elif 0 < float(bare) < 1:
        problem = "number on a scale from 0 to 1"
    else:
        problem = "no number from 0 to 100"
    return Verdict(reason=f"{problem}: {_short(text)}")


def parse_text(content: bytes, limit: int | None = None) -> dict[str, float]:
    """The answer of a chat completion, without a thought, with share 1.

    Args:
        limit: of the request's tokens; a reply that does not say how it ended counts as whole when it cannot have reached it.

    Raises:
        BadReply: no chat completion, or one without an answer.
    """
    reply = read_reply(content)
    if (missing := reply.missing_answer(limit)) is not None:
        raise missing
    if reply.end in ("unknown", "other") and not _is_whole(reply, limit):
        raise BadReply(f"the reply does not say whether it is whole (it ended by `{reply.end_word}`)", passing=False)
    return {reply.text[: LONGEST + 1] + (CUT if reply.end == "length" else ""): 1.0}


def _is_whole(reply: ChatReply, limit: int | None) -> bool:
    """Whether the token limit cannot have cut a reply: it counts fewer tokens, or has fewer bytes than that many tokens would."""
    if limit is None:
        return True
    if reply.n_tokens is not None:
        return reply.n_tokens < limit
    return not reply.thought and len(reply.text.encode("utf-8", "replace")) < limit


def _short(text: str) -> str:
    return json.dumps(text if len(text) <= 80 else text[:79] + "…", ensure_ascii=False)
