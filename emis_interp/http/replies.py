"""Turns the raw body of a chat completion, in the dialect of whichever server, into one checked reply.

Nothing is guessed: what a server does not say is None, and what cannot be read is a `BadReply` with what was found.
"""

import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from emis_interp.errors import DataError
from emis_interp.files.strict_json import parse_json_line
from emis_interp.http.guarded import error_status
from emis_interp.http.thoughts import split_thought

End = Literal["stop", "length", "filter", "broken", "other", "unknown"]
_ENDS: dict[str, End] = {
    **dict.fromkeys(("stop", "eos", "eos_token", "eos_found", "eosfound", "end_turn", "end_of_turn"), "stop"),
    **dict.fromkeys(("stop_sequence", "stop_token", "stop_string", "complete", "completed", "finished"), "stop"),
    **dict.fromkeys(("length", "max_tokens", "max_length", "max_new_tokens", "max_output_tokens"), "length"),
    **dict.fromkeys(("model_length", "token_limit", "limit", "maxpredictedtokensreached"), "length"),
    **dict.fromkeys(("content_filter", "content_filtered", "safety", "recitation", "refusal", "blocklist"), "filter"),
    **dict.fromkeys(("error", "abort", "aborted", "cancelled", "canceled", "timeout"), "broken"),
    "insufficient_system_resource": "broken",
}
"""A server's word in small letters -> what it means: OpenAI's own, TGI, Ollama, LM Studio, Mistral, Anthropic, Gemini, Cohere, DeepSeek."""
_THOUGHT_FIELDS = ("reasoning_content", "reasoning", "thinking", "thought")
_TEXT_PARTS = ("text", "output_text")
THINKS = (
    "give it more with {flag}, or switch the thought off in the way of its server (--request reasoning_effort=none, "
    "--request chat_template_kwargs.enable_thinking=false, --request think=false)"
)
"""What helps when the tokens ran out in a thought; `flag` is the one for more of them."""
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 120


class BadReply(Exception):
    """HTTP 200 without what was asked for. `passing`: the same request may well be answered another time."""

    def __init__(self, reason: str, passing: bool = True) -> None:
        super().__init__(reason)
        self.passing = passing


class UnfinishedThought(BadReply):
    """The tokens ran out before the answer began; more tokens, or no thought, would help."""


class Position(NamedTuple):
    """One place of a reply: the token that stands there, and (token, natural log-probability) of the likeliest ones."""

    token: str
    tops: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class ChatReply:
    """One reply.

    Attributes:
        text: the answer alone, "" when there is none; thought: what a reasoning model thought before it.
        unfinished: the reply ended inside its thought.
        end: why it ended; end_word: in the server's own word, None when it says nothing.
        n_tokens: as the server counts them, thought included, and n_thought_tokens: of the thought; None when it does not say.
        positions: with log-probabilities; None when there are none.
        other: what stands in place of a text: `refused with ...`, `it calls a tool`; "" for nothing.
        has_content: the message has a text, though perhaps an empty one.
    """

    text: str
    thought: str = ""
    unfinished: bool = False
    end: End = "unknown"
    end_word: str | None = None
    n_tokens: int | None = None
    n_thought_tokens: int | None = None
    positions: tuple[Position, ...] | None = None
    other: str = ""
    has_content: bool = True

    def missing_answer(self, limit: int | None = None) -> BadReply | None:
        """Why there is no answer, None when there is one. `limit`: of the request's tokens, for the words."""
        if self.end == "filter":
            return BadReply(f"reply ended by `{self.end_word}`", passing=False)
        if self.end == "broken":
            return BadReply(f"reply ended by `{self.end_word}`")
        tokens = "its tokens" if limit is None else f"its {limit} tokens"
        if self.unfinished and self.end != "length":
            return BadReply(f"reply without text: it ended inside its thought, by `{self.end_word}`", passing=False)
        if self.unfinished or (self.end == "length" and not self.text.strip() and self._thought_something):
            return UnfinishedThought(f"reply without text: {tokens} ran out while thinking", passing=False)
        if self.text.strip():
            return None
        if self.other:
            return BadReply(f"reply without text: {self.other}", passing=False)
        if self.thought:
            return BadReply(f"reply without text: only a thought, ended by `{self.end_word}`", passing=False)
        if self.end == "length":  # some hosts bill a thought and never show it
            return UnfinishedThought(f"reply without text although {tokens} were used", passing=False)
        return BadReply("reply without text")

    @property
    def _thought_something(self) -> bool:
        return bool(self.thought) or bool(self.n_thought_tokens)


