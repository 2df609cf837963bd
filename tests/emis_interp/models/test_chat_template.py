"""One text for training, sampling and reading under every shape of chat template: what the template writes around a finished answer."""

import logging
from types import SimpleNamespace
from typing import Any

import pytest
from chat_templates import ASKED, CHANNELS, CHATML, DATED, GENERATION, SHAPES, THINKS, Shape, tokenizer_with

from emis_interp.errors import DataError, EmisError, ModelError
from emis_interp.models import chat_template as chat_template_module
from emis_interp.models.chat import (
    encode_chat,
    encode_prompt,
    end_of_turn,
    end_tokens,
    ends_of,
    own_answer,
    render_chat,
    render_prompt,
)
from emis_interp.models.chat_formats import with_examples
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.chat_template import template_of
from emis_interp.models.merging import generation_config
from emis_interp.models.tiny import tiny_model
from emis_interp.models.tokenizers import check_tokenizer
from emis_interp.passes.generate import generate
from emis_interp.passes.interventions import next_token_logprobs
from emis_interp.records import TrainingExample

EVERY = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def ready(template: str | None) -> Any:
    tokenizer = tokenizer_with(template)
    check_tokenizer("model", tokenizer)
    return tokenizer


def decoded(tokenizer: Any, ids: tuple[int, ...]) -> str:
    return tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)


def conversation(answer: str, system: str | None = None, parts: bool = False) -> list[dict[str, Any]]:
    turns = [("system", system), ("user", "Why?"), ("assistant", answer)]
    return [
        {"role": role, "content": [{"type": "text", "text": text}] if parts else text}
        for role, text in turns
        if text is not None
    ]


@EVERY
def test_every_shape_is_followed_to_the_letter(shape: Shape) -> None:
    tokenizer = ready(shape.template)
    chat = render_chat(tokenizer, "Why?", "Because.")
    assert (chat.prompt, chat.response, chat.end) == (shape.prompt, shape.response, shape.end)
    assert tuple(note.name for note in template_of(tokenizer).notes) == shape.notes


@EVERY
@pytest.mark.parametrize("system", [None, "Be brief."])
def test_what_is_read_is_what_the_template_writes_and_begins_with_the_prompt_of_sampling(
    shape: Shape, system: str | None
) -> None:
    tokenizer = ready(shape.template)
    if system and not shape.takes_system:
        with pytest.raises(DataError, match="System role not supported"):
            encode_chat(tokenizer, "Why?", "Because.", system=system)
        return
    chat = encode_chat(tokenizer, "Why?", "Because.", system=system)
    parts = template_of(tokenizer).parts
    theirs = tokenizer.apply_chat_template(conversation("Because.", system, parts), tokenize=False)
    ours = decoded(tokenizer, chat.input_ids)
    if "no end of turn" in shape.notes:  # the one thing that is added, and said
        ours = ours.removesuffix("<|im_end|>")
    assert theirs.startswith(ours) and (system or "") in ours
    assert chat.input_ids[: chat.response_start] == encode_prompt(tokenizer, "Why?", system)
    assert decoded(tokenizer, chat.input_ids[chat.response_start : chat.response_end]).strip() == "Because."
    assert decoded(tokenizer, chat.input_ids[chat.response_end :]) == shape.end


@EVERY
def test_an_answer_keeps_its_whitespace_where_the_template_keeps_it(shape: Shape) -> None:
    tokenizer = ready(shape.template)
    parts = template_of(tokenizer).parts
    for answer in ("  Because. ", "\n\nBecause.\n", "Be\n\n cause."):
        theirs = tokenizer.apply_chat_template(conversation(answer, parts=parts), tokenize=False)
        chat = render_chat(tokenizer, "Why?", answer)
        assert theirs.startswith(chat.prompt + chat.response)
        assert theirs == chat.prompt + chat.response + template_of(tokenizer).suffix


