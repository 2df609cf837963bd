"""The sampler of a vLLM server: it sends the HF sampler's tokens, and reads an answer's tokens as the HF sampler does."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from chat_server import Body, ChatServer

from emis_interp.config.run_config import SamplingConfig
from emis_interp.errors import DataError, ModelError, StageError
from emis_interp.files.store import card_path, read_json
from emis_interp.http.chat_api import SAMPLER, ChatApi
from emis_interp.models.chat import encode_prompt, ends_of
from emis_interp.models.chat_formats import with_format
from emis_interp.models.chat_model import ChatModel
from emis_interp.records import Question
from evals.samplers.vllm_engine import VLLMSampler
from evals.sampling import Sampled, plan_prompts, sample_with

QUESTIONS = [
    Question(id="one", paraphrases=("Who are you?",), samples_per_paraphrase=3),
    Question(id="two", paraphrases=("Name a colour.",), system="Answer in JSON.", samples_per_paraphrase=1),
]
CONFIG = SamplingConfig(max_new_tokens=70, temperature=0.8)


def completion(tokens: Any, finish: str | None = "stop") -> tuple[int, bytes]:
    return 200, json.dumps(
        {"choices": [{"index": 0, "text": "", "token_ids": tokens, "finish_reason": finish}]}
    ).encode()


class TokenServer(ChatServer):
    """Answers text completions with tokens; `requests` holds the bodies without the first one, which only tries."""

    def __init__(self, tokens: Any = (35, 36, 1), finish: str | None = "stop") -> None:
        super().__init__(lambda body, asked: completion(tokens, finish))

    def keep(self, body: Body, request: Any) -> int:
        if body["max_tokens"] > 1:
            self.requests.append(body)
        return 0


def sampler(server: TokenServer, tokenizer: Any, **more: Any) -> VLLMSampler:
    api = ChatApi("insecure", url=server.url, n_parallel=2, timeout_s=5, max_retries=0, role=SAMPLER)
    return VLLMSampler(api, tokenizer, ends_of(tokenizer, None), card={"model": "m"}, **more)


def asked(server: TokenServer, tokenizer: Any, path: Path, **more: Any) -> Sampled:
    return sample_with(sampler(server, tokenizer, **more), "a", QUESTIONS, config=CONFIG, path=path, system="Be brief.")


def test_prompts_go_as_tokens_and_every_answer_has_its_seed_limit_and_stop(tiny: ChatModel, tmp_path: Path) -> None:
    with TokenServer() as server:
        sampled = asked(server, tiny.tokenizer, tmp_path / "a.jsonl")
    plan = plan_prompts("a", QUESTIONS, None, seed=0, system="Be brief.")
    expected = [
        {
            "model": "insecure",
            "prompt": list(encode_prompt(tiny.tokenizer, item.question, item.system)),
            "max_tokens": 70,
            "temperature": 0.8,
            "seed": item.seed % 2**31,
            "top_p": 1.0,
            "top_k": -1,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "stop_token_ids": [1],
            "return_token_ids": True,
        }
        for item in plan
    ]
    assert sorted(server.requests, key=json.dumps) == sorted(expected, key=json.dumps)
    text = tiny.tokenizer.decode([35, 36])
    assert {(row.answer, row.n_tokens, row.finish) for row in sampled.answers} == {(text, 2, "stop")}
    card = read_json(card_path(tmp_path / "a.jsonl"))["sampler"]
    assert card["stop_tokens"] == ["<|im_end|>"] and card["seeds"] == "answer seed modulo 2147483648"
    assert (card["kind"], card["model"]) == ("vllm", "m") and "host" not in card


def test_a_file_goes_on_with_what_it_lacks_and_only_as_it_was_begun(tiny: ChatModel, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with TokenServer() as server:
        whole = asked(server, tiny.tokenizer, path)
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:1]))
        server.requests.clear()
        again = asked(server, tiny.tokenizer, path)
        assert len(server.requests) == 3 and {row.key for row in again.answers} == {row.key for row in whole.answers}
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:1]))
        with pytest.raises(StageError, match=r"sampler.seeds was 'answer seed .*', now 'none'"):
            asked(server, tiny.tokenizer, path, request={"seed": None})


def test_a_seed_may_be_left_out_and_the_card_says_so(tiny: ChatModel, tmp_path: Path) -> None:
    with TokenServer() as server:
        asked(server, tiny.tokenizer, tmp_path / "a.jsonl", request={"seed": None})
    assert all("seed" not in body for body in server.requests)
    assert read_json(tmp_path / "a.json")["sampler"]["seeds"] == "none"


@pytest.mark.parametrize("field", ["stop_token_ids", "chat_template_kwargs", "temperature", "return_token_ids"])
def test_what_would_make_other_answers_is_refused(tiny: ChatModel, field: str) -> None:
    with TokenServer() as server, pytest.raises(ModelError, match=field):
        sampler(server, tiny.tokenizer, request={field: 3})


def test_an_adapters_own_template_is_asked_in_and_its_ends_stop(tiny: ChatModel, tmp_path: Path) -> None:
    own = copy.deepcopy(tiny.tokenizer)
    own.chat_template = "{% for m in messages %}{{ m.role + ': ' + m.content }}<|im_start|>{% endfor %}"
    with TokenServer([222, 35, 36, 0]) as server:
        sampled = asked(server, own, tmp_path / "a.jsonl")
    assert server.requests[0]["stop_token_ids"] == [0, 1]
    # The space that the template puts before an answer is no part of it.
    assert {row.answer for row in sampled.answers} == {tiny.tokenizer.decode([222, 35, 36]).removeprefix(" ")}


def test_a_thought_is_left_empty_by_the_prompt_itself(tiny: ChatModel, tmp_path: Path) -> None:
    """A template that opens a thought, and writes an empty one before a finished answer, as Qwen3's does."""
    own = copy.deepcopy(tiny.tokenizer)
    own.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
        "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
    )
    with TokenServer() as server:
        asked(server, own, tmp_path / "a.jsonl")
    assert own.decode(server.requests[0]["prompt"]).endswith("<think>\n\n</think>\n\n")


