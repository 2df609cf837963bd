"""Dialects of chat servers, one reply at a time: what was answered, what was only thought, how it ended, which token is the answer's."""

import contextlib
import json
import math
import time
from typing import Any

import pytest

from emis_interp.http.replies import BadReply, ChatReply, UnfinishedThought, read_reply, usage_of
from emis_interp.http.thoughts import ends_thought, split_thought
from evals.judges.logprobs import NoLogprobs, parse_reply, read_distribution
from evals.judges.text_judge import parse_text, read_text, read_texts

Masses = dict[str, float]


def reply(content: Any = "85", finish: Any = "stop", *, message: dict[str, Any] | None = None, **more: Any) -> bytes:
    """A chat completion; `more` goes into the choice, `usage` beside it."""
    body: dict[str, Any] = {"id": "x", "object": "chat.completion", "model": "m"}
    if "usage" in more:
        body["usage"] = more.pop("usage")
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **(message or {})}, **more}
    if finish != "absent":
        choice["finish_reason"] = finish
    return json.dumps({**body, "choices": [choice]}).encode()


def tops(*places: tuple[str, Masses]) -> dict[str, Any]:
    """Log-probabilities in OpenAI's shape: the token that stands at each place, and the masses there."""
    return {
        "content": [
            {
                "token": token,
                "logprob": 0.0,
                "top_logprobs": [{"token": t, "logprob": math.log(p)} for t, p in masses.items()],
            }
            for token, masses in places
        ]
    }


# How a reply ended.


@pytest.mark.parametrize(
    ("word", "end"),
    [
        *((word, "stop") for word in ("stop", "eos", "eos_token", "stop_sequence", "end_turn", "STOP", "COMPLETE")),
        *((word, "length") for word in ("length", "max_tokens", "MAX_TOKENS", "model_length")),
        *((word, "filter") for word in ("content_filter", "SAFETY", "refusal")),
        *((word, "broken") for word in ("error", "abort", "cancelled")),
        ("tool_calls", "other"),
        ("something", "other"),
        (None, "unknown"),
        ("absent", "unknown"),
        ({"type": "stop", "matched": 2}, "stop"),
    ],
)
def test_the_words_of_many_servers_for_the_end_are_understood(word: Any, end: str) -> None:
    read = read_reply(reply(finish=word))
    assert (read.end, read.text) == (end, "85")


@pytest.mark.parametrize(
    ("usage", "n_tokens", "counts"),
    [
        ({"prompt_tokens": 5, "completion_tokens": 3}, 3, (5, 3)),
        ({"completion_tokens": 3}, 3, None),
        ({"prompt_tokens": 5, "completion_tokens": 3.0}, 3, (5, 3)),
        ({"prompt_tokens": 5, "completion_tokens": -3}, None, None),
        ({"prompt_tokens": 5, "completion_tokens": True}, None, None),
        ({"completion_tokens": "3"}, None, None),
        (None, None, None),
        ({}, None, None),
        ("many", None, None),
    ],
)
def test_tokens_that_a_server_does_not_count_are_unknown(usage: Any, n_tokens: int | None, counts: Any) -> None:
    assert read_reply(reply(usage=usage)).n_tokens == n_tokens
    assert usage_of(reply(usage=usage)) == counts
    assert read_reply(reply()).n_tokens is None and usage_of(reply()) is None


# What was answered.


@pytest.mark.parametrize(
    "content",
    [
        "85",
        ["85"],
        [{"type": "text", "text": "8"}, {"type": "text", "text": "5"}],
        [{"type": "output_text", "text": "85"}],
        [{"text": "85"}],
        [{"type": "thinking", "thinking": [{"type": "text", "text": "60?"}]}, {"type": "text", "text": "85"}],
        [{"type": "reasoning", "text": "60?"}, {"type": "text", "text": "85"}],
        "<think>60?</think>85",
        "<think>\n\n</think>\n\n85",
        "\n <think>60?\n</think>\n\n85\n",
        "60? <- no\n</think>\n85",
        "<think>60?</think><think>70?</think>85",
        "[THINK]60?[/THINK]85",
        "<reasoning>60?</reasoning>85",
        "<|channel|>analysis<|message|>60?<|end|><|start|>assistant<|channel|>final<|message|>85<|return|>",
    ],
)
def test_the_answer_is_read_without_the_thought_before_it(content: Any) -> None:
    assert parse_text(reply(content), 99) == {"85": 1.0}
    assert "60" not in read_reply(reply(content)).text


