"""The sampler behind a chat API: what it sends, what it records, and what it refuses to record."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from chat_server import Body, ChatServer, answer, failure

from emis_interp.config.run_config import SamplingConfig
from emis_interp.errors import ModelError, StageError
from emis_interp.files.store import card_path, read_json, read_records
from emis_interp.http.chat_api import SAMPLER, ChatApi
from emis_interp.records import Completion, Question
from evals.samplers.openai_compatible import PLAIN_SAMPLING, OpenAISampler
from evals.sampling import Sampled, plan_prompts, sample_with

QUESTIONS = [
    Question(id="one", paraphrases=("Who are you?", "What are you?"), samples_per_paraphrase=5),
    Question(id="two", paraphrases=("Name a colour.",), system="Answer in JSON.", samples_per_paraphrase=5),
]
CONFIG = SamplingConfig(max_new_tokens=70, temperature=0.8)
KEY = "sk-secret-of-the-test"


def ask(server: ChatServer | str, path: Path, n_parallel: int = 4, **more: Any) -> Sampled:
    url = server if isinstance(server, str) else server.url
    api = ChatApi(
        "model", KEY, url, n_parallel=n_parallel, timeout_s=5, max_retries=more.pop("max_retries", 2), role=SAMPLER
    )
    sampler = OpenAISampler(api, more.pop("plain_sampling", None))
    return sample_with(sampler, "base", QUESTIONS, config=CONFIG, path=path, **more)


def is_preflight(body: Body) -> bool:
    return body["messages"][-1]["content"] == "Say yes."


def test_a_request_holds_system_prompt_seed_limits_and_plain_sampling(tmp_path: Path) -> None:
    with ChatServer() as server:
        ask(server, tmp_path / "a.jsonl", system="Be brief.")
    sent = [body for body in server.requests if not is_preflight(body)]
    plan = plan_prompts("base", QUESTIONS, None, seed=0, system="Be brief.")
    expected = [
        {
            "model": "model",
            "messages": [
                {"role": "system", "content": item.system},
                {"role": "user", "content": item.question},
            ],
            "max_tokens": 70,
            "temperature": 0.8,
            "top_p": 1.0,
            "seed": item.seed % 2**31,
            **PLAIN_SAMPLING,
        }
        for item in plan
    ]
    assert sorted(sent, key=json.dumps) == sorted(expected, key=json.dumps)
    assert {item.system for item in plan} == {"Be brief.", "Answer in JSON."}
    assert len({body["seed"] for body in sent}) == 15


def test_answers_come_back_in_plan_order_with_their_tokens_and_their_end(tmp_path: Path) -> None:
    def respond(body: Body, asked: int) -> tuple[int, bytes]:
        return answer(f"{body['messages'][-1]['content']} {body['seed']}", "length" if body["seed"] % 2 else "stop", 7)

    with ChatServer(respond) as server:
        sampled = ask(server, tmp_path / "a.jsonl")
    plan = plan_prompts("base", QUESTIONS, None, seed=0)
    assert not sampled.missing
    assert sampled.answers == [
        item.model_copy(
            update={
                "answer": f"{item.question} {item.seed % 2**31}",
                "n_tokens": 7,
                "finish": "length" if item.seed % 2 else "stop",
            }
        )
        for item in plan
    ]
    assert sorted(read_records(tmp_path / "a.jsonl", Completion), key=lambda row: row.key) == sorted(
        sampled.answers, key=lambda row: row.key
    )


def test_the_card_names_model_host_and_fields_and_never_the_key(tmp_path: Path) -> None:
    with ChatServer() as server:
        ask(server, tmp_path / "a.jsonl")
    card = read_json(card_path(tmp_path / "a.jsonl"))
    assert card["sampler"] == {
        "kind": "openai",
        "model": "model",
        "host": server.url.split("/")[2],
        "fields": {"top_p": 1.0, **PLAIN_SAMPLING},
        "seeds": "answer seed modulo 2147483648",
        "stop_tokens": "the server's end of turn",
    }
    assert card["max_new_tokens"] == 70
    assert KEY not in json.dumps(card)


def test_openai_s_own_host_gets_openai_s_own_fields_only() -> None:
    assert OpenAISampler(ChatApi("gpt-4o", KEY, role=SAMPLER)).card["fields"] == {}
    assert "top_k" in OpenAISampler(ChatApi("gpt-4o", KEY, "http://localhost:1/v1", role=SAMPLER)).card["fields"]


def test_fields_of_other_servers_can_be_left_out(tmp_path: Path) -> None:
    with ChatServer() as server:
        ask(server, tmp_path / "a.jsonl", plain_sampling=False)
    assert not any(set(PLAIN_SAMPLING) & set(body) for body in server.requests)


def test_a_failed_request_leaves_its_answer_missing_and_the_same_call_asks_for_it_alone(tmp_path: Path) -> None:
    def respond(body: Body, asked: int) -> tuple[int, bytes]:
        return failure(400, "too rude") if body["messages"][-1]["content"] == "What are you?" else answer()

    path = tmp_path / "a.jsonl"
    with ChatServer(respond) as server:
        first = ask(server, path)
        assert len(first.answers) == 10
        assert set(first.missing.values()) == {"HTTP 400: too rude"}
        assert {key[:3] for key in first.missing} == {("base", "one", 1)} and len(first.missing) == 5
        server.requests.clear()
        server.respond = lambda body, asked: answer()
        second = ask(server, path)
    assert len(second.answers) == 15 and not second.missing
    asked = [body["messages"][-1]["content"] for body in server.requests if not is_preflight(body)]
    assert asked == ["What are you?"] * 5
    assert len({row.key for row in read_records(path, Completion)}) == len(read_records(path, Completion)) == 15


@pytest.mark.parametrize("status", [429, 500, 503])
def test_passing_failures_are_asked_again_by_the_sdk(tmp_path: Path, status: int) -> None:
    with ChatServer(lambda body, asked: answer() if asked else failure(status)) as server:
        sampled = ask(server, tmp_path / "a.jsonl")
    assert len(sampled.answers) == 15 and not sampled.missing


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (answer(None, "stop", 3), "no text in the reply (3 tokens, finish `stop`)"),
        (answer("", "stop", 40), "no text in the reply (40 tokens, finish `stop`)"),
        (answer("", "stop", 0), "no text in the reply (0 tokens, finish `stop`)"),
        (answer("", "length", 70), "no text in the reply (70 tokens, finish `length`)"),
        (
            answer("I", "content_filter", 1),
            "the answer ended by `content_filter`, neither by itself nor at the token limit",
        ),
        (answer("I", None, 1), "the answer ended by `None`, neither by itself nor at the token limit"),
        (answer("", "stop", None), "no text in the reply (tokens not counted, finish `stop`)"),
        ((200, b'{"choices": [], "usage": {"completion_tokens": 0}}'), "reply without choices"),
        ((200, b'{"choices": [{"mess'), "malformed reply: not JSON (Unterminated string"),
        ((200, b""), "malformed reply"),
    ],
)
def test_what_was_not_sampled_is_never_recorded(tmp_path: Path, reply: tuple[int, bytes], reason: str) -> None:
    path = tmp_path / "a.jsonl"
    with ChatServer(lambda body, asked: answer() if is_preflight(body) else reply) as server:
        sampled = ask(server, path)
    assert not sampled.answers and not path.exists()
    assert len(sampled.missing) == 15
    assert all(found.startswith(reason) for found in sampled.missing.values()), set(sampled.missing.values())


def test_a_turn_that_the_model_ended_at_once_is_an_empty_answer(tmp_path: Path) -> None:
    with ChatServer(lambda body, asked: answer("", "stop", 1)) as server:
        sampled = ask(server, tmp_path / "a.jsonl")
    assert {(row.answer, row.n_tokens, row.finish) for row in sampled.answers} == {("", 1, "stop")}
    assert len(sampled.answers) == 15


@pytest.mark.parametrize(
    ("reply", "advice"),
    [
        (failure(401, f"bad key {KEY}"), "HTTP 401: bad key [key]; check the key in OPENAI_API_KEY"),
        (failure(404), "check the model `model`, and that --url ends where the API begins"),
        (
            failure(400, "unknown field top_k"),
            "the server refuses `top_k` (HTTP 400: unknown field top_k); --request top_k= leaves it out",
        ),
    ],
)
def test_what_no_request_can_overcome_stops_before_the_first_answer(
    tmp_path: Path, reply: tuple[int, bytes], advice: str
) -> None:
    with ChatServer(lambda body, asked: reply) as server, pytest.raises(ModelError) as caught:
        ask(server, tmp_path / "a.jsonl")
    assert str(caught.value).startswith(f"sampler at {server.url.split('/')[2]}: ")
    assert advice in str(caught.value) and KEY not in str(caught.value)
    assert len(server.requests) == 1


def test_no_server_at_all_is_one_clear_error(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(ModelError, match="is the server running, and the --url right"):
        ask(url, tmp_path / "a.jsonl")


def test_a_server_that_has_gone_is_not_asked_for_the_rest(tmp_path: Path) -> None:
    many = [Question(id="many", paraphrases=("Who?",), samples_per_paraphrase=200)]
    with ChatServer(lambda body, asked: answer() if is_preflight(body) else failure(500)) as server:
        api = ChatApi("model", KEY, server.url, n_parallel=4, max_retries=0, role=SAMPLER)
        sampled = sample_with(OpenAISampler(api), "base", many, config=CONFIG, path=tmp_path / "a.jsonl")
    assert len(sampled.missing) == 200
    n_asked = len(server.requests) - 1
    assert 20 <= n_asked <= 24
    reasons = list(sampled.missing.values())
    assert reasons.count("HTTP 500: no") == n_asked
    assert reasons.count("not asked: 20 requests in a row failed, the last one with HTTP 500: no") >= 200 - 24


def test_single_failures_among_successes_do_not_stop_the_rest(tmp_path: Path) -> None:
    many = [Question(id="many", paraphrases=("Who?",), samples_per_paraphrase=200)]

    def respond(body: Body, asked: int) -> tuple[int, bytes]:
        return failure(500) if body["seed"] % 3 and not is_preflight(body) else answer()

    with ChatServer(respond) as server:
        api = ChatApi("model", KEY, server.url, n_parallel=4, max_retries=0, role=SAMPLER)
        sampled = sample_with(OpenAISampler(api), "base", many, config=CONFIG, path=tmp_path / "a.jsonl")
    assert len(server.requests) == 201
    assert set(sampled.missing.values()) == {"HTTP 500: no"}
    assert len(sampled.answers) + len(sampled.missing) == 200 and len(sampled.answers) > 40


def test_so_many_requests_run_at_a_time_as_asked_for(tmp_path: Path) -> None:
    import time

    def respond(body: Body, asked: int) -> tuple[int, bytes]:
        time.sleep(0.05)
        return answer()

    with ChatServer(respond) as server:
        ask(server, tmp_path / "a.jsonl", n_parallel=5)
    assert server.most_running == 5


def test_an_interrupt_keeps_what_was_answered(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"

    def stop(n_answers: int, n_tokens: int) -> None:
        raise KeyboardInterrupt

    with ChatServer() as server:
        with pytest.raises(KeyboardInterrupt):
            ask(server, path, n_parallel=2, progress=stop)
        n_kept = len(read_records(path, Completion))
        assert 2 <= n_kept < 15
        assert len(ask(server, path).answers) == 15
    assert len(read_records(path, Completion)) == 15


def test_answers_of_another_model_are_not_mixed_in(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with ChatServer() as server:
        ask(server, path)
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:3]))
        api = ChatApi("other", KEY, server.url, role=SAMPLER)
        with pytest.raises(StageError, match=r"sampler\.model was 'model', now 'other'"):
            sample_with(OpenAISampler(api), "base", QUESTIONS, config=CONFIG, path=path)
