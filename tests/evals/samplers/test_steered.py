"""Steered samplers: what is added is what was asked for, stands on the card, and a server that adds nothing is refused."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chat_server import Body, ChatServer
from flag_words import filled
from small_run import opened

from emis_interp.config.run_config import RunConfig, SamplingConfig
from emis_interp.directions import Direction, unit
from emis_interp.errors import ConfigError, ModelError, StageError
from emis_interp.files.store import read_json
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.effects import Ablation, Steering
from emis_interp.passes.interventions import steer
from emis_interp.records import Question
from evals.arms.stages import cell_asker
from evals.engines.making import made_sampler
from evals.samplers.hf import HFSampler
from evals.samplers.llama import LlamaSampler, Program, parse_options
from evals.samplers.steered import SteeredHF, check_steers, largest_shift, parse_steering
from evals.sampling import sample_with
from evals.settings.sampling import SampleSettings

QUESTIONS = [Question(id="one", paraphrases=("Who are you?", "Name a colour."), samples_per_paraphrase=2)]
CONFIG = SamplingConfig(max_new_tokens=12, temperature=1.0)
PLAIN = {"Red": math.log(0.5), "Blue": math.log(0.3), "Green": math.log(0.2)}
OTHER = {"Red": math.log(0.2), "Blue": math.log(0.3), "Green": math.log(0.5)}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A direction of the tiny model's layer 0."""
    vector = unit(torch.randn(32, generator=torch.Generator().manual_seed(3)))
    path = tmp_path_factory.mktemp("direction") / "direction"
    Direction(vector, 0, 1.0, 4.0).save(path)
    return path


def answers(sampler: Any, path: Path) -> list[str]:
    return [row.answer for row in sample_with(sampler, "base", QUESTIONS, config=CONFIG, path=path).answers]


def test_hooks_add_coefficient_times_norm_and_the_card_says_so(tiny: ChatModel, saved: Path, tmp_path: Path) -> None:
    steered = parse_steering([f"{saved}:2.5"])
    assert steered is not None
    found = answers(SteeredHF(HFSampler(tiny), steered), tmp_path / "a.jsonl")
    with steer(tiny, Direction.load(saved), 2.5):
        assert found == answers(HFSampler(tiny), tmp_path / "b.jsonl")
    assert found != answers(HFSampler(tiny), tmp_path / "c.jsonl")
    (card,) = read_json(tmp_path / "a.json")["sampler"]["steering"]
    assert (card["layer"], card["coefficient"], card["raw_norm"], card["fit"]) == (0, 2.5, 10.0, "all")