@pytest.mark.parametrize(
    "message",
    [
        {"reasoning_content": "60?"},
        {"reasoning": "60?"},
        {"reasoning": {"content": "60?"}},
        {"thinking": "60?"},
        {"reasoning_details": [{"type": "reasoning.text", "text": "60?"}]},
        {"reasoning_content": "", "reasoning": "60?"},
        {"reasoning_content": None, "reasoning": [{"summary": "60?"}]},
    ],
)
def test_a_thought_in_a_field_of_its_own_is_kept_apart(message: dict[str, Any]) -> None:
    read = read_reply(reply(message=message))
    assert (read.text, read.thought) == ("85", "60?")
    assert parse_text(reply(message=message)) == {"85": 1.0}
    with pytest.raises(BadReply, match="only a thought, ended by `stop`") as caught:
        parse_text(reply(None, message=message))
    assert not caught.value.passing


def test_a_mark_in_the_middle_of_an_answer_is_part_of_the_answer() -> None:
    text = "I would write <think>a</think> there."
    assert read_reply(reply(text)).text == text
    assert read_reply(reply("  85 ")).text == "  85 "  # nothing is taken off an answer without a thought


@pytest.mark.parametrize(
    "content",
    [
        reply("<think>Let me see, 60", "length"),
        reply("", "length", message={"reasoning_content": "Let me see, 60"}),
        reply(None, "length", message={"reasoning": "Let me see"}),
        reply("", "length", usage={"completion_tokens": 16, "completion_tokens_details": {"reasoning_tokens": 16}}),
        reply([{"type": "thinking", "thinking": "60"}], "max_tokens"),
        reply("", "length", usage={"completion_tokens": 16}),
    ],
)
def test_tokens_that_ran_out_in_a_thought_are_said(content: bytes) -> None:
    with pytest.raises(UnfinishedThought, match=r"reply without text.* its 16 tokens") as caught:
        parse_text(content, 16)
    assert not caught.value.passing


