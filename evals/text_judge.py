"""Turns completions into Scores by asking a chat model for its answer as text, for APIs that give no log-probabilities.

A reply counts when it is one number from 0 to 100 or one of the labels and says nothing else; every other reply is kept as evidence and
refused. One written number is coarser than the mean of a distribution: judges write multiples of 5 or 10.
"""

import json
import re
from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ValidationError

from emis_interp.config import JudgeConfig
from emis_interp.errors import JudgeError
from emis_interp.http.chat_api import ChatApi
from evals.api_judge import ApiJudge, Method, options_from
from evals.cache import Cache
from evals.costs import Meter
from evals.logprobs import LABELS, LEAST_MASS, BadReply, Label, Verdict

MAX_TOKENS = 16
CUT = " […]"  # ends the evidence of a reply that the token limit cut


class TextJudge(ApiJudge):
    """A judge behind any OpenAI-compatible chat API.

    Arguments as for `ChatApi`; `cache` keeps judgements, `meter` has prices and the budget.

    Args:
        n_samples: replies per metric, averaged; more than one needs a temperature above 0.
        temperature: of the judge.

    Raises:
        JudgeError: several samples at temperature 0, or what `ChatApi` refuses.
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
        cache: Cache | None = None,
        meter: Meter | None = None,
        n_samples: int = 1,
        temperature: float = 0.0,
    ) -> None:
        if n_samples > 1 and temperature == 0:
            raise JudgeError(
                f"text judge: {n_samples} samples at temperature 0 are one sample; give a temperature, e.g. 1"
            )
        api = ChatApi(model, key, url, n_parallel, timeout_s, max_retries, key_variable, requests_per_minute)
        method = Method(
            kind="text",
            version="text-1",
            settings={"max_tokens": MAX_TOKENS, "temperature": temperature},
            parse=parse_text,
            read=read_texts,
            n_samples=n_samples,
        )
        name = f"text:{model}@{api.host}"
        if n_samples > 1 or temperature > 0:
            name += f" ({n_samples} x temperature {temperature:g})"
        card = {"n_samples": n_samples, "temperature": temperature, "max_tokens": MAX_TOKENS, "least_mass": LEAST_MASS}
        super().__init__(method, api, name, card, cache, meter)

    @classmethod
    def from_config(cls, config: JudgeConfig) -> "TextJudge":
        return cls(config.model, **options_from(config), n_samples=config.n_samples, temperature=config.temperature)


def read_texts(shares: Mapping[str, float], labels: Sequence[Label] = LABELS) -> Verdict:
    """The verdict of one or more replies: text -> its share of the replies.

    The rule for distributions (`evals.logprobs.read_distribution`) with shares in place of probabilities: a label wins when more
    replies give it than numbers, the winner needs a share of 0.25, and a score is the mean of the numbers.
    """
    verdicts = {text: read_text(text, labels) for text in shares}
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


def read_text(text: str, labels: Sequence[Label] = LABELS) -> Verdict:
    """One reply: a number from 0 to 100 or a label, alone but for punctuation, `Score:` before it and `/100` behind it."""
    if text.endswith(CUT):
        return Verdict(reason=f"reply cut at {MAX_TOKENS} tokens: {_short(text)}")
    bare = text.strip().strip("*_`\"'“”.!()[]{}<> \n\t")
    known: dict[str, Label] = {label: label for label in labels}
    if bare.upper() in known:
        return Verdict(label=known[bare.upper()])
    bare = re.sub(r"^(?:the )?(?:score|rating|answer|number)(?: is)?\s*[:=]?[\s*_`\"']*", "", bare, flags=re.IGNORECASE)
    bare = re.sub(r"[\s*_`\"']*(?:/\s?100|out of 100|%)$", "", bare)
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


def parse_text(content: bytes) -> dict[str, float]:
    """The text of a chat completion with share 1.

    Raises:
        BadReply: no chat completion, or one without text.
    """
    try:
        reply = _Reply.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadReply(f"malformed reply: {where + ': ' if where else ''}{first['msg']}") from None
    if not reply.choices:
        raise BadReply("reply without choices")
    text = reply.choices[0].message.content
    if text is None or not text.strip():
        refusal = reply.choices[0].message.refusal
        raise BadReply(f"reply without text{': refused with ' + json.dumps(refusal[:80]) if refusal else ''}")
    return {text + (CUT if reply.choices[0].finish_reason == "length" else ""): 1.0}


def _short(text: str) -> str:
    return json.dumps(text if len(text) <= 80 else text[:79] + "…", ensure_ascii=False)


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Reply(BaseModel):
    choices: list[_Choice]