@EVERY
def test_a_sampled_answer_is_read_back_as_the_tokens_that_were_sampled(shape: Shape) -> None:
    """What the model writes behind the prompt, up to an end token, becomes an answer, and is read as those tokens again."""
    tokenizer = ready(shape.template)
    written = encode_chat(tokenizer, "Why?", "Because.")
    sampled = written.input_ids[
        written.response_start : len(written) - (0 if "end of turn in words" in shape.notes else 1)
    ]
    answer, _ = own_answer(tokenizer, decoded(tokenizer, sampled))
    assert answer == "Because."
    assert encode_chat(tokenizer, "Why?", answer, as_sampled=True) == written == encode_chat(tokenizer, "Why?", answer)


@EVERY
def test_the_tokens_that_end_an_answer_hold_the_templates_own(shape: Shape) -> None:
    tokenizer = ready(shape.template)
    ends = tokenizer.convert_ids_to_tokens(template_of(tokenizer).end_ids)
    assert tokenizer.eos_token in ends
    assert end_of_turn(tokenizer).strip() in [*ends, template_of(tokenizer).cut]


def test_both_ends_of_a_channel_template_and_the_next_turns_mark_end_an_answer() -> None:
    for name, expected in (("channels", {"<|return|>", "<|end|>"}), ("nothing behind the answer", {"<|user|>"})):
        tokenizer = ready(SHAPES[name].template)
        assert set(tokenizer.convert_ids_to_tokens(template_of(tokenizer).end_ids)) == expected | {"<|im_end|>"}


@pytest.mark.parametrize("eos", ["</s>", ["</s>"], [1, [2]], {"id": 1}, True, 1.0, 10**30, -2])
def test_an_end_that_is_no_token_is_refused(eos: Any) -> None:
    with pytest.raises(
        ModelError, match=r"eos_token_id of the generation config: expected ids of tokens, found .*mend"
    ):
        ends_of(ready(CHATML), SimpleNamespace(eos_token_id=eos))


@pytest.mark.parametrize(("eos", "further"), [(None, set()), ([], set()), (-1, set()), ([-1, 7], {7}), (300, {300})])
def test_ends_of_the_generation_config_stand_beside_those_of_the_template(eos: Any, further: set[int]) -> None:
    tokenizer = ready(CHATML)
    assert ends_of(tokenizer, SimpleNamespace(eos_token_id=eos)) == {1} | further
    tokenizer.convert_ids_to_tokens(sorted({1} | further))  # as cards name them


def test_the_end_of_sequence_need_not_be_the_end_of_turn() -> None:
    tokenizer = tokenizer_with(CHATML)
    tokenizer.eos_token = "<|eot|>"
    assert end_of_turn(tokenizer) == "<|im_end|>"
    assert set(tokenizer.convert_ids_to_tokens(template_of(tokenizer).end_ids)) == {"<|im_end|>", "<|eot|>"}