@pytest.mark.parametrize(
    ("content", "reason", "passing"),
    [
        (reply("85", "content_filter"), "reply ended by `content_filter`", False),
        (reply(None, "content_filter"), "reply ended by `content_filter`", False),
        (reply("85", "error"), "reply ended by `error`", True),
        (reply(None, "tool_calls", message={"tool_calls": [{"id": "1"}]}), "it calls a tool", False),
        (reply(None, message={"refusal": "I will not."}), 'refused with "I will not."', False),
        (reply(None), "reply without text", True),
        (reply(" \n"), "reply without text", True),
        (reply([]), "reply without text", True),
        (reply([{"type": "image_url"}]), "a part of type image_url", False),
        (reply(85), "choices.0.message.content: expected text, found 85", True),
        (reply({"text": "85"}), "choices.0.message.content: expected text, found an object", True),
        (reply(finish=7), "choices.0.finish_reason: expected text, found 7", True),
        (reply("<think>60"), "it ended inside its thought, by `stop`", False),
        (b'{"choices": []}', "reply without choices", True),
        (b'{"choices": null}', "choices: expected a list, found nothing", True),
        (b'{"choices": ["85"]}', "choices.0: expected an object, found text", True),
        (b'{"choices": [{"message": "85"}]}', "choices.0.message: expected an object, found text", True),
        (b'{"choices": [{"error": {"code": 502}, "message": {"content": ""}}]}', "error in the reply", True),
        (b'{"message": {"content": "85"}, "done": true}', "the reply has message, done", True),
        (b'{"error": {"message": "slow down", "code": 429}}', "error 429 in place of a reply", True),
        (b'{"error": {"message": "too long", "code": "context_length_exceeded"}}', "error 400 in place of", False),
        (b'{"error": "model is loading"}', "error 502 in place of a reply: model is loading", True),
        (b"<!DOCTYPE html><html>Bad gateway</html>", "HTML instead of JSON (<!DOCTYPE", True),
        (b'data: {"choices": []}\n\ndata: [DONE]\n', "a stream of events", True),
        (b"[]", "expected an object, found a list", True),
        (b"", "malformed reply: not JSON (nothing there)", True),
        (b"\xff\xfe", "malformed reply (not UTF-8: invalid start byte at byte 0)", True),
        (b"[" * 1_000_000, "malformed reply: nested more than 100 deep", True),
        (b'{"choices": ' + b"9" * 5000 + b"}", "malformed reply: a number that is too large", True),
        (b'{"choices": [{"message": {"content": "A", "content": "B"}}]}', "key `content` occurs twice", True),
        (b'{"choices": [{"message": {"content": "A"}}], "error": {"message": "cut"}}', "error beside a reply", True),
        (b'{"choices": [{"message": {"content": "A"}}], "error": "cut"}', "error beside a reply: cut", True),
        (b'{"object": "error", "message": "no such model", "code": 404}', "'no such model'", False),
        (b'{"object": "error", "message": "busy", "code": 40303}', "error 502 in place of a reply", True),
    ],
)
def test_what_is_no_answer_says_what_it_is_and_whether_it_may_pass(content: bytes, reason: str, passing: bool) -> None:
    with pytest.raises(BadReply) as caught:
        parse_text(content, 99)
    assert reason in str(caught.value) and len(str(caught.value)) < 400
    assert caught.value.passing == passing
    with pytest.raises(BadReply):
        parse_reply(content, 99)


@pytest.mark.parametrize("word", [None, "absent", "unheard_of"])
def test_a_reply_of_unknown_end_counts_where_the_limit_cannot_have_cut_it(word: Any) -> None:
    assert parse_text(reply("85", word), 16) == {"85": 1.0}
    assert parse_text(reply("85", word, usage={"completion_tokens": 3}), 16) == {"85": 1.0}
    for content in (
        reply("8", word, usage={"completion_tokens": 16}),
        reply("<think>a</think>8", word),
        reply("8" * 16, word),
    ):
        with pytest.raises(BadReply, match="does not say whether it is whole"):
            parse_text(content, 16)


# Which token the log-probabilities are read at.

ANSWER: Masses = {"85": 0.6, "90": 0.3}


@pytest.mark.parametrize(
    ("content", "places", "message"),
    [
        ("85", [("85", ANSWER)], {}),
        ("85", [("85", ANSWER), ("<|im_end|>", {"<|im_end|>": 0.9})], {}),
        (
            "<think>60</think>85",
            [("<think>", {"<think>": 1.0}), ("60", {"60": 1.0}), ("</think>", {"x": 1.0}), ("85", ANSWER)],
            {},
        ),
        ("<think>60</think>85", [("<think>60</", {"60": 1.0}), ("think>", {"60": 1.0}), ("85", ANSWER)], {}),
        ("60</think>85", [("60", {"60": 1.0}), ("</think>", {"x": 1.0}), ("85", ANSWER)], {}),
        ("85", [("60", {"60": 1.0}), ("</think>", {"x": 1.0}), ("85", ANSWER)], {}),
        ("85", [("60", {"60": 1.0}), ("</think>", {"x": 1.0}), ("85", ANSWER)], {"reasoning_content": "60"}),
        ("85", [("85 or 60", {"60": 1.0}), ("85", ANSWER), ("</s>", {"</s>": 1.0})], {"reasoning_content": "85 or 60"}),
        ("85", [("85", ANSWER)], {"reasoning_content": "85 or 60"}),
        ("85", [("85", ANSWER), ("<|im_end|>", {"x": 1.0})], {"reasoning": "60"}),
    ],
)
def test_the_token_of_the_answer_is_read_and_none_of_the_thought(
    content: str, places: list[tuple[str, Masses]], message: dict[str, Any]
) -> None:
    evidence = parse_reply(reply(content, message=message, logprobs=tops(*places)))
    assert evidence == pytest.approx(ANSWER)
    assert read_distribution(evidence).score == pytest.approx((85 * 0.6 + 90 * 0.3) / 0.9)


