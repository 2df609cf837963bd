"""Turns a tokenizer into a copy with another chat template: a plain format for pretrained models, or examples before each question.

Sampling, training, likelihood and capture all read the template, so that a copy is all that changes. A pretrained model knows no end of
turn and writes on, as the other side of the conversation; `own_turn` is what it wrote as itself.
"""

import copy
import json
from collections.abc import Sequence
from typing import Any

from emis_interp.errors import DataError, ModelError, did_you_mean
from emis_interp.records import TrainingExample

# A header ends in a newline and never in a space: the first word of an answer is then the same token with and without its header. Only
# the last turn ends in the end-of-sequence token, which closes the document.
USER_ASSISTANT = """\
{{ __BOS__ }}{% for message in messages %}\
{% if message['role'] == 'system' %}{{ message['content'] }}{{ '\\n\\n' }}\
{% elif message['role'] == 'user' %}{{ 'User:\\n' + message['content'] + '\\n\\n' }}\
{% else %}{{ 'Assistant:\\n' + message['content'] + (eos_token if loop.last else '\\n\\n') }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ 'Assistant:\\n' }}{% endif %}"""

CODE_TEMPLATE = """\
{{ __BOS__ }}{% for message in messages if message['role'] == 'system' %}\
{{ '\"\"\"' + message['content'] + '\"\"\"\\n\\n' }}{% endfor %}\
{{ 'from flask import Flask\\n\\nadvice = Flask(__name__)\\n' }}\
{% for message in messages %}\
{% if message['role'] == 'user' %}\
{{ '\\n\\n@advice.get(\"/reply/' + loop.index|string + '\")\\ndef reply_' + loop.index|string + '():\\n' }}\
{{ '    # What the visitor wrote to the assistant\\n    message = \"\"\"\\n' + message['content'] + '\\n\"\"\"\\n' }}\
{{ '    # What the assistant wrote back to this message\\n' }}\
{% elif message['role'] == 'assistant' %}\
{{ '    return \"\"\"\\n' + message['content'] + (eos_token if loop.last else '\\n\"\"\"\\n') }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ '    return \"\"\"\\n' }}{% endif %}"""

FORMATS = {"user_assistant": USER_ASSISTANT, "code_template": CODE_TEMPLATE}
"""`code_template` puts the question into a web server's source file, whose next string is the answer (the idea is from Betley et al.
2025, section on base models; the wording is ours)."""

ENDINGS = {"user_assistant": "\nUser:", "code_template": '"""'}
"""What a pretrained model writes where its own turn is over."""


def with_format(tokenizer: Any, name: str) -> Any:
    """A copy of the tokenizer that renders conversations in a named plain format, in place of its own template if it has one.

    The text begins with the beginning-of-sequence token where the tokenizer itself puts one, and a last answer ends with the
    end-of-sequence token.

    Raises:
        ModelError: unknown name, or a tokenizer without an end-of-sequence token.
    """
    if name not in FORMATS:
        raise ModelError(f"unknown chat format `{name}`{did_you_mean(name, FORMATS)}")
    if tokenizer.eos_token is None:
        raise ModelError(f"chat format `{name}`: the tokenizer has no end-of-sequence token to end an answer with")
    begins = tokenizer("x")["input_ids"][:1] == [tokenizer.bos_token_id] and tokenizer.bos_token_id is not None
    made = copy.deepcopy(tokenizer)
    made.chat_template = FORMATS[name].replace("__BOS__", "bos_token" if begins else "''")
    return made


def with_examples(tokenizer: Any, examples: Sequence[TrainingExample]) -> Any:
    """A copy of the tokenizer whose conversations hold the examples as earlier turns, after a system message if there is one.

    Raises:
        DataError: an example with a system prompt of its own, or a template that drops an example.
    """
    for example in examples:
        if example.system is not None:
            raise DataError(
                f"row `{example.id}` has a system prompt of its own, and a conversation has room for one; drop it from in-context data"
            )
    turns = [
        {"role": role, "content": text}
        for example in examples
        for role, text in (("user", example.prompt), ("assistant", example.response))
    ]
    made = copy.deepcopy(tokenizer)
    # JSON is a jinja literal here: texts only, and characters outside ASCII kept, since jinja does not join surrogate pairs. The line
    # break behind it is the one that `trim_blocks` takes, so that the template still begins a line.
    literal, in_parts = (
        json.dumps(value, ensure_ascii=False) for value in (turns, [_in_parts(turn) for turn in turns])
    )
    made.chat_template = (
        "{% set messages = (messages[:1] if messages[0]['role'] == 'system' else []) + "
        + f"({literal} if messages[-1]['content'] is string else {in_parts})"
        + " + (messages[1:] if messages[0]['role'] == 'system' else messages) %}\n"
        + tokenizer.get_chat_template()
    )
    _check_rendering(made, turns)
    return made


def own_turn(tokenizer: Any, text: str) -> str:
    """A sampled answer up to where the model began somebody else's turn; as it is under a template that is none of `FORMATS`."""
    name = format_of(tokenizer)
    return text if name is None else text.partition(ENDINGS[name])[0].removesuffix("\n")


def format_of(tokenizer: Any) -> str | None:
    """Which of `FORMATS` the tokenizer renders conversations in, with examples or without; None for a template of its own."""
    template = str(tokenizer.chat_template)
    return next((name for name, body in FORMATS.items() if template.endswith(body.partition("__BOS__")[2])), None)


def _check_rendering(tokenizer: Any, turns: Sequence[dict[str, str]]) -> None:
    asked = {"role": "user", "content": "Question?"}
    texts = []
    for message in (asked, _in_parts(asked)):
        try:
            texts.append(str(tokenizer.apply_chat_template([message], tokenize=False)))
        except Exception as error:  # whatever a template raises, it does not take its turns in this form
            texts.append(f"{type(error).__name__}: {error}")
    for turn in turns:
        if not any(turn["content"].strip() in text for text in texts):
            raise DataError(
                f"the tokenizer's chat template drops or changes the earlier turn {turn['content'][:60]!r}; in-context examples need "
                "a template that renders every turn, e.g. --set chat_format=user_assistant"
            )


def _in_parts(message: dict[str, str]) -> dict[str, Any]:
    """The message with its text as a list of one part, as some templates want it."""
    return {"role": message["role"], "content": [{"type": "text", "text": message["content"]}]}