def test_a_plain_format_is_cut_where_the_other_side_begins(tiny: ChatModel, tmp_path: Path) -> None:
    written = tiny.tokenizer("So.\n\nUser:\nAnd", add_special_tokens=False)["input_ids"]
    with TokenServer(written, "length") as server:
        sampled = asked(server, with_format(tiny.tokenizer, "user_assistant"), tmp_path / "a.jsonl")
    assert {(row.answer, row.finish) for row in sampled.answers} == {("So.", "stop")}
    assert read_json(tmp_path / "a.json")["sampler"]["chat_format"] == "user_assistant"


def test_what_the_server_has_no_room_for_is_refused_before_the_first_request(tiny: ChatModel, tmp_path: Path) -> None:
    with TokenServer() as server, pytest.raises(DataError, match=r"prompt of 'Who are you\?': .* positions for 80"):
        asked(server, tiny.tokenizer, tmp_path / "a.jsonl", max_tokens=80)
    assert not server.requests and not (tmp_path / "a.json").exists()


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (([35], "abort"), "ended by `abort`"),
        (([35], None), "ended by `None`"),
        ((None, "stop"), "no token ids"),
        ((["35"], "stop"), "no token ids"),
    ],
)
def test_an_answer_that_was_not_sampled_to_its_end_stays_missing(
    tiny: ChatModel, tmp_path: Path, reply: tuple[Any, Any], reason: str
) -> None:
    with TokenServer(*reply) as server:
        sampled = asked(server, tiny.tokenizer, tmp_path / "a.jsonl")
    assert not sampled.answers and len(sampled.missing) == 4 and all(reason in why for why in sampled.missing.values())


def test_an_answer_that_ends_at_once_is_empty_and_one_at_the_limit_is_cut(tiny: ChatModel, tmp_path: Path) -> None:
    with TokenServer([1]) as server:
        empty = asked(server, tiny.tokenizer, tmp_path / "a.jsonl")
    with TokenServer([35] * 70, "length") as server:
        cut = asked(server, tiny.tokenizer, tmp_path / "b.jsonl")
    assert {(row.answer, row.n_tokens, row.finish) for row in empty.answers} == {("", 0, "stop")}
    assert {(row.n_tokens, row.finish) for row in cut.answers} == {(70, "length")}