def read_reply(content: bytes) -> ChatReply:
    """The first choice of a chat completion.

    Raises:
        BadReply: not JSON, an error in place of a completion, no choice, or a part of the wrong type.
    """
    body = _body(content)
    choices = body.get("choices")
    if not isinstance(choices, list):
        raise BadReply(f"malformed reply: choices: expected a list, found {_kind(choices)}{_keys(body)}")
    if not choices:
        raise BadReply("reply without choices")
    choice = _mapping(choices[0], "choices.0")
    if _is_error(body.get("error")):
        raise BadReply(f"error beside a reply: {_short(body['error'])}")
    if choice.get("error"):
        raise BadReply(f"error in the reply: {_short(choice['error'])}")
    message = choice.get("message")
    message = {} if message is None else _mapping(message, "choices.0.message")
    content_given = message.get("content", choice.get("text"))
    thought, given = _content(content_given)
    split = split_thought(given)
    thoughts = [*(_plain(message.get(name)) for name in _THOUGHT_FIELDS), _plain(message.get("reasoning_details"))]
    apart = next((text for text in (*thoughts, thought) if text.strip()), "")
    word = _word(choice)
    usage = body.get("usage")
    usage = usage if isinstance(usage, Mapping) else {}
    n_tokens = _count(usage.get("completion_tokens"))
    details = usage.get("completion_tokens_details")
    return ChatReply(
        text=split.answer,
        thought="\n\n".join(part for part in (apart.strip(), split.thought) if part),
        unfinished=split.unfinished,
        end="unknown" if word is None else _ENDS.get(word.strip().lower(), "other"),
        end_word=None if word is None else word[:40],
        n_tokens=n_tokens or (None if given or apart else n_tokens),  # a server that counts nothing may say 0
        n_thought_tokens=_count(details.get("reasoning_tokens")) if isinstance(details, Mapping) else None,
        positions=_positions(choice.get("logprobs")),
        other=_other(message),
        has_content=content_given is not None,
    )


def usage_of(content: bytes) -> tuple[int, int] | None:
    """Tokens in and out as a reply counts them, or None when it does not."""
    try:
        usage = _body(content).get("usage")
    except BadReply:
        return None
    if not isinstance(usage, Mapping):
        return None
    counts = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    return None if not counts[0] or counts[1] is None else (counts[0], counts[1])  # no prompt has no tokens


def _body(content: bytes) -> Mapping[str, Any]:
    start = content[:200].lstrip()
    if start.startswith(b"data:"):
        raise BadReply("malformed reply: a stream of events (--request stream=false asks for a whole reply)")
    if start[:1] == b"<":
        raise BadReply(f"malformed reply: HTML instead of JSON ({_short(start.decode('utf-8', 'replace'))})")
    try:
        # loose: halves of surrogate pairs, which a limit of tokens can leave, and log-probabilities of -Infinity
        body = parse_json_line(content.decode("utf-8-sig"), "malformed reply", loose=True)
    except UnicodeDecodeError as error:
        raise BadReply(f"malformed reply (not UTF-8: {error.reason} at byte {error.start})") from None
    except DataError as error:
        raise BadReply(_short(str(error), 160)) from None
    if not isinstance(body, Mapping):
        raise BadReply(f"malformed reply: expected an object, found {_kind(body)}")
    if (status := error_status(content)) is not None:
        said = body["error"] if body.get("error") else body
        raise BadReply(f"error {status} in place of a reply: {_short(said)}", passing=status == 429 or status >= 500)
    return body


def _is_error(error: Any) -> bool:
    """Whether a field `error` beside the choices says that something went wrong; some gateways always send one."""
    if isinstance(error, Mapping):
        return bool(error) and error.get("code") not in (0, 200, "0", "200", "ok", "success")
    return bool(error)


def _content(content: Any) -> tuple[str, str]:
    """(thought, text) of a message's content: text, or parts of several types (Mistral, Anthropic)."""
    if content is None:
        return "", ""
    if isinstance(content, str):
        return "", content
    if not isinstance(content, list):
        raise BadReply(f"malformed reply: choices.0.message.content: expected text, found {_kind(content)}")
    thoughts, texts = [], []
    for i, part in enumerate(content):
        if isinstance(part, str):
            texts.append(part)
            continue
        part = _mapping(part, f"choices.0.message.content.{i}")
        kind = part.get("type")
        if kind in _TEXT_PARTS or (kind is None and "text" in part):
            texts.append(_plain(part.get("text")))
        elif kind in ("thinking", "reasoning", "thought", "redacted_thinking"):
            thoughts.append(_plain(part))
        else:
            raise BadReply(
                f"malformed reply: choices.0.message.content.{i}: a part of type {_short(kind)}", passing=False
            )
    return "\n\n".join(thoughts), "".join(texts)


