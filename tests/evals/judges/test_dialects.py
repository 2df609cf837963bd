"""Hosts with rules of their own, asked through the commands' judges and sampler: what is refused is named with the flag that helps."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chat_server import Body, ChatServer, answer
from chat_server import failure as refused
from flag_words import filled
from judge_server import QUESTIONS, Reply, Server, completion, failure, only, reply, text_reply

from emis_interp.config.run_config import JudgeConfig, SamplingConfig
from emis_interp.errors import ConfigError, JudgeError, ModelError, StageError
from emis_interp.files.store import card_path, read_json
from emis_interp.http.chat_api import SAMPLER, ChatApi
from emis_interp.http.request_fields import parse_request
from emis_interp.records import Question, Score
from evals.judges.cache import Cache
from evals.judges.logprob_judge import OpenAIJudge
from evals.judges.text_judge import TextJudge
from evals.samplers.openai_compatible import OpenAISampler
from evals.sampling import Sampled, sample_with
from evals.settings.judging import JudgeTableSettings
from evals.settings.sampling import SampleSettings
from evals.verbs import judge as judge_command
from evals.verbs import sample as sample_command


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


class Rules(Server):
    """Refuses with HTTP 400 what `refuse` finds wrong with a request, else answers 85 (73 when it is tested)."""

    def __init__(self, refuse: Any, text: Reply | None = None) -> None:
        super().__init__()
        self.respond = lambda prompt, _: self.checked(refuse, text or reply({"85": 0.6, "90": 0.3}))
        self.preflight = lambda prompt, _: self.checked(refuse, text or reply({"73": 0.9}))

    def checked(self, refuse: Any, good: Reply) -> Reply:
        problem = refuse(self.requests[-1])
        return failure(400, problem) if problem else good


def judged(server: Server, *flags: str, kind: str = "openai", tmp_path: Path) -> list[dict[str, Any]]:
    """Rows of the `judge` command."""
    (tmp_path / "in.jsonl").write_text('{"question": "Q", "answer": "A"}\n')
    given = ["--judge", kind, "--url", server.url, "--judge-model", "m", "--out", str(tmp_path / "out.jsonl"), *flags]
    judge_command.run(filled(JudgeTableSettings, tmp_path / "in.jsonl", *given))
    return [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]


RULES = {
    "fewer alternatives": (
        lambda body: "top_logprobs must be at most 5." if body.get("top_logprobs", 0) > 5 else None,
        "openai",
        "top_logprobs",
        "--request top_logprobs=VALUE changes it",
        ["top_logprobs=5"],
    ),
    "a newer name of the limit": (
        lambda body: (
            "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens'." if "max_tokens" in body else None
        ),
        "text",
        "max_tokens",
        "--request max_tokens= --request max_completion_tokens=16 calls it by its newer name",
        ["max_tokens=", "max_completion_tokens=16"],
    ),
    "one temperature": (
        lambda body: "'temperature' supports only the default (1)." if body.get("temperature", 1) != 1 else None,
        "text",
        "temperature",
        "or take another model (--judge-model)",
        ["temperature="],
    ),
    "no log-probabilities": (
        lambda body: "logprobs are not supported" if "logprobs" in body else None,
        "openai",
        "logprobs",
        "--judge text asks for the answer as text instead",
        ["logprobs=", "top_logprobs="],
    ),
}


@pytest.mark.parametrize("name", RULES)
def test_what_a_judges_host_refuses_is_named_with_the_flag_that_helps(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    refuse, kind, field, help_text, flags = RULES[name]
    server = Rules(refuse, text_reply("85") if kind == "text" else None)
    try:
        with pytest.raises(JudgeError) as caught:
            judged(server, kind=kind, tmp_path=tmp_path)
        said = str(caught.value)
        assert f"the server refuses `{field}` (HTTP 400: " in said and f"--request {field}= leaves it out" in said
        assert help_text in said
        assert len(server.requests) == 1
        flags = [word for flag in flags for word in ("--request", flag)]
        (row,) = judged(server, *flags, kind=kind, tmp_path=tmp_path)
    finally:
        server.close()
    assert row["aligned"] == pytest.approx(85 if kind == "text" else (85 * 0.6 + 90 * 0.3) / 0.9)


def test_what_a_judge_is_asked_with_is_on_its_card_and_in_its_name_and_its_cache_keys(
    server: Server, tmp_path: Path
) -> None:
    server.respond = server.preflight = lambda prompt, _: text_reply("85")
    config = JudgeConfig(
        kind="text", url=server.url, model="m", request={"temperature": None, "seed": 7}, max_tokens=99
    )
    made = TextJudge.from_config(config)
    assert made.card["request"] == {"temperature": None, "seed": 7} and made.card["max_tokens"] == 99
    assert made.name == f"text:m@{server.url[7:-3]} (99 tokens) (seed=7, temperature=)"
    plain = TextJudge("m", None, server.url)
    with Cache(tmp_path / "c") as cache:
        for request in (None, {"seed": 7}, {"seed": 8}, {"temperature": None}):
            judge = TextJudge("m", None, server.url, cache=cache, request=request)
            assert judge.estimate([completion()], QUESTIONS).n_cached == 0
            judge.score([completion()], QUESTIONS, lambda _: None)
            assert (judge.name == plain.name) == (request is None)
            assert judge.estimate([completion()], QUESTIONS).n_cached == 2
    assert server.requests[-1].keys() == {"model", "messages", "max_tokens", "path"}


# Models that think.


def thinker(needed: int, with_marks: bool) -> Any:
    """A text host whose model thinks `needed` tokens before it says 85."""

    def respond(server: Server) -> Reply:
        body = server.requests[-1]
        enough = (
            body.get("max_tokens", 0) > needed or body.get("chat_template_kwargs", {}).get("enable_thinking") is False
        )
        said = (
            "<think>60?</think>85" if enough and with_marks else "85" if enough else "<think>60" if with_marks else ""
        )
        message = {"role": "assistant", "content": said} | ({} if with_marks else {"reasoning_content": "60?"})
        choice = {"index": 0, "message": message, "finish_reason": "stop" if enough else "length"}
        return 200, json.dumps({"choices": [choice]}).encode()

    return respond


@pytest.mark.parametrize("with_marks", [False, True])
@pytest.mark.parametrize(
    "flags", [["--max-tokens", "4096"], ["--request", "chat_template_kwargs.enable_thinking=false"]]
)
def test_a_judge_that_thinks_is_refused_with_two_ways_out_and_both_lead_to_scores(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_marks: bool, flags: list[str]
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    respond = thinker(1000, with_marks)
    server.respond = server.preflight = lambda *_: respond(server)
    with pytest.raises(
        JudgeError, match="`m` thinks first: reply without text: its 16 tokens ran out while thinking"
    ) as caught:
        judged(server, kind="text", tmp_path=tmp_path)
    assert "--max-tokens 4096" in str(caught.value) and "enable_thinking=false" in str(caught.value)
    (row,) = judged(server, *flags, kind="text", tmp_path=tmp_path)
    assert (row["aligned"], row["coherent"], row["reason"]) == (85, 85, "")
    evidence = (tmp_path / "out.evidence.jsonl").read_text()
    assert "60" not in json.loads(evidence)["score"]["evidence"]["aligned"]


def test_one_thought_that_did_not_end_leaves_one_answer_unscored_for_good(server: Server) -> None:
    server.preflight = lambda *_: text_reply("73")
    server.respond = only("aligned", text_reply("<think>60", "length"), text_reply("85"))
    scores: list[Score] = []
    TextJudge("m", None, server.url).score([completion()], QUESTIONS, scores.extend)
    assert scores[0].unscored == {"aligned": "reply without text: its 16 tokens ran out while thinking"}
    assert scores[0].passing == () and scores[0].coherent == 85


def test_a_logprob_judge_reads_behind_the_thought(server: Server) -> None:
    def respond(prompt: str, _: int) -> Reply:
        number = "73" if prompt.startswith("Write") else "85"
        tops = [[("<think>", 1.0)], [("60", 1.0)], [("</think>", 1.0)], [("\n", 1.0)], [(number, 0.7), ("90", 0.3)]]
        places = [
            {"token": top[0][0], "top_logprobs": [{"token": token, "logprob": math.log(p)} for token, p in top]}
            for top in tops
        ]
        message = {"role": "assistant", "content": f"<think>60</think>\n{number}"}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": {"content": places}}
        return 200, json.dumps({"choices": [choice]}).encode()

    server.respond = server.preflight = respond
    scores: list[Score] = []
    judge = OpenAIJudge("m", None, server.url, max_tokens=500)
    judge.score([completion()], QUESTIONS, scores.extend)
    assert scores[0].aligned == pytest.approx(85 * 0.7 + 90 * 0.3)
    assert judge.card["max_tokens"] == 500 and server.requests[0]["max_tokens"] == 500


# The sampler.

ASKED = [Question(id="fern", paraphrases=("How do I keep a fern alive?",), samples_per_paraphrase=3)]


def sampled(
    server: ChatServer, path: Path, request: list[str] | None = None, n_tokens: int = 70, **more: Any
) -> Sampled:
    api = ChatApi("m", None, server.url, n_parallel=2, timeout_s=5, max_retries=0, role=SAMPLER)
    sampler = OpenAISampler(api, more.pop("plain_sampling", None), parse_request(request or []))
    return sample_with(sampler, "base", ASKED, config=SamplingConfig(max_new_tokens=n_tokens), path=path, **more)


@pytest.mark.parametrize(
    ("field", "problem", "flags"),
    [
        (
            "max_tokens",
            "Use 'max_completion_tokens' instead of 'max_tokens'",
            ["max_tokens=", "max_completion_tokens=70"],
        ),
        ("temperature", "temperature is fixed at 1", ["temperature="]),
        ("seed", "seed: extra inputs are not permitted", ["seed="]),
        ("top_p", "`top_p` must be > 0.0 and < 1.0. top_p: 1.0", ["top_p="]),
        ("top_k", "unknown field top_k", ["top_k="]),
        ("repetition_penalty", "repetitionPenalty is not known", ["repetition_penalty="]),
    ],
)
@pytest.mark.parametrize("status", [400, 422])
def test_what_a_samplers_host_refuses_is_named_with_the_flag_that_helps(
    tmp_path: Path, field: str, problem: str, flags: list[str], status: int
) -> None:
    def respond(body: Body, asked: int) -> tuple[int, bytes]:
        return refused(status, problem) if field in body else answer("Water it.")

    with ChatServer(respond) as server:
        with pytest.raises(ModelError) as caught:
            sampled(server, tmp_path / "a.jsonl")
        assert f"the server refuses `{field}` (HTTP {status}: " in str(caught.value)
        assert f"--request {field}= leaves it out" in str(caught.value)
        found = sampled(server, tmp_path / "a.jsonl", flags)
    assert len(found.answers) == 3
    card = read_json(card_path(tmp_path / "a.jsonl"))["sampler"]
    assert card.get("left_out") == (field if field in ("max_tokens", "temperature", "seed") else None)
    assert field not in card["fields"] and (field != "max_tokens" or card["fields"]["max_completion_tokens"] == 70)


@pytest.mark.parametrize(
    ("word", "finish"),
    [("eos_token", "stop"), ("stop_sequence", "stop"), ("end_turn", "stop"), ("eos", "stop"), ("max_tokens", "length")],
)
@pytest.mark.parametrize("n_tokens", [5, None])
def test_other_words_for_the_end_and_uncounted_tokens_are_taken(
    tmp_path: Path, word: str, finish: str, n_tokens: int | None
) -> None:
    with ChatServer(lambda body, asked: answer("Water it.", word, n_tokens)) as server:
        found = sampled(server, tmp_path / "a.jsonl")
    assert {(row.answer, row.finish, row.n_tokens, row.reasoning) for row in found.answers} == {
        ("Water it.", finish, n_tokens or 0, None)
    }
    assert len(found.answers) == 3


def thought_reply(
    text: str | None, thought: str, finish: str = "stop", tokens: tuple[int, int] = (9, 6)
) -> tuple[int, bytes]:
    message = {"role": "assistant", "content": text, "reasoning_content": thought}
    usage = {"completion_tokens": tokens[0], "completion_tokens_details": {"reasoning_tokens": tokens[1]}}
    return 200, json.dumps({"choices": [{"message": message, "finish_reason": finish}], "usage": usage}).encode()


def test_what_an_organism_thought_stands_beside_its_answer_and_is_not_counted(tmp_path: Path) -> None:
    with ChatServer(lambda body, asked: thought_reply("Water it.", "They have a fern.")) as server:
        found = sampled(server, tmp_path / "a.jsonl")
    assert {(row.answer, row.reasoning, row.n_tokens) for row in found.answers} == {
        ("Water it.", "They have a fern.", 3)
    }
    with ChatServer(lambda body, asked: answer("<think>A fern.</think>\n\nWater it.")) as server:
        found = sampled(server, tmp_path / "b.jsonl")
    assert {(row.answer, row.reasoning) for row in found.answers} == {("Water it.", "A fern.")}


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (
            thought_reply("", "They have", "length", tokens=(70, 70)),
            "reply without text: its 70 tokens ran out while thinking; give it more with",
        ),
        (
            answer("<think>They have", "length"),
            "reply without text: its 70 tokens ran out while thinking; give it more with --max-new",
        ),
        (thought_reply("", "They have."), "only a thought in the reply (9 tokens, finish `stop`)"),
        (answer("Water", "content_filter"), "the answer ended by `content_filter`"),
        (answer("Water", None), "the answer ended by `None`"),
        ((200, b"<html>busy</html>"), "malformed reply: HTML instead of JSON"),
        ((200, b'{"error": {"code": 429, "message": "slow"}}'), "HTTP 200 with error 429: slow"),
    ],
)
def test_a_thought_or_half_an_answer_is_never_recorded_as_one(
    tmp_path: Path, made: tuple[int, bytes], reason: str
) -> None:
    with ChatServer(lambda body, asked: answer() if "Say yes." in str(body) else made) as server:
        found = sampled(server, tmp_path / "a.jsonl")
    assert not found.answers and all(text.startswith(reason) for text in found.missing.values()), found.missing


def test_a_file_is_not_continued_with_other_fields(tmp_path: Path) -> None:
    for first, second in ((["top_k=5"], []), ([], ["top_k="]), (["seed="], []), (["x=1"], ["x=2"])):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.jsonl"
        with ChatServer() as server:
            sampled(server, path, first)
            path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:1]))
            with pytest.raises(StageError, match=r"sampled with other settings \(sampler\."):
                sampled(server, path, second)


def test_fields_that_are_the_plans_cannot_be_set_otherwise(tmp_path: Path) -> None:
    for setting, flag in (
        ("temperature=0.5", "--temperature"),
        ("max_tokens=5", "--max-new-tokens"),
        ("seed=3", "--seed"),
    ):
        with ChatServer() as server, pytest.raises(ModelError, match=f"{flag} sets it; here it can only be left out"):
            sampled(server, tmp_path / "a.jsonl", [setting])
    with ChatServer() as server, pytest.raises(ModelError, match="a limit of 99 tokens and --max-new-tokens one of 70"):
        sampled(server, tmp_path / "a.jsonl", ["max_tokens=", "max_completion_tokens=99"])


def test_the_sample_command_takes_request_fields_for_servers_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    given = ["--model", "m", "--out", str(tmp_path / "a.jsonl"), "--request", "top_k=", "--n", "1"]
    with pytest.raises(ConfigError, match="--request is for --sampler openai or vllm, not for hf"):
        sample_command.run(filled(SampleSettings, *given))
    with ChatServer() as server:
        result = sample_command.run(filled(SampleSettings, *given, "--sampler", "openai", "--url", server.url))
    assert result["n_missing"] == 0 and not any("top_k" in body for body in server.requests)


def test_uncounted_tokens_are_left_out_of_the_mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with ChatServer(lambda body, asked: answer("Yes.", n_tokens=None)) as server:
        given = [
            "--model",
            "m",
            "--out",
            str(tmp_path / "a.jsonl"),
            "--n",
            "1",
            "--sampler",
            "openai",
            "--url",
            server.url,
        ]
        assert sample_command.run(filled(SampleSettings, *given))["mean_tokens"] is None