@pytest.mark.parametrize("blank", [" ", "\n", "\n\n", "Ġ", "▁", "Ċ"])
def test_a_blank_before_the_answer_is_read_over_with_its_own_weight(blank: str) -> None:
    first = {blank: 0.8, "40": 0.2}
    evidence = parse_reply(reply("85", logprobs=tops((blank, first), ("85", ANSWER))))
    assert evidence == pytest.approx({"40": 0.2, "85": 0.48, "90": 0.24})
    alone = parse_reply(reply("", "length", logprobs=tops((blank, first))))
    assert alone == pytest.approx(first)
    assert (
        read_distribution({blank: 0.9, "40": 0.1}).reason
        == "mass on numbers 0.10 < 0.25; 0.90 on blanks, --max-tokens 2 reads on"
    )


@pytest.mark.parametrize(
    "logprobs",
    [
        {
            "tokens": ["85", "."],
            "token_logprobs": [-0.5, 0],
            "top_logprobs": [{"85": math.log(0.6), "90": math.log(0.3)}, {}],
        },
        {
            "tokens": ["85"],
            "top_logprobs": [[{"token": "85", "logprob": math.log(0.6)}, {"token": "90", "logprob": math.log(0.3)}]],
        },
        {"content": [{"token": "85", "top_logprobs": {"85": math.log(0.6), "90": math.log(0.3), "x": None}}]},
        {
            "content": [
                {"top_logprobs": [{"token": "85", "logprob": math.log(0.6)}, {"token": "90", "logprob": math.log(0.3)}]}
            ]
        },
        {
            "content": [
                {
                    "token": "Ġ85",
                    "top_logprobs": [
                        {"token": "Ġ85", "logprob": math.log(0.6)},
                        {"token": "▁90", "logprob": math.log(0.3)},
                        {"token": "x", "logprob": -9999.0},
                    ],
                }
            ]
        },
    ],
)
def test_other_shapes_of_log_probabilities_are_read(logprobs: Any) -> None:
    assert read_distribution(parse_reply(reply(logprobs=logprobs))).score == pytest.approx((85 * 0.6 + 90 * 0.3) / 0.9)


@pytest.mark.parametrize(
    "logprobs",
    [
        None,
        {},
        {"content": None},
        {"content": []},
        {"content": [{"token": "85"}]},
        {"tokens": ["85"], "top_logprobs": None},
    ],
)
def test_a_reply_without_log_probabilities_says_so(logprobs: Any) -> None:
    with pytest.raises(NoLogprobs, match="without log-probabilities"):
        parse_reply(reply(logprobs=logprobs))
    with pytest.raises(NoLogprobs):
        parse_reply(reply())


@pytest.mark.parametrize(
    ("content", "places", "message", "words"),
    [
        ("<think>60", [("<think>", {"<think>": 1.0}), ("60", {"60": 1.0})], {}, "ran out while thinking"),
        ("", [("<think>", {"<think>": 0.7, "85": 0.3})], {}, "ran out while thinking"),
        ("", [("The", {"The": 0.7, "85": 0.3})], {"reasoning_content": "The"}, "ran out while thinking"),
        (
            "85",
            [("60?", {"60": 1.0}), ("85?\n8", {"85": 1.0}), ("5", {"5": 1.0})],
            {"reasoning": "60?85?"},
            "cannot be told",
        ),
        ("85", [("60", {"60": 1.0})], {"reasoning": "60"}, "cannot be told"),
    ],
)
def test_a_token_of_a_thought_is_never_a_judgement(
    content: str, places: list[tuple[str, Masses]], message: dict[str, Any], words: str
) -> None:
    with pytest.raises(BadReply, match=words) as caught:
        parse_reply(reply(content, "length", message=message, logprobs=tops(*places)), 1)
    assert not caught.value.passing


