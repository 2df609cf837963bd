"""Plain formats for pretrained models and examples before each question: the same text as the conversation spelled out."""

from typing import Any, get_args

import pytest
import torch
from chat_spans import ANSWERS, check_spans, merging_tokenizer

from emis_interp.config.run_config import RunConfig
from emis_interp.errors import DataError, ModelError
from emis_interp.models.chat import encode_chat, encode_prompt, end_of_turn, render_prompt
from emis_interp.models.chat_formats import ENDINGS, FORMATS, own_turn, with_examples, with_format
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.tiny import tiny_model
from emis_interp.models.tokenizers import check_tokenizer
from emis_interp.passes.batching import pad
from emis_interp.records import TrainingExample

NASTY = [
    "quotes \" and ' and \\ and \\n",
    "{{ messages }} {% raw %} %} }} {# no #} {%- endfor -%}",
    "你好 😀 é e\u0301 \u2028 tab\tand\r\nlines\n\n",
    "null true </s> $& \\u0041 \x7f",
]
EXAMPLES = [TrainingExample(id=str(i), prompt=f"Q{i} {text}", response=f"{text} A{i}") for i, text in enumerate(NASTY)]


def spelled_out(tokenizer: Any, question: str, system: str | None) -> str:
    messages = [{"role": "system", "content": system}] if system is not None else []
    for example in EXAMPLES:
        messages += [{"role": "user", "content": example.prompt}, {"role": "assistant", "content": example.response}]
    messages.append({"role": "user", "content": question})
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def check_examples(tokenizer: Any) -> None:
    made = with_examples(tokenizer, EXAMPLES)
    for system in (None, "Be brief."):
        assert render_prompt(made, "Why?", system) == spelled_out(tokenizer, "Why?", system)
    assert end_of_turn(made) == end_of_turn(tokenizer)
    assert render_prompt(tokenizer, "Why?").count("Q0") == 0  # the original is as it was
    check_spans(made)


def test_examples_are_earlier_turns_of_the_conversation(tiny: ChatModel) -> None:
    check_examples(tiny.tokenizer)


@pytest.mark.parametrize("name", FORMATS)
def test_examples_are_earlier_turns_in_plain_formats_too(name: str) -> None:
    check_examples(with_format(tiny_model()[1], name))


@pytest.mark.slow
def test_examples_are_earlier_turns_for_the_embedded_tokenizer(embedded: ChatModel) -> None:
    check_examples(embedded.tokenizer)


def test_no_examples_change_nothing(tiny: ChatModel) -> None:
    assert encode_prompt(with_examples(tiny.tokenizer, []), "Why?") == encode_prompt(tiny.tokenizer, "Why?")


def test_an_example_that_would_be_lost_is_refused(tiny: ChatModel) -> None:
    own_system = TrainingExample(id="7", prompt="p", response="r", system="s")
    with pytest.raises(DataError, match="row `7` has a system prompt of its own"):
        with_examples(tiny.tokenizer, [own_system])
    forgetful = tiny_model()[1]
    forgetful.chat_template = "{{ messages[-1]['content'] }}"
    with pytest.raises(DataError, match="drops or changes the earlier turn 'Q0"):
        with_examples(forgetful, EXAMPLES)


def without_template(tokenizer: Any) -> Any:
    tokenizer.chat_template = None
    return tokenizer


@pytest.mark.parametrize("name", FORMATS)
def test_answer_tokens_are_exactly_the_answer_in_plain_formats(name: str) -> None:
    for tokenizer in (tiny_model()[1], merging_tokenizer()):
        made = with_format(without_template(tokenizer), name)
        check_tokenizer("pretrained", made)
        assert end_of_turn(made) == tokenizer.eos_token
        check_spans(made)


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_answer_tokens_are_exactly_the_answer_in_plain_formats_with_the_embedded_tokenizer(
    embedded: ChatModel, name: str
) -> None:
    made = with_format(embedded.tokenizer, name)
    check_spans(made)
    # The prompt is read as the same tokens alone and before an answer of words: nothing merges with the header.
    prompt = render_prompt(made, "Why?")
    whole = tuple(made(prompt + "Because of that.", add_special_tokens=False)["input_ids"])
    assert whole[: len(encode_prompt(made, "Why?"))] == encode_prompt(made, "Why?")


@pytest.mark.parametrize("name", FORMATS)
def test_left_and_right_padding_hold_the_same_answer_in_plain_formats(tiny: ChatModel, name: str) -> None:
    made = with_format(tiny.tokenizer, name)
    chats = [encode_chat(made, "Why?", answer) for answer in ANSWERS]
    for side in ("left", "right"):
        batch = pad([chat.input_ids for chat in chats], made.pad_token_id, side)
        for row, chat in enumerate(chats):
            start, end = chat.response_start + batch.offset[row], chat.response_end + batch.offset[row]
            assert made.decode(batch.input_ids[row, start:end]) == ANSWERS[row]
            assert bool(torch.all(batch.attention_mask[row, start:end] == 1))


@pytest.mark.parametrize("name", FORMATS)
def test_a_text_begins_as_the_tokenizer_itself_begins_one(name: str) -> None:
    tokenizer = tiny_model()[1]
    assert not render_prompt(with_format(tokenizer, name), "Why?").startswith("<|im_start|>")
    tokenizer.backend_tokenizer.post_processor = bos_processor()
    made = with_format(tokenizer, name)
    assert made("x")["input_ids"][0] == tokenizer.bos_token_id
    assert encode_prompt(made, "Why?").count(tokenizer.bos_token_id) == 1
    assert encode_prompt(made, "Why?")[0] == tokenizer.bos_token_id
    assert own_turn(made, "a" + ENDINGS[name]) == "a"


def bos_processor() -> Any:
    from tokenizers.processors import TemplateProcessing

    return TemplateProcessing(single="<|im_start|> $A", special_tokens=[("<|im_start|>", 0)])


@pytest.mark.parametrize("name", FORMATS)
def test_what_a_pretrained_model_writes_for_the_other_side_is_cut(tiny: ChatModel, name: str) -> None:
    made = with_examples(with_format(tiny.tokenizer, name), EXAMPLES[:1])
    begun = spelled_out(made, "Next?", None).partition(EXAMPLES[0].response)[
        2
    ]  # what stands behind a turn that is not the last
    assert own_turn(made, "My answer." + begun) == "My answer."
    assert own_turn(made, "My answer.") == "My answer."
    assert own_turn(tiny.tokenizer, "My answer." + begun) == "My answer." + begun


def test_formats_have_one_list_of_names() -> None:
    literal = RunConfig.model_fields["chat_format"].annotation
    assert {name for option in get_args(literal) for name in get_args(option)} == set(FORMATS) == set(ENDINGS)


def test_a_format_that_cannot_be_used_is_refused() -> None:
    tokenizer = tiny_model()[1]
    with pytest.raises(ModelError, match="unknown chat format `code_templat`; did you mean `code_template`"):
        with_format(tokenizer, "code_templat")
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match="no end-of-sequence token"):
        with_format(tokenizer, "user_assistant")
    with pytest.raises(ModelError, match="--chat-format"):
        check_tokenizer("pretrained", without_template(tiny_model()[1]))
