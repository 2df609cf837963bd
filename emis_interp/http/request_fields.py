"""Turns `KEY=VALUE` settings into the fields of a chat request, and a server's refusal into the field that it means.

A request is a mapping of JSON fields. Changes are laid over the fields that a judge or sampler sends by itself: a value replaces or adds,
None leaves the field out, mappings are merged.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from emis_interp.errors import ConfigError, printable, shown
from emis_interp.files.strict_yaml import parse_yaml

OURS = {
    "messages": "the messages are the question's",
    "model": "the model has a flag of its own",
    "stream": "replies are read whole",
    "stream_options": "replies are read whole",
    "extra_headers": "only fields of the body can be given",
    "extra_query": "only fields of the body can be given",
}
_SECRETS = ("api_key", "apikey", "api-key", "authorization", "password", "secret", "access_token")
LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens", "num_predict")
"""Names under which servers take the limit of a reply's tokens, in the order in which they count."""


def parse_request(settings: Sequence[str], flag: str = "--request") -> dict[str, Any]:
    """Changes of a request from `KEY=VALUE` texts: VALUE is YAML (so JSON too), `KEY=` leaves the field out, `a.b=...` goes into `a`.

    Raises:
        ConfigError: another form, a key given twice, a value that JSON does not have, or a field that is not for the user.
    """
    request: dict[str, Any] = {}
    for setting in settings:
        key, separator, text = setting.partition("=")
        path = [part.strip() for part in key.split(".")]
        name = f"{flag} {printable(setting)}"
        if not separator or not all(path):
            raise ConfigError(f"{name}: expected KEY=VALUE, e.g. top_p=0.9, or KEY= to leave a field out")
        place = request
        for part in path[:-1]:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise ConfigError(f"{name}: {shown(part)} was given a value before; it cannot hold {shown(path[-1])}")
        if path[-1] in place:
            raise ConfigError(f"{name}: {shown(key)} is given twice")
        place[path[-1]] = _value(text, name)
    if problem := request_problem(request):
        raise ConfigError(f"{flag} {problem}")
    return request


def request_problem(request: Mapping[str, Any]) -> str | None:
    """Why these changes cannot be made, or None."""
    for key, value in _flat(request).items():
        if key in OURS and value is not False:  # `stream=false` says what is true
            return f"{shown(key)} cannot be set: {OURS[key]}"
        if str(key).lower() in _SECRETS:
            return f"{shown(str(key))} cannot be set: requests are recorded, and a key belongs in the environment"
    if _flat(request).get("n", 1) not in (1, None):
        return "`n` cannot be set: one reply is read for each request"
    try:
        json.dumps(request, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        return f"holds what JSON does not have ({printable(str(error))})"
    return None


def with_request(fields: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    """The fields with the changes laid over them; what the SDK calls `extra_body` stands among the others, as it is sent."""
    return _merged(fields, _flat(request))


def say_request(request: Mapping[str, Any]) -> str:
    """The changes in one line that tells them apart from others: `top_p=, chat_template_kwargs={"enable_thinking": false}`."""
    flat = sorted(_flat(request).items())
    return ", ".join(
        f"{key}={'' if value is None else json.dumps(value, sort_keys=True, ensure_ascii=False)}" for key, value in flat
    )


def token_limit(fields: Mapping[str, Any]) -> int | None:
    """How many tokens a reply may have, None when the request does not say."""
    found = (fields.get(name) for name in LIMITS)
    return next((limit for limit in found if isinstance(limit, int) and not isinstance(limit, bool)), None)


def refused_field(said: str, fields: Mapping[str, Any], param: str | None = None) -> str | None:
    """The field of a request that a server's words are about, the first that they name, or None.

    Args:
        said: the words, of any length; only their beginning is searched.
        param: what the server itself gives as the field.
    """
    if param in fields:
        return param
    text, found = said[:4000], list[tuple[int, int, str]]()
    for name in fields:
        # top_p, top-p, topP
        spelt = r"[_\- ]?".join(re.escape(part) for part in name.split("_"))
        if match := re.search(rf"(?<![\w-]){spelt}(?![\w-])", text, re.IGNORECASE):
            found.append((match.start(), -len(name), name))
    return min(found)[2] if found else None


def _flat(request: Mapping[str, Any]) -> dict[str, Any]:
    """The changes with the content of `extra_body` among the others."""
    inner = request.get("extra_body")
    others = {key: value for key, value in request.items() if key != "extra_body"}
    return _merged(others, inner, keep_none=True) if isinstance(inner, Mapping) else others


def _merged(fields: Mapping[str, Any], changes: Mapping[str, Any], keep_none: bool = False) -> dict[str, Any]:
    merged = dict(fields)
    for key, value in changes.items():
        if value is None and not keep_none:
            merged.pop(key, None)
        elif isinstance(value, Mapping):
            old = merged.get(key)
            merged[key] = _merged(old if isinstance(old, Mapping) else {}, value, keep_none)
        else:
            merged[key] = value
    return merged


def _value(text: str, where: str) -> Any:
    return parse_yaml(text, where, error=ConfigError, is_flag=True).value