def test_a_file_is_not_continued_with_another_coefficient(tiny: ChatModel, saved: Path, tmp_path: Path) -> None:
    first, other = (parse_steering([f"{saved}:{number}"]) for number in ("0.5", "-0.5"))
    assert first is not None and other is not None
    answers(SteeredHF(HFSampler(tiny), first), tmp_path / "a.jsonl")
    rows = (tmp_path / "a.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "a.jsonl").write_text("".join(rows[:2]))
    for sampler in (SteeredHF(HFSampler(tiny), other), HFSampler(tiny)):
        with pytest.raises(StageError, match="steering"):
            answers(sampler, tmp_path / "a.jsonl")


def test_a_direction_of_another_model_is_refused_before_anything_is_sampled(tiny: ChatModel, tmp_path: Path) -> None:
    Direction(unit(torch.ones(31)), 0, 1.0, 4.0).save(tmp_path / "narrow")
    steered = parse_steering([f"{tmp_path / 'narrow'}:1"])
    assert steered is not None
    with pytest.raises(ModelError, match="d_model 31"):
        SteeredHF(HFSampler(tiny), steered)


@pytest.mark.parametrize(
    "word", ["directions/mine", "directions/mine:", ":0.2", "directions/mine:much", "directions/mine:nan"]
)
def test_words_of_another_form_are_refused(word: str) -> None:
    with pytest.raises(ConfigError, match="expected DIRECTION:COEFFICIENT"):
        parse_steering([word])


def test_no_words_steer_nothing() -> None:
    assert parse_steering([]) is None


@pytest.mark.parametrize(
    ("before", "during", "after", "said"),
    [
        (PLAIN, PLAIN, PLAIN, "does not steer"),
        (PLAIN, PLAIN, None, "does not steer"),
        (PLAIN, {**PLAIN, "Red": PLAIN["Red"] + 0.004}, None, "does not steer"),
        (PLAIN, OTHER, OTHER, "--no-enable-prefix-caching"),
        (PLAIN, OTHER, {**PLAIN, "Red": PLAIN["Red"] + 0.3}, "--no-enable-prefix-caching"),
    ],
)
def test_servers_that_do_not_steer_or_remember_that_they_did_are_refused(
    before: Any, during: Any, after: Any, said: str
) -> None:
    with pytest.raises(ModelError, match=said):
        check_steers(before, during, after, server="there")


@pytest.mark.parametrize("after", [PLAIN, None, {**PLAIN, "Red": PLAIN["Red"] + 0.02}])
def test_servers_that_steer_are_taken(after: Any) -> None:
    check_steers(PLAIN, OTHER, after, server="there")


def test_tokens_that_left_the_list_count_as_a_change() -> None:
    assert largest_shift(PLAIN, {"Black": 0.0}) == math.inf
    assert largest_shift(PLAIN, {"Red": PLAIN["Red"], "Blue": PLAIN["Blue"] - 0.5}) == pytest.approx(0.5)


def reply(tops: dict[str, float]) -> tuple[int, bytes]:
    """A chat completion with log-probabilities."""
    position = {"token": "Red", "logprob": -1.0, "top_logprobs": [{"token": t, "logprob": p} for t, p in tops.items()]}
    message = {"role": "assistant", "content": "Red"}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": {"content": [position]}}
    return 200, json.dumps({"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}).encode()


def settings(saved: Path, url: str, *more: str) -> SampleSettings:
    words = ("--sampler", "openai", "--model", "m", "--url", url, "--steer", f"{saved}:0.5", "--out", "a.jsonl", *more)
    return filled(SampleSettings, *words)


def test_every_request_to_a_server_carries_the_vectors(saved: Path, tmp_path: Path) -> None:
    seen: list[Body] = []

    def respond(body: Body, asked: int) -> tuple[int, bytes]:
        seen.append(body)
        return reply(OTHER if "apply_steering_vectors" in body["vllm_xargs"] else PLAIN)

    with ChatServer(respond) as server:
        with made_sampler(settings(saved, server.url, "--request", "vllm_xargs.theirs=1")) as sampler:
            assert answers(sampler, tmp_path / "a.jsonl") == ["Red"] * 4
    with_vectors = ["apply_steering_vectors" in body.get("vllm_xargs", {}) for body in seen]
    assert (
        with_vectors == [False, True, False] + [True] * 5
    )  # what the check asks, one request that would fail early, the answers
    assert {body["vllm_xargs"]["theirs"] for body in seen} == {1}
    salts = [body.get("cache_salt") for body in seen]
    assert [salt is not None for salt in salts] == with_vectors and len(set(salts)) == 2
    (sent,) = json.loads(seen[-1]["vllm_xargs"]["apply_steering_vectors"])
    assert sent["layer_indices"] == [0] and sent["activations"]["shape"] == [1, 32]
    card = read_json(tmp_path / "a.json")["sampler"]
    assert card["engine"] == "vllm-lens" and card["steering"][0]["raw_norm"] == 2.0
    assert "data" not in json.dumps(card)


@pytest.mark.parametrize("remembers", [False, True])
def test_a_server_that_ignores_the_vectors_or_keeps_them_answers_nothing(
    saved: Path, tmp_path: Path, remembers: bool
) -> None:
    def respond(body: Body, asked: int) -> tuple[int, bytes]:
        return reply(OTHER if remembers and asked > 0 else PLAIN)

    with ChatServer(respond) as server:
        said = "prefix caching" if remembers else "does not steer"
        with pytest.raises(ModelError, match=said), made_sampler(settings(saved, server.url)) as sampler:
            answers(sampler, tmp_path / "a.jsonl")
    assert not (tmp_path / "a.jsonl").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--sampler", "vllm"), "vllm-lens"),
        (("--sampler", "openai"), "OpenAI's models cannot be steered"),
        (("--sampler", "hf", "--llama", "threads=2"), "--llama is for --sampler llama"),
        (("--sampler", "llama", "--llama", "control-vector=a.gguf"), "set by --steer"),
        (("--sampler", "llama", "--llama", "threads="), "without dashes"),
        (("--sampler", "llama", "--llama", "threads=2", "--llama", "threads=3"), "given twice"),
        (("--sampler", "llama", "--url", "http://127.0.0.1:1/v1"), "--url is for --sampler openai"),
        (("--sampler", "llama", "--adapter", "a"), "merge the adapter"),
        (("--sampler", "llama", "--chat-format", "user_assistant"), "GGUF file's own"),
    ],
)
def test_flags_of_another_sampler_are_refused(
    saved: Path, words: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-test")
    asked = filled(SampleSettings, "--model", "m", "--steer", f"{saved}:0.5", "--out", "a.jsonl", *words)
    with pytest.raises(ConfigError, match=said), made_sampler(asked):
        pass


def test_options_are_words_of_a_command_line(tmp_path: Path) -> None:
    program = Program(("llama-server",), parse_options(["threads=2", "no-warmup", "ctx-size=4096"]))
    words = program.arguments(tmp_path / "m.gguf", 80, n_parallel=4, n_context=300)
    assert words[:5] == ["llama-server", "--model", str(tmp_path / "m.gguf"), "--alias", "m"]
    assert words[-5:] == ["--ctx-size", "4096", "--threads", "2", "--no-warmup"]
    for word in ("--threads=2", "threads =2", "=2", "a;b"):
        with pytest.raises(ConfigError, match="without dashes"):
            parse_options([word])


def test_llama_needs_a_gguf_of_the_directions_model(saved: Path, tmp_path: Path) -> None:
    import gguf

    with pytest.raises(ModelError, match="needs a GGUF file"):
        LlamaSampler("tiny")
    file = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(str(file), "llama")
    writer.add_block_count(4)
    writer.add_embedding_length(32)
    writer.add_tensor("token_embd.weight", np.zeros((8, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    for width, layer, said in ((31, 2, "d_model 31"), (32, 4, "layer 4.*has 4 layers"), (32, 0, "not of block 0")):
        Direction(unit(torch.ones(width)), layer, 1.0, 4.0).save(tmp_path / "d")
        with pytest.raises(ModelError, match=said):
            LlamaSampler(str(file), parse_steering([f"{tmp_path / 'd'}:1"]))
    assert LlamaSampler(str(file)).card["quantisation"] == "F32"


def run_config(url: str, **intervention: Any) -> RunConfig:
    sampling = {"engine": "openai", "base_url": url, "max_new_tokens": 4, "request": {"vllm_xargs": {"theirs": 1}}}
    values = {"name": "test", "model": "tiny", "arms": [{"name": "base"}], "sampling": sampling}
    judge = {"kind": "text", "url": url, "model": "j"}
    return RunConfig.model_validate({**values, "judge": judge, "intervention": {"engine": "openai", **intervention}})


def test_a_run_may_ask_a_server_for_its_steered_answers_and_ablates_here(
    saved: Path, tiny: ChatModel, tmp_path: Path
) -> None:
    seen: list[Body] = []

    def respond(body: Body, asked: int) -> tuple[int, bytes]:
        seen.append(body)
        return reply(OTHER if "apply_steering_vectors" in body["vllm_xargs"] else PLAIN)

    direction = Direction.load(saved)
    with ChatServer(respond) as server:
        run, _ = opened(run_config(server.url, samples_per_paraphrase=2), tmp_path / "run")
        with cell_asker(run, QUESTIONS) as asker:
            assert asker is not None
            for name, under in (
                ("a", Steering(direction, 0.5)),
                ("b", Steering(direction, -0.5)),
                ("c", Ablation(direction)),
            ):
                (tmp_path / name).mkdir()
                n_seen = len(seen)
                with under(tiny):
                    found = asker.ask(tiny, name, tmp_path / name, under=under)
                written = {row.answer for row in found}
                assert len(found) == 4 and (written == {"Red"}) == (name != "c") == (len(seen) > n_seen)
            kept = tmp_path / "a" / "samples.jsonl"
            kept.write_text("".join(kept.read_text().splitlines(keepends=True)[1:]))
            with pytest.raises(
                StageError, match=r"sampler\.steering.*0\.5"
            ):  # what is there is of the other coefficient
                asker.ask(tiny, "a", tmp_path / "a", under=Steering(direction, 0.25))
    assert {body["model"] for body in seen} == {"base"} and {body["vllm_xargs"]["theirs"] for body in seen} == {1}
    first, second = (read_json(tmp_path / name / "samples.json")["sampler"]["steering"][0] for name in ("a", "b"))
    assert (first["coefficient"], second["coefficient"], first["fit"]) == (0.5, -0.5, "selection")
    assert "steering" not in read_json(tmp_path / "c" / "samples.json")["sampler"]


def test_a_server_of_the_run_that_adds_nothing_is_refused(saved: Path, tiny: ChatModel, tmp_path: Path) -> None:
    with ChatServer(lambda body, asked: reply(PLAIN)) as server:
        run, _ = opened(run_config(server.url), tmp_path / "run")
        with cell_asker(run, QUESTIONS) as asker, pytest.raises(ModelError, match="vllm-lens"):
            assert asker is not None
            asker.ask(tiny, "a", tmp_path, under=Steering(Direction.load(saved), 0.5))
    assert not (tmp_path / "samples.jsonl").exists()


def test_steered_answers_come_from_the_server_of_the_run() -> None:
    with pytest.raises(ValueError, match=r"intervention\.engine openai: .*set sampling\.engine=openai"):
        RunConfig.model_validate(
            {"name": "test", "model": "tiny", "arms": [{"name": "base"}], "intervention": {"engine": "openai"}}
        )