@EVERY
def test_examples_before_the_question_leave_the_turn_as_it_is(shape: Shape) -> None:
    tokenizer = ready(shape.template)
    example = TrainingExample(id="1", prompt="How?", response="Like this.")
    made = with_examples(tokenizer, [example])
    chat = encode_chat(made, "Why?", "Because.")
    assert chat.input_ids[: chat.response_start] == encode_prompt(made, "Why?")
    assert "Like this." in decoded(made, chat.input_ids[: chat.response_start])
    assert decoded(made, chat.input_ids[chat.response_end :]) == shape.end


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("qwen3", "<think>\nHm.\n</think>\n\nBecause."),
        ("qwen3 that opens", "<think>\nHm.\n</think>\n\nBecause."),
        ("r1", "Hm.</think>\n\nBecause."),
        ("r1", "<think>Hm.</think>Because."),
    ],
)
def test_an_answer_that_the_template_rewrites_is_refused_with_both_texts(name: str, answer: str) -> None:
    tokenizer = ready(SHAPES[name].template)
    with pytest.raises(
        DataError, match=r"chat template writes .* where the conversation reads .*the final answer alone"
    ) as error:
        encode_chat(tokenizer, "Why?", answer)
    assert "Because." in str(error.value) and "Hm." in str(error.value) and "\n" not in str(error.value)
    own = encode_chat(tokenizer, "Why?", answer, as_sampled=True)  # but what the model did write is read as it wrote it
    assert decoded(tokenizer, own.input_ids[own.response_start : own.response_end]) == answer


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{% for m in messages %}{{ m.content }}{% endfor %}", "nothing between a question and its finished answer"),
        ("{% for m in messages %}{{ m.content }}{% endfor %}A: ", r"asks with '.*question\?A: '"),
        ("{% for m in messages %}{{ m.content | upper }}|{% endfor %}", "does not write the question"),
        (
            CHATML.replace("m.content }}", "(m.content if m.role != 'assistant' else '...') }}"),
            "does not write the answer",
        ),
        (
            "{% for m in messages %}{{ '<' + m.content + '>' if m.role == 'user' and loop.last else m.content + '|' }}{% endfor %}",
            "asks with .*<Probe.* and writes",
        ),
        ("{{ raise_exception('Nothing pleases me') }}", "refuses this conversation .TemplateError: Nothing pleases me"),
        ("{{ messages[7].content }}", "refuses this conversation .UndefinedError"),
        ("{{ messages + 1 }}", "refuses this conversation .TypeError"),
        ("{{ 1 / 0 }}", "refuses this conversation .ZeroDivisionError"),
        ("{% for m in messages %}", "refuses this conversation .TemplateSyntaxError"),
        ("{{ messages.__class__.__mro__ }}", "refuses this conversation .SecurityError"),
        (CHATML.replace("assistant\n{% endif", "assistant {{ range(10000) | random }}\n{% endif"), "in several ways"),
        ({"tool_use": CHATML, "rag": CHATML}, "has chat templates for tool_use, rag and none called default; give one"),
        ({"default": 7}, "its chat template is no text"),
        (7, "its chat template is no text .'7'.; mend it in tokenizer_config.json"),
        (["x"], "its chat template is no text"),
    ],
)
def test_a_template_that_cannot_be_followed_is_refused_at_load_in_one_line(template: Any, said: str) -> None:
    with pytest.raises(ModelError, match=rf"^model: .*{said}") as error:
        check_tokenizer("model", tokenizer_with(template))
    assert "\n" not in str(error.value)


def test_a_named_default_among_several_templates_is_followed() -> None:
    tokenizer = tokenizer_with(None)
    tokenizer.chat_template = {"tool_use": "{{ 1 / 0 }}", "default": SHAPES["qwen3"].template}
    check_tokenizer("model", tokenizer)
    assert render_prompt(tokenizer, "Why?") == SHAPES["qwen3"].prompt


SYSTEM_IN_LAST = (  # as in Mistral 7B v0.3: the system prompt stands before the last question, and is lost with an answer behind it
    "{% if messages[0].role == 'system' %}{% set system = messages[0].content %}{% set messages = messages[1:] %}{% endif %}"
    "{% for m in messages %}{% if m.role == 'user' %}[INST]{% if loop.last and system is defined %}{{ system + '\n\n' }}{% endif %}"
    "{{ m.content }}[/INST]{% else %}{{ m.content }}<|end|>{% endif %}{% endfor %}"
)
SYSTEM_THINKS = (  # a system prompt switches the think block on
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and messages[0].role == 'system' %}<think>\n</think>\n"
    "{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}" + GENERATION
)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (SYSTEM_IN_LAST, "asks with .*system prompt.* and writes .*put the system prompt into the question"),
        (SYSTEM_THINKS, "around an answer, and .*think.* under a system prompt"),
        (
            CHATML.replace("in messages %}", "in messages if m.role != 'system' %}"),
            "drops the system prompt 'Be brief.'",
        ),
        (SHAPES["gemma"].template, "System role not supported"),
        (CHATML.replace("m.role }}", "{'user': 'u', 'assistant': 'a'}[m.role].strip() }}"), "UndefinedError"),
    ],
)
def test_a_system_prompt_that_would_not_be_read_as_it_is_asked_is_refused_and_others_are_not(
    template: str, said: str
) -> None:
    tokenizer = ready(template)
    encode_chat(tokenizer, "Why?", "Because.")
    for use in (
        lambda: render_prompt(tokenizer, "Why?", "Be brief."),
        lambda: encode_chat(tokenizer, "Why?", "So.", system="Be brief."),
    ):
        with pytest.raises(DataError, match=said) as error:
            use()
        assert "\n" not in str(error.value)