def _plain(value: Any) -> str:
    """The text of a thought, which may be parts in parts."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(_plain(part) for part in value[:10_000])
    if isinstance(value, Mapping):
        return next(
            (
                text
                for name in ("text", "thinking", "reasoning", "summary", "content")
                if (text := _plain(value.get(name)))
            ),
            "",
        )
    return ""


def _other(message: Mapping[str, Any]) -> str:
    refusal = message.get("refusal")
    if isinstance(refusal, str) and refusal.strip():
        return f'refused with "{_short(refusal, 80)}"'
    if message.get("tool_calls") or message.get("function_call"):
        return "it calls a tool"
    return ""


def _word(choice: Mapping[str, Any]) -> str | None:
    """Why the reply ended, in the server's word."""
    word = choice.get("finish_reason", choice.get("stop_reason"))
    if isinstance(word, Mapping):  # SGLang's own shape
        word = word.get("type")
    if word is not None and not isinstance(word, str):
        raise BadReply(f"malformed reply: choices.0.finish_reason: expected text, found {_kind(word)}")
    return word


def _positions(logprobs: Any) -> tuple[Position, ...] | None:
    """The places of a reply, from OpenAI's shape or that of the older completions API; None without any."""
    if logprobs is None:
        return None
    where = "choices.0.logprobs"
    logprobs = _mapping(logprobs, where)
    if isinstance(logprobs.get("tokens"), list) and "content" not in logprobs:
        tops = logprobs.get("top_logprobs")
        pairs = zip(logprobs["tokens"], tops, strict=False) if isinstance(tops, list) else ()
        found = [_position(token, top, f"{where}.top_logprobs.{i}") for i, (token, top) in enumerate(pairs)]
    else:
        content = logprobs.get("content")
        if content is None:
            return None
        if not isinstance(content, list):
            raise BadReply(f"malformed reply: {where}.content: expected a list, found {_kind(content)}")
        found = []
        for i, item in enumerate(content):
            item = _mapping(item, f"{where}.content.{i}")
            found.append(_position(item.get("token"), item.get("top_logprobs"), f"{where}.content.{i}.top_logprobs"))
    return tuple(found) or None


def _position(token: Any, tops: Any, where: str) -> Position:
    pairs: list[tuple[Any, Any]] = []
    if isinstance(tops, Mapping):
        pairs = list(tops.items())
    elif isinstance(tops, list):
        items = [_mapping(item, f"{where}.{i}") for i, item in enumerate(tops)]
        pairs = [(item.get("token"), item.get("logprob")) for item in items]
    elif tops is not None:
        raise BadReply(f"malformed reply: {where}: expected a list, found {_kind(tops)}")
    read = []
    for i, (name, logprob) in enumerate(pairs):
        if not isinstance(name, str):
            raise BadReply(f"malformed reply: {where}.{i}.token: expected text, found {_kind(name)}")
        if logprob is None:  # not among the likeliest, some servers say
            continue
        # NaN is not below any number.
        if isinstance(logprob, bool) or not isinstance(logprob, int | float) or not logprob <= 0.01:
            raise BadReply(
                f"malformed reply: {where}.{i}.logprob: expected a number of at most 0, found {_short(logprob)}"
            )
        read.append((name, min(0.0, float(logprob))))
    return Position(token if isinstance(token, str) else (read[0][0] if read else ""), tuple(read))


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise BadReply(f"malformed reply: {where}: expected an object, found {_kind(value)}")
    return value


def _count(value: Any) -> int | None:
    """A count of tokens; some servers write it as 12.0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        return None
    return int(value)


def _keys(body: Mapping[str, Any]) -> str:
    return f"; the reply has {_short(', '.join(map(str, body)) or 'no keys', 80)}" if "choices" not in body else ""


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    return {str: "text", dict: "an object", list: "a list"}.get(type(value), _short(value, 40))


def _short(value: Any, n: int = 120) -> str:
    text = " ".join((value[: 4 * n] if isinstance(value, str) else _REPR.repr(value)).split())
    return text if len(text) <= n else text[: n - 1] + "…"
