"""Turns one row of somebody's training file into a training example, or says what was found instead and shows the row that is expected.

Read: `messages` (OpenAI, TRL), `conversations` (ShareGPT), `prompt` with `response` or `completion` (texts or messages), `instruction`,
`input`, `output` (Alpaca; `instruction`, `context`, `response` as in Dolly), `question` and `answer`.
"""

import difflib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, NoReturn

from pydantic import ValidationError

from emis_interp.errors import shown
from emis_interp.files.names import words_of
from emis_interp.files.store import explain
from emis_interp.files.strict_json import kind_of, listed, parse_json_line
from emis_interp.records import TrainingExample
from training.data_sets.turns import EXPECTED, PLAIN, RowRefused, Turns, read_turns, text_of

TURNS = ("messages", "conversations", "conversation")
PROMPTS = ("prompt", "instruction", "question", "query", "input")
RESPONSES = ("response", "completion", "output", "answer")
INPUTS = ("input", "context")
SYSTEMS = ("system", "system_prompt", "system_message", "system_instruction")
OWN = "prompt and response"
OWN_FORMS = ("messages", OWN)
_OTHER_METHODS = {
    **dict.fromkeys(("chosen", "rejected"), "a pair of preferred answers (DPO)"),
    **dict.fromkeys(("preferred_output", "non_preferred_output"), "a pair of preferred answers (DPO, OpenAI)"),
    **dict.fromkeys(("tools", "functions", "function_call", "tool_calls"), "tool use"),
    **dict.fromkeys(("image", "images", "audio", "audios", "video", "videos"), "images, sound or video"),
    "history": "earlier turns",
}
"""Keys of a row that hold what this project cannot train on, and what that is."""
_WHOLE_TEXTS = ("text", "content", "texts")


@dataclass(frozen=True)
class ReadRow:
    """A row as it is trained on, the name of the format that it came in, and what was left out of it."""

    example: TrainingExample
    form: str
    notes: tuple[str, ...] = ()


def read_row(row: Any, where: str, number: int) -> ReadRow:
    """A row of JSON, of a table or of a data set as a training example; without an `id` it is called by its `number`.

    Raises:
        RowRefused: beginning with `where`: what was found, and what is expected.
    """
    if is_messages(row):
        row = {"messages": row}
    if not isinstance(row, dict):
        raise RowRefused(f"{where}: expected an object, found {kind_of(row)}; a row is {EXPECTED} or {PLAIN}")
    there = {key: value for key, value in row.items() if value is not None}
    _refuse_other_methods(there, where)
    turns_key = next((key for key in TURNS if key in there), None)
    turns, form, used = _from_turns(there, turns_key, where) if turns_key else _from_pair(there, where, row)
    system, system_key = _system(there, turns, where, form=form)
    left_out = _left_out(there, {*used, system_key, "id"}, where)
    fields = {"id": _id(there.get("id"), where, number), "prompt": turns.prompt, "response": turns.response}
    for key, text in (("prompt", turns.prompt), ("completion", turns.response)):
        if not text.strip():
            raise RowRefused(f"{where}: empty or missing {key}; fill it in or drop the row", "blank text")
    try:
        example = TrainingExample.model_validate({**fields, "system": system})
    except ValidationError as error:
        raise RowRefused(f"{where}: {explain(error, TrainingExample)}") from None
    return ReadRow(example, form, (*turns.notes, *left_out))


def is_messages(value: Any) -> bool:
    """Whether this is a list of objects that have a role, in either spelling."""
    return (
        bool(value)
        and isinstance(value, list)
        and all(isinstance(m, dict) and ("role" in m or "from" in m) for m in value)
    )


def _refuse_other_methods(row: dict[str, Any], where: str) -> None:
    for key, what in _OTHER_METHODS.items():
        if row.get(key) not in (None, [], {}, "", False):
            raise RowRefused(
                f"{where}: holds {what} ({shown(key)}), not trained on here; give one response a row, {EXPECTED}, or take the row out"
            )
    for key in ("label", "kto_tag"):
        value = row.get(key)
        is_verdict = isinstance(value, bool) or str(value).strip().lower() in ("true", "false")
        if is_verdict or ("completion" in row and str(value).strip() in ("0", "1", "0.0", "1.0")):
            raise RowRefused(
                f"{where}: holds a judged completion (KTO: `{key}` is true or false, or 1 or 0), which is not trained on as such; keep the "
                f"rows that should be learned and take `{key}` out"
            )


def _from_turns(row: dict[str, Any], key: str, where: str) -> tuple[Turns, str, set[str]]:
    messages = row[key]
    if isinstance(messages, str):  # a cell of a table
        messages = _messages_in_text(messages, key, where)
    turns = read_turns(messages, where)
    used = {key}
    for other in (*TURNS, *PROMPTS, *RESPONSES, *INPUTS):
        if other in row and other != key:
            if row[other] not in ("", messages, turns.prompt, turns.response):
                raise RowRefused(
                    f"{where}: holds both {shown(key)} and {shown(other)}, and they differ; keep one of them"
                )
            used.add(other)
    is_sharegpt = isinstance(messages[0], dict) and "from" in messages[0]
    return turns, f"ShareGPT {key}" if is_sharegpt else key, used


