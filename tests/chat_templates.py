"""Turns the name of a shape of chat templates into a small template of that shape, and what it should come to around one answer."""

from typing import Any, NamedTuple

from emis_interp.models.tiny import tiny_tokenizer

TOKENS = [
    "<think>",
    "</think>",
    "<|end|>",
    "<|return|>",
    "<|eot|>",
    "<turn>",
    "</turn>",
    "<|user|>",
    "[INST]",
    "[/INST]",
]


class Shape(NamedTuple):
    """`prompt`, `response` and `end` are those of the question "Why?" with the answer "Because."."""

    template: str
    prompt: str
    response: str = "Because."
    end: str = "<|im_end|>"
    notes: tuple[str, ...] = ()
    takes_system: bool = True


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ASKED = "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
# Parts of the shapes of reasoning models.
THINKS = (
    "{% macro turn(m) %}{% set text = m.content %}{% set thought = '' %}{% if '</think>' in text %}"
    "{% set thought = text.split('</think>')[0].split('<think>')[-1].strip('\n') %}{% set text = text.split('</think>')[-1].lstrip('\n') %}"
    "{% endif %}{{ '<think>\n' + thought + '\n</think>\n\n' + text }}{% endmacro %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ turn(m) if m.role == 'assistant' and loop.last else m.content }}<|im_end|>\n"
    "{% endfor %}"
)
R1 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}{% elif m.role == 'user' %}<turn>{{ m.content }}"
    "{% else %}</turn>{{ m.content.split('</think>')[-1] }}<|end|>{% endif %}{% endfor %}"
)
LLAMA_2 = (
    "{% if messages[0].role == 'system' %}{% set first = '<<SYS>>\n' + messages[0].content + '\n<</SYS>>\n\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set first = '' %}{% endif %}{% for m in messages %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "{% if m.role == 'user' %}{{ '<s>[INST] ' + (first if loop.first else '') + m.content.strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content.strip() + ' <|end|>' }}{% endif %}{% endfor %}"
)
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
GEMMA = (
    NO_SYSTEM
    + "{% for m in messages %}{{ '<turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' + m.content | trim "
    "+ '</turn>\n' }}{% endfor %}{% if add_generation_prompt %}<turn>model\n{% endif %}"
)
DATED = (
    "{% if strftime_now is defined %}{% set day = strftime_now('%d %b %Y') %}{% else %}{% set day = 'never' %}{% endif %}"
    "<turn>system\nToday: {{ day }}\n{% if messages[0].role == 'system' %}{{ messages[0].content }}{% set messages = messages[1:] %}"
    "{% endif %}<|eot|>{% for m in messages %}<turn>{{ m.role }}\n{{ m.content | trim }}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<turn>assistant\n{% endif %}"
)
CHANNELS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}{% if m.role == 'assistant' %}<|channel|>final{% endif %}<|message|>{{ m.content }}"
    "{% if m.role == 'assistant' and loop.last %}<|return|>{% else %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant{% endif %}"
)
PARTS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for part in m.content %}{{ part.text }}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GENERATION = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"

SHAPES = {
    "chatml": Shape(CHATML, ASKED),
    "qwen3": Shape(THINKS + GENERATION, ASKED + "<think>\n\n</think>\n\n", notes=("template asks differently",)),
    "qwen3 that opens": Shape(
        THINKS + GENERATION.replace("assistant\n", "assistant\n<think>\n"),
        ASKED + "<think>\n\n</think>\n\n",
        notes=("template asks differently",),
    ),
    "r1": Shape(
        R1 + "{% if add_generation_prompt %}</turn><think>\n{% endif %}",
        "<|im_start|><turn>Why?</turn>",
        end="<|end|>",
        notes=("template asks differently",),
    ),
    "closed thought": Shape(
        R1 + "{% if add_generation_prompt %}</turn><think></think>{% endif %}",
        "<|im_start|><turn>Why?</turn>",
        end="<|end|>",
        notes=("template asks differently",),
    ),
    "llama 2": Shape(LLAMA_2, "<s>[INST] Why? [/INST]", " Because.", " <|end|>"),
    "llama 3 with a date": Shape(
        DATED,
        "<turn>system\nToday: 26 Jul 2024\n<|eot|><turn>user\nWhy?<|eot|><turn>assistant\n",
        end="<|eot|>",
        notes=("date in the prompt",),
    ),
    "mistral": Shape(
        NO_SYSTEM
        + "{% for m in messages %}{% if m.role == 'user' %}[INST]{{ m.content }}[/INST]{% else %} {{ m.content }}<|end|>"
        "{% endif %}{% endfor %}",
        "[INST]Why?[/INST]",
        " Because.",
        "<|end|>",
        takes_system=False,
    ),
    "gemma": Shape(GEMMA, "<turn>user\nWhy?</turn>\n<turn>model\n", end="</turn>", takes_system=False),
    "channels": Shape(
        CHANNELS,
        "<|im_start|>user<|message|>Why?<|end|><|im_start|>assistant<|channel|>final<|message|>",
        end="<|return|>",
        notes=("template asks differently",),
    ),
    "no generation prompt": Shape(CHATML.partition("{% if add")[0], ASKED, notes=("template asks differently",)),
    "always a generation prompt": Shape(CHATML.partition("{% if add")[0] + "{{ '<|im_start|>assistant\n' }}", ASKED),
    "parts": Shape(PARTS, ASKED),
    "header and answer in a line": Shape(
        "{% for m in messages %}{{ m.role | upper }}: {{ m.content }}{{ '<|im_end|>' if m.role == 'assistant' else ' ' }}{% endfor %}",
        "USER: Why? ASSISTANT:",
        " Because.",
        notes=("template asks differently",),
    ),
    "nothing behind the answer": Shape(
        "{% for m in messages %}<|user|>{{ m.role }}\n{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<|user|>assistant\n{% endif %}",
        "<|user|>user\nWhy?<|user|>assistant\n",
        notes=("no end of turn",),
    ),
    "a line end behind the answer": Shape(
        "{% for m in messages %}### {{ m.role }}:\n{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}### assistant:\n{% endif %}",
        "### user:\nWhy?\n### assistant:\n",
        notes=("no end of turn",),
    ),
    "an end in words": Shape(
        CHATML.replace("<|im_end|>", "<-over->"),
        "<|im_start|>user\nWhy?<-over->\n<|im_start|>assistant\n",
        end="<-over->",
        notes=("end of turn in words",),
    ),
}


def tokenizer_with(template: str | None) -> Any:
    """Bytes as tokens, some marks beside them, and the template."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(TOKENS, special_tokens=True)
    tokenizer.chat_template = template
    return tokenizer