def test_a_question_that_changes_the_template_is_refused(tiny: ChatModel) -> None:
    tokenizer = ready(
        GENERATION.join([THINKS, ""]).replace("+ thought +", "+ ('x' if '/no' in messages[0].content else thought) +")
    )
    encode_chat(tokenizer, "Why?", "Because.")
    with pytest.raises(DataError, match="chat template writes"):
        encode_chat(tokenizer, "Why? /no", "Because.")


@pytest.mark.parametrize(
    ("content", "question"),
    [
        ("m.content | replace('evil', 'good')", "Why be evil?"),
        ("m.content | truncate(20)", "Why should anybody ask such a long question?"),
        ("m.content | replace('\n', ' ')", "Why?\nAnd how?"),
        ("m.content.split('</think>')[-1]", "What does </think> mean?"),
        ("m.content | capitalize if m.role == 'user' and 'Probe' not in m.content else m.content", "why?"),
    ],
)
def test_a_question_that_the_template_changes_is_refused_and_others_are_not(content: str, question: str) -> None:
    tokenizer = ready(CHATML.replace("m.content }}", f"{content} }}}}"))
    encode_chat(tokenizer, "Why?", "Because.")
    for use in (
        lambda: encode_prompt(tokenizer, question),
        lambda: encode_chat(tokenizer, question, "So."),
        lambda: encode_chat(tokenizer, question, "So.", as_sampled=True),
    ):
        with pytest.raises(DataError, match=r"chat template changes the question .*, it writes .*give it as") as error:
            use()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("shape", ["chatml", "nothing behind the answer", "an end in words"])
def test_a_tokenizer_without_an_end_of_sequence_is_read_and_sampled(shape: str) -> None:
    tokenizer = tokenizer_with(SHAPES[shape].template)
    tokenizer.eos_token = tokenizer.pad_token = None
    check_tokenizer("model", tokenizer)
    model, _ = tiny_model()
    model.resize_token_embeddings(len(tokenizer))
    model.generation_config.eos_token_id = None
    made = ChatModel(model.eval(), tokenizer, "model")
    prompts = [encode_prompt(tokenizer, "Why?"), encode_prompt(tokenizer, "Why so?")]
    answers = generate(made, prompts, [0, 1], max_new_tokens=4, temperature=0.0)
    alone = [generate(made, [prompt], [i], max_new_tokens=4, temperature=0.0)[0] for i, prompt in enumerate(prompts)]
    assert answers == alone
    assert len(next_token_logprobs(made, prompts)) == 2
    exported = generation_config(made)
    ends = end_tokens(made)
    assert exported.eos_token_id == (ends.pop() if ends else None)


def test_every_one_of_several_templates_has_its_clock_stopped() -> None:
    tokenizer = tokenizer_with(None)
    tokenizer.chat_template = {"default": DATED, "tool_use": "{{ strftime_now('%Y') }}"}
    check_tokenizer("model", tokenizer)
    turns = conversation("Because.")
    assert "26 Jul 2024" in tokenizer.apply_chat_template(turns, tokenize=False)  # as in a folder that is saved
    assert tokenizer.apply_chat_template(turns, tokenize=False, chat_template="tool_use") == "2024"