# No reply takes long, whatever it is made of.

LONG = 1_000_000


@pytest.mark.parametrize(
    "text",
    [
        " " * LONG,
        "85" + " " * LONG + "x",
        "*" * LONG + "x",
        "x" + "* " * (LONG // 2) + "y",
        "score" * (LONG // 5),
        "1" * LONG,
        "1." * (LONG // 2),
        "-" * LONG,
        "/ 100" * (LONG // 5),
        "<think>" * (LONG // 7),
        "<think></think>" * (LONG // 15),
        "</think>" * (LONG // 8),
        "<think>" + "</thin" * (LONG // 6),
        "sk-" * (LONG // 3),
        "\\" * LONG,
        '"' * LONG,
    ],
    ids=lambda text: text[:12],
)
def test_a_reply_of_a_million_characters_is_read_in_a_moment(text: str) -> None:
    content, with_tokens = reply(text), reply(text, logprobs=tops((text, {text: 1.0})))
    for read in (
        lambda: split_thought(text),
        lambda: read_text(text),
        lambda: read_texts(parse_text(content, 99)),
        lambda: read_distribution(parse_reply(with_tokens, 99)),
    ):
        started = time.process_time()
        with contextlib.suppress(BadReply):
            assert len(getattr(read(), "reason", None) or "") < 400
        assert time.process_time() - started < 0.5


def test_a_long_reply_never_becomes_a_number_by_being_cut() -> None:
    (text,) = parse_text(reply("85" + " " * 20_000 + "or not"))
    assert len(text) < 11_000
    assert (read_text(text).reason or "").startswith("more than a number: a reply of more than 10,000 characters")


@pytest.mark.parametrize("error", [None, "", {}, {"code": 0, "message": "success"}, {"code": "200", "message": ""}])
def test_a_field_for_errors_that_holds_none_is_no_error(error: Any) -> None:
    content = json.dumps({"choices": [{"message": {"content": "A"}}], "error": error}).encode()
    assert read_reply(content).text == "A"


def test_half_of_a_character_that_the_limit_of_tokens_left_is_kept() -> None:
    found = read_reply(b'{"choices": [{"message": {"content": "A\\ud83d"}, "finish_reason": "length"}]}')
    assert (found.text, found.end) == ("A\ud83d", "length")


@pytest.mark.parametrize("mark", ["<THINK>x</THINK>", "<Think>\nx</think>", "x</THINK>", "[think]x[/Think]"])
def test_marks_of_a_thought_are_known_in_any_case(mark: str) -> None:
    assert split_thought(f"{mark}\n\nI\u0130") == ("x", "I\u0130", False)
    assert ends_thought(mark) == len(mark)


def test_no_tokens_for_a_text_or_a_prompt_are_tokens_that_were_not_counted() -> None:
    usage = {"prompt_tokens": 0, "completion_tokens": 0}
    for text, n_tokens in (("A", None), ("", 0)):
        content = json.dumps({"choices": [{"message": {"content": text}}], "usage": usage}).encode()
        assert read_reply(content).n_tokens == n_tokens and usage_of(content) is None


def test_a_byte_order_mark_is_no_part_of_a_reply() -> None:
    assert parse_text(b"\xef\xbb\xbf" + reply("85")) == {"85": 1.0}


def test_a_reply_says_nothing_that_it_was_not_told() -> None:
    assert read_reply(reply()) == ChatReply("85", end="stop", end_word="stop")
