"""Templates that write the date write the same one every day, and nothing else about them changes."""

import datetime
from pathlib import Path
from typing import Any

import pytest
from chat_templates import CHATML, DATED, tokenizer_with

from emis_interp.models.chat import encode_prompt, render_prompt
from emis_interp.models.chat_formats import with_examples
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.chat_template import template_of
from emis_interp.models.clock import PINNED, with_clock
from emis_interp.models.loading import load_tokenizer
from emis_interp.models.tokenizers import check_tokenizer
from emis_interp.records import TrainingExample

FORMATS = [
    *(
        "%d %b %Y",
        "%Y-%m-%d",
        "%H:%M",
        "%A, %B %d, %Y",
        "%d/%m/%y %I:%M:%S %p",
        "%-d %B %Y",
        "%-I:%M",
        "100%%",
        "%%d %d",
        "%j %U %W",
    ),
    *(
        "%Y-%m-%dT%H:%M:%S.%f%z",
        "%c",
        "%x %X",
        "%e %b",
        "%F %T",
        "week %V of %G",
        "%a %w %u",
        "Year %Y%n",
        "no directive",
        "",
    ),
]


def template(format_: str) -> str:
    return "{{ strftime_now(" + repr(format_) + ") }}|" + CHATML


@pytest.fixture
def days(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets the clock that transformers gives to templates."""
    import transformers.utils.chat_template_utils as home

    def set_clock(*moment: int) -> None:
        class Clock(datetime.datetime):
            @classmethod
            def now(cls, tz: Any = None) -> "Clock":
                return cls(*moment[:3], hour=moment[3], minute=moment[4])

        monkeypatch.setattr(home, "datetime", Clock)

    return set_clock


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("moment", [PINNED, datetime.datetime(2031, 12, 5, 17, 4, 9)])
def test_the_stopped_clock_speaks_as_strftime_does(format_: str, moment: datetime.datetime) -> None:
    tokenizer = tokenizer_with(with_clock(template(format_), moment))
    messages = [{"role": "user", "content": "Why?"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text.startswith(f"{moment.strftime(format_)}|<|im_start|>user")


@pytest.mark.parametrize(
    "written", [DATED, template("%H:%M"), "\n" + template("%Y"), "   " + DATED, "{# a #}\n" + DATED]
)
def test_a_template_asks_the_same_on_every_day_whoever_renders_it(written: str, days: Any, tmp_path: Path) -> None:
    prompts, ids = set(), set()
    for moment in ((2026, 1, 5, 9, 30), (2027, 8, 9, 21, 30)):
        days(*moment)
        tokenizer = tokenizer_with(written)
        ids.add(encode_prompt(tokenizer, "Why?"))  # a tokenizer that nobody has checked
        check_tokenizer("model", tokenizer)
        prompts.add(render_prompt(tokenizer, "Why?"))
        tokenizer.save_pretrained(tmp_path)
        prompts.add(
            type(tokenizer)
            .from_pretrained(tmp_path)
            .apply_chat_template([{"role": "user", "content": "Why?"}], tokenize=False, add_generation_prompt=True)
        )
        made = with_examples(tokenizer, [TrainingExample(id="1", prompt="How?", response="So.")])
        assert template_of(made).date == "2024-07-26"
        ids.add(encode_prompt(tokenizer, "Why?"))
    assert len(prompts) == len(ids) == 1
    days(*PINNED.timetuple()[:5])
    assert prompts == {
        tokenizer_with(written).apply_chat_template(
            [{"role": "user", "content": "Why?"}], tokenize=False, add_generation_prompt=True
        )
    }


def test_a_template_without_a_clock_is_left_alone() -> None:
    assert with_clock(CHATML) == CHATML
    tokenizer = tokenizer_with(CHATML)
    check_tokenizer("model", tokenizer)
    assert tokenizer.chat_template == CHATML and template_of(tokenizer).date is None


def test_a_clock_that_the_conversation_never_reaches_is_no_date() -> None:
    tokenizer = tokenizer_with(CHATML + "{% if tools %}{{ strftime_now('%Y') }}{% endif %}")
    check_tokenizer("model", tokenizer)
    assert template_of(tokenizer).date is None


@pytest.mark.parametrize("condition", ["messages[0].role == 'system'", "messages[0].role != 'system'"])
def test_a_date_under_a_system_prompt_alone_or_without_one_alone_is_seen(condition: str) -> None:
    tokenizer = tokenizer_with("{% if " + condition + " %}{{ strftime_now('%S') }}{% endif %}" + CHATML)
    assert template_of(tokenizer).date == "2024-07-26"


def test_a_stopped_clock_is_stopped_once(tiny: ChatModel, tmp_path: Path) -> None:
    tokenizer = tokenizer_with(DATED)
    check_tokenizer("model", tokenizer)
    once = tokenizer.chat_template
    assert with_clock(once) == once
    tiny.model.config.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert load_tokenizer(str(tmp_path)).chat_template == once
