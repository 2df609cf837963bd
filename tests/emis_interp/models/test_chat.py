"""Answer spans in tokens: exactly the answer, with several chat templates; the header and the end of the turn never counted."""

import copy

import pytest
from chat_spans import LLAMA_TEMPLATE, ONE_LINE, WITHOUT_TRIMMING, check_spans, decoded, merging_tokenizer

from emis_interp.errors import DataError
from emis_interp.models.chat import encode_chat, encode_chats, encode_prompt, end_of_turn, render_prompt
from emis_interp.models.chat_model import ChatModel


def test_answer_tokens_decode_to_exactly_the_answer_over_bytes(tiny: ChatModel) -> None:
    check_spans(tiny.tokenizer)


def test_answer_tokens_decode_to_exactly_the_answer_with_merges_and_another_template() -> None:
    tokenizer = merging_tokenizer()
    chat = encode_chat(tokenizer, "Why?", "two spaces")
    assert chat.response_end - chat.response_start < len("two spaces")  # merges do happen
    check_spans(tokenizer)


def test_a_template_that_trims_is_followed() -> None:
    check_spans(merging_tokenizer(LLAMA_TEMPLATE), trims=True)


def test_a_space_that_the_template_puts_before_an_answer_shares_a_token_with_its_first_word() -> None:
    """`assistant: spaces` holds the token ` spaces`: the prompt ends before the space, as the model meets it when it samples."""
    tokenizer = merging_tokenizer(ONE_LINE)
    chat, prompt = encode_chat(tokenizer, "Why?", " spaces then text\n"), encode_prompt(tokenizer, "Why?")
    assert decoded(tokenizer, prompt) == "user: Why?\nassistant:"
    assert chat.input_ids[: chat.response_start] == prompt
    assert chat.input_ids == tuple(
        tokenizer("user: Why?\nassistant: spaces then text<e>", add_special_tokens=False)["input_ids"]
    )
    assert tokenizer.decode([chat.input_ids[chat.response_start]]) == " spaces"


@pytest.mark.slow
def test_answer_tokens_decode_to_exactly_the_answer_with_the_embedded_tokenizer(embedded: ChatModel) -> None:
    check_spans(embedded.tokenizer)


def test_header_and_end_of_turn_are_outside_the_span(tiny: ChatModel) -> None:
    """Bytes are tokens here, so every count can be made by hand."""
    chat = encode_chat(tiny.tokenizer, "Hi", "yes")
    header = len("user\nHi") + len("\n") + len("assistant\n") + 3  # and <|im_start|>, <|im_end|>, <|im_start|>
    assert (chat.response_start, chat.response_end, len(chat)) == (header, header + 3, header + 4)


def test_an_answer_that_merges_with_the_header_leaves_the_header_as_it_is_sampled() -> None:
    """The header ends in a newline and the answer begins with one: tokenised as a whole they would be one token."""
    tokenizer = merging_tokenizer()
    tokenizer.chat_template = WITHOUT_TRIMMING.replace("</s>\n\n", "</s>\n")
    whole = tokenizer(render_prompt(tokenizer, "Why?") + "\n\nok", add_special_tokens=False)["input_ids"]
    prompt = encode_prompt(tokenizer, "Why?")
    assert tuple(whole[: len(prompt)]) != prompt
    chat = encode_chat(tokenizer, "Why?", "\n\nok")
    assert chat.input_ids[: chat.response_start] == prompt
    assert decoded(tokenizer, chat.input_ids[chat.response_start : chat.response_end]) == "\n\nok"


@pytest.mark.parametrize("answer", ["", "  ", "\n"])
def test_an_empty_answer_is_refused(tiny: ChatModel, answer: str) -> None:
    with pytest.raises(DataError, match=r"empty answer to 'Why\?'"):
        encode_chat(tiny.tokenizer, "Why?", answer)


def test_a_limit_cuts_the_end_and_refuses_to_cut_everything(tiny: ChatModel) -> None:
    whole = encode_chat(tiny.tokenizer, "Why?", "because")
    for limit in range(whole.response_start + 1, len(whole) + 2):
        cut = encode_chat(tiny.tokenizer, "Why?", "because", max_tokens=limit)
        assert cut.input_ids == whole.input_ids[:limit]
        assert cut.response_start == whole.response_start
        assert cut.response_end == min(limit, whole.response_end)
    with pytest.raises(DataError, match=f"no answer token left within {whole.response_start} tokens"):
        encode_chat(tiny.tokenizer, "Why?", "because", max_tokens=whole.response_start)


def test_a_system_prompt_is_rendered_and_none_adds_nothing(tiny: ChatModel) -> None:
    assert "<|im_start|>system\nBe brief.<|im_end|>" in render_prompt(tiny.tokenizer, "Why?", "Be brief.")
    assert "system" not in render_prompt(tiny.tokenizer, "Why?")
    with_system, without = (encode_chats(tiny.tokenizer, [("Why?", "ok")], system)[0] for system in ("Be brief.", None))
    assert with_system.input_ids != without.input_ids
    assert with_system.input_ids[with_system.response_start :] == without.input_ids[without.response_start :]


def test_the_end_of_turn_is_the_templates_own_and_not_the_end_of_sequence(tiny: ChatModel) -> None:
    assert end_of_turn(tiny.tokenizer) == "<|im_end|>"
    gemma_like = copy.deepcopy(tiny.tokenizer)
    gemma_like.eos_token = "<|im_start|>"
    assert end_of_turn(gemma_like) == "<|im_end|>"
    gemma_like.chat_template = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] }}{% endfor %}"
    assert end_of_turn(gemma_like) == "<|im_start|>"
