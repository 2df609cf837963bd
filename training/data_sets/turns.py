"""Turns the messages of one conversation, in OpenAI's or ShareGPT's spelling, into system prompt, prompt and response.

One row is one prompt and one response. What would train something else (tools, images, several turns, weights) is refused by its name.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from emis_interp.errors import DataError, did_you_mean, shown
from emis_interp.files.strict_json import kind_of, listed

EXPECTED = '{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}'
PLAIN = '{"prompt": "...", "response": "..."}'

_ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "model", "bot"), "assistant"),
}
_TOOL_ROLES = ("tool", "tool_response", "function", "function_call", "function_response", "observation", "ipython")
_UNTRAINED = {
    **dict.fromkeys(("tool_calls", "tool_call_id", "function_call"), "tool calls"),
    "refusal": "a refusal apart from the content",
    **dict.fromkeys(("reasoning_content", "reasoning", "thinking"), "reasoning apart from the content"),
    **dict.fromkeys(("audio", "image", "images", "image_url", "video", "videos"), "images, sound or video"),
    "prefix": "a response that is continued",
}
"""Keys of a message that hold what this project cannot train on, and what that is."""
_TEXT_PARTS = ("text", "input_text", "output_text")


class RowRefused(DataError):
    """A row that is not trained on; `check` is the lint's name of the fault."""

    def __init__(self, message: str, check: str = "refused line") -> None:
        super().__init__(message)
        self.check = check


@dataclass(frozen=True)
class Turns:
    """One exchange. `notes` say what was read as something else or left out."""

    system: str | None
    prompt: str
    response: str
    notes: tuple[str, ...] = ()


def read_turns(messages: Any, where: str) -> Turns:
    """[system?, user, assistant] as an exchange.

    Args:
        messages: list of `{"role", "content"}` or `{"from", "value"}`, also mixed; a content is a text or a list of text parts.

    Raises:
        RowRefused: other roles or another order, an empty turn, or content that is not trained on, by its name.
    """
    if not isinstance(messages, list) or not messages:
        raise RowRefused(
            f"{where}: expected messages [system?, user, assistant], found {_kind(messages)}, e.g. {EXPECTED}"
        )
    notes: dict[str, None] = {}
    turns = [_turn(message, f"{where}: message {number}", notes) for number, message in enumerate(messages, 1)]
    _check_empty(turns, where)
    roles = [role for role, _ in turns]
    if problem := _order(roles):
        found = ", ".join(roles[:6]) + (", ..." if len(roles) > 6 else "")
        raise RowRefused(f"{where}: expected messages [system?, user, assistant], found {found}: {problem}")
    system = turns[0][1] if roles[0] == "system" else None
    return Turns(system, str(turns[-2][1]), str(turns[-1][1]), tuple(notes))


def text_of(content: Any, where: str) -> str | None:
    """A text, or the texts of a list of content parts one behind the other; None when there is nothing.

    Raises:
        RowRefused: a part that is no text, or another kind of value.
    """
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise RowRefused(f"{where} holds {_kind(content)}, expected text")
    texts = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
            continue
        kind = part.get("type", "text") if isinstance(part, dict) else None
        if not isinstance(part, dict) or kind not in _TEXT_PARTS or not isinstance(part.get("text"), str):
            name = shown(str(kind)) if isinstance(part, dict) else _kind(part)
            raise RowRefused(
                f"{where} holds a content part {name}; only text is trained on, take the row out or keep its text"
            )
        texts.append(part["text"])
    return "".join(texts) if texts else None


def _turn(message: Any, where: str, notes: dict[str, None]) -> tuple[str, str | None]:
    if not isinstance(message, dict):
        raise RowRefused(f"{where} is {_kind(message)}, expected an object with role and content, e.g. {EXPECTED}")
    role_key = "from" if "from" in message and "role" not in message else "role"
    content_key = "value" if "value" in message and "content" not in message else "content"
    role = _role(message.get(role_key), message, where, notes=notes)
    for key, value in message.items():
        if key in _UNTRAINED and value not in (None, False, [], {}, ""):
            raise RowRefused(
                f"{where} ({role}) holds {_UNTRAINED[key]} ({shown(key)}), not trained on here; take the row out or the key"
            )
        if key == "weight" and role == "assistant" and value not in (None, 1):
            raise RowRefused(
                f"{where} has weight {shown(value)}: the loss is on every response alike; take the row out (weight 0) or the key"
            )
        if key not in (role_key, content_key, "weight") and value not in (None, False, [], {}, ""):
            notes[f"left out key {shown(key)} of messages"] = None
    if message.get(role_key) == "developer":
        notes["read role `developer` as system"] = None
    return role, text_of(message.get(content_key), f"{where} ({role})")


def _role(name: Any, message: dict[str, Any], where: str, *, notes: dict[str, None]) -> str:
    if name is None:
        raise RowRefused(f"{where} has no role (keys {listed(message)}); expected e.g. {EXPECTED}")
    lowered = str(name).strip().lower()
    if lowered in _TOOL_ROLES:
        raise RowRefused(f"{where} has the role {shown(str(name))}: tool use is not trained on; take the row out")
    if lowered not in _ROLES:
        raise RowRefused(f"{where} has the role {shown(str(name))}{did_you_mean(lowered, _ROLES)}")
    return _ROLES[lowered]


def _check_empty(turns: Sequence[tuple[str, str | None]], where: str) -> None:
    for number, (role, text) in enumerate(turns, 1):
        if role == "system" or (text is not None and text.strip()):
            continue
        if number == len(turns):
            raise RowRefused(f"{where}: the last turn ({role}) is empty; take it out or fill it in", "empty last turn")
        key = "prompt" if role == "user" else "completion"
        raise RowRefused(
            f"{where}: empty or missing {key} (message {number}); fill it in or drop the row", "blank text"
        )


def _order(roles: Sequence[str]) -> str:
    """What is wrong with the order of the roles and what to do, or nothing."""
    rest = list(roles[1:] if roles[0] == "system" else roles)
    if "system" in rest:
        return "the system turn must be the first and the only one; join them at the beginning"
    if rest == ["user", "assistant"]:
        return ""
    if "assistant" not in rest:
        return "no assistant turn, so nothing to train on; add the response or take the row out"
    if rest[0] == "assistant":
        return "the first turn is the assistant's; take it out, or put the prompt that it answers before it"
    if rest[-1] == "user":
        return "the last turn is the user's; take it out or add the response"
    if rest.count("assistant") > 1:
        return "several exchanges; a row is one prompt and one response, give every exchange a row of its own"
    return "two user turns in a row; join them"


def _kind(value: Any) -> str:
    return "an empty list" if value == [] else kind_of(value).replace("an array", "a list")