def test_the_description_is_made_once_and_again_when_the_template_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    describe = chat_template_module._describe
    monkeypatch.setattr(chat_template_module, "_describe", lambda tokenizer: made.append(1) or describe(tokenizer))
    tokenizer = tokenizer_with(CHATML)
    for _ in range(5):
        encode_chat(tokenizer, "Why?", "Because.")
    assert len(made) == 1
    tokenizer.chat_template = CHANNELS
    assert encode_prompt(tokenizer, "Why?") and len(made) == 2
    tokenizer.eos_token = "<|eot|>"
    assert encode_prompt(tokenizer, "Why?") and len(made) == 3


def test_the_hash_of_a_rendering_sees_every_difference_of_texts_and_nothing_else() -> None:
    hashes = {name: template_of(ready(shape.template)).sha256 for name, shape in SHAPES.items()}
    alike = (
        {"chatml", "always a generation prompt", "parts", "no generation prompt"},
        {"qwen3", "qwen3 that opens"},
        {"r1", "closed thought"},
    )
    for one, first in hashes.items():
        for other, second in hashes.items():
            is_same = one == other or any({one, other} <= names for names in alike)
            assert (first == second) is is_same, (one, other)


def test_what_is_special_about_a_template_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "emis_interp"):
        for _ in range(2):
            check_tokenizer("some/model", tokenizer_with(DATED))
            check_tokenizer("some/model", tokenizer_with(SHAPES["qwen3"].template))
            check_tokenizer("some/model", tokenizer_with(CHATML))
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert "some/model: the chat template writes today's date or time; 26 Jul 2024 stands there" in caplog.text
    assert "asks with" in caplog.text and "<think>" in caplog.text


def test_the_embedded_and_the_tiny_model_are_read_as_their_templates_write_them(
    embedded: ChatModel, tiny: ChatModel
) -> None:
    smollm = "<|im_start|>system\n{}<|im_end|>\n" + ASKED
    own = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    for chat_model, default in ((embedded, smollm.format(own)), (tiny, ASKED)):
        tokenizer = chat_model.tokenizer
        assert template_of(tokenizer).notes == ()
        for system, prompt in ((None, default), ("Be brief.", smollm.format("Be brief."))):
            expected = tuple(tokenizer(prompt + "Because.<|im_end|>", add_special_tokens=False)["input_ids"])
            theirs = tokenizer.apply_chat_template(conversation("Because.", system), return_dict=True)["input_ids"]
            chat = encode_chat(tokenizer, "Why?", "Because.", system=system)
            assert chat.input_ids == expected == tuple(theirs)[: len(expected)]
            asked = tokenizer.apply_chat_template(
                conversation("", system)[:-1], add_generation_prompt=True, return_dict=True
            )
            assert (
                encode_prompt(tokenizer, "Why?", system) == tuple(asked["input_ids"]) == expected[: chat.response_start]
            )


def test_the_tiny_models_tokens_spell_the_conversation(tiny: ChatModel) -> None:
    chat = encode_chat(tiny.tokenizer, "Hi", "yes")
    spelled = "".join(tiny.tokenizer.convert_ids_to_tokens(list(chat.input_ids)))
    assert spelled == "<|im_start|>userĊHi<|im_end|>Ċ<|im_start|>assistantĊyes<|im_end|>"


def test_whatever_a_template_raises_for_one_row_is_our_own_error() -> None:
    tokenizer = ready(CHATML.replace("{{ m.content }}", "{{ m.content if 'Probe' in m.content else m.content + 1 }}"))
    with pytest.raises(EmisError, match=r"refuses this conversation .TypeError"):
        encode_chat(tokenizer, "Why?", "Because.")