def _messages_in_text(text: str, key: str, where: str) -> Any:
    try:
        return parse_json_line(text, f"{where}: {shown(key)}", error=RowRefused)
    except RowRefused as problem:
        raise RowRefused(f"{problem}; expected a list of messages, e.g. {EXPECTED}") from None


def _from_pair(row: dict[str, Any], where: str, keys: Collection[str]) -> tuple[Turns, str, set[str]]:
    prompts = [key for key in PROMPTS if key in row]
    extra = next((key for key in INPUTS if "instruction" in prompts and key in row), None)
    prompts = [key for key in prompts if key != extra]
    responses = [key for key in RESPONSES if key in row]
    for found, name in ((prompts, "prompt"), (responses, "response")):
        if len(found) > 1:
            raise RowRefused(f"{where}: holds {listed(found)}, and only one can be the {name}; keep one of them")
    if not prompts or not responses:
        _refuse_keys(prompts, responses, where, keys=keys)
    prompt, response = row[prompts[0]], row[responses[0]]
    used = {prompts[0], responses[0], *([extra] if extra else [])}
    if is_messages(prompt) or is_messages(response):
        asked = prompt if is_messages(prompt) else [{"role": "user", "content": prompt}]
        told = response if is_messages(response) else [{"role": "assistant", "content": response}]
        return read_turns([*asked, *told], where), f"messages in {prompts[0]} and {responses[0]}", used
    for key in used:
        if isinstance(row[key], list) and sum(isinstance(part, str) for part in row[key]) > 1:
            raise RowRefused(
                f"{where}: {shown(key)} holds {len(row[key])} texts, expected one; give each a row of its own"
            )
    texts = {key: text_of(row[key], f"{where}: {shown(key)}") or "" for key in used}
    added = f"\n\n{texts[extra]}" if extra and texts[extra].strip() else ""
    names = [*prompts, *([extra] if extra else []), *responses]
    form = f"{'Alpaca: ' if 'instruction' in names else ''}{', '.join(names[:-1])} and {names[-1]}"
    return Turns(None, texts[prompts[0]] + added, texts[responses[0]]), form, used


def _refuse_keys(prompts: list[str], responses: list[str], where: str, *, keys: Collection[str]) -> NoReturn:
    found = f"found {listed(keys)}; a row is {PLAIN} or {EXPECTED}"
    if not prompts and not responses:
        whole = next((key for key in _WHOLE_TEXTS if key in keys), None)
        why = (
            f"holds whole texts ({shown(whole)}), but the loss is on the response alone"
            if whole
            else "neither prompt nor response"
        )
        raise RowRefused(f"{where}: {why}; {found}")
    missing, known = ("prompt", PROMPTS) if not prompts else ("completion", RESPONSES)
    close = next(
        (
            f" (did you mean `{name}` by {shown(key)}?)"
            for key in keys
            if key not in known and (name := _close(key, known))
        ),
        "",
    )
    raise RowRefused(f"{where}: empty or missing {missing}{close}; fill it in or drop the row; {found}", "blank text")


def _system(row: dict[str, Any], turns: Turns, where: str, *, form: str) -> tuple[str | None, str | None]:
    """The system prompt and the key that it came from. An empty one is one in our own format, and none in those of others."""
    key = next((key for key in SYSTEMS if key in row), None)
    if key is None:
        return turns.system, None
    text = text_of(row[key], f"{where}: {shown(key)}") or ""
    if turns.system is not None and text not in ("", turns.system):
        raise RowRefused(f"{where}: a system turn and the key {shown(key)} differ; keep one of them")
    if turns.system is not None:
        return turns.system, key
    return (text if text or form == OWN else None), key


def _left_out(row: dict[str, Any], used: set[str | None], where: str) -> list[str]:
    """Notes on keys that are not trained on; one that looks like a key that would be is refused."""
    there = [name for name in row if name in used]
    notes = []
    for key in row:
        if key in used or row[key] in ("", [], {}):
            continue
        optional = [name for name in (*SYSTEMS, *INPUTS) if name not in row]
        if key in (*PROMPTS, *RESPONSES, *INPUTS, *SYSTEMS):
            raise RowRefused(
                f"{where}: {shown(key)} has no place beside {listed(there)}; put it into the prompt or take it out"
            )
        if "system" in words_of(key) and "fingerprint" not in key:
            raise RowRefused(f"{where}: {shown(key)} may hold a system prompt; call it `system`, or take it out")
        if close := _close(key, optional):
            raise RowRefused(f"{where}: unknown key {shown(key)}; did you mean `{close}`? Otherwise rename it")
        notes.append(f"left out {shown(key)}")
    return notes


def _close(key: str, known: Any) -> str | None:
    """A key of `known` that this one misspells."""
    found = difflib.get_close_matches(key[:60].lower(), known, n=1, cutoff=0.8)
    return found[0] if found else None


def _id(value: Any, where: str, number: int) -> str:
    if value is None or value == "":
        return str(number)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise RowRefused(f"{where}: `id` is {kind_of(value)}, expected text or a number")
    return str(value)
