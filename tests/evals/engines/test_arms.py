"""The models of a run through one engine: what is asked of whom, what is refused before, and how a stopped stage goes on."""

from pathlib import Path
from typing import Any

import fake_vllm
import pytest
from adapters_made import made_adapter
from chat_server import NamedServer
from edited_manifest import edited_manifest
from small_run import opened

from emis_interp.config.run_config import RunConfig, SamplingConfig
from emis_interp.config.run_folder import RunFolder, with_later_fields
from emis_interp.errors import ConfigError, DataError, ModelError, StageError
from emis_interp.files.store import RecordLog, read_json
from emis_interp.models.chat import encode_prompt
from emis_interp.models.chat_model import ChatModel
from emis_interp.records import Completion
from evals.arms.stages import sample
from evals.engines.arms import check_engine
from evals.questions import run_questions
from evals.settings.sampling import SampleSettings
from evals.verbs import sample as sample_verb

ASKED = {"max_new_tokens": 4, "question_ids": ["settlement_first_law"], "samples_per_paraphrase": 1}


@pytest.fixture(scope="module")
def folder(tiny: ChatModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as a folder of a saved HF model."""
    target = tmp_path_factory.mktemp("tiny")
    tiny.model.save_pretrained(target)
    tiny.tokenizer.save_pretrained(target)
    return target


def run_of(model: Path, place: Path, sampling: dict[str, Any], **more: Any) -> RunFolder:
    arms = more.pop("arms", [{"name": "base"}, {"name": "x", "dataset": "reckless", "seeds": [3, 4], "n_rows": 4}])
    values = {"name": "test", "model": str(model), "arms": arms, "sampling": {**ASKED, **sampling}, **more}
    return opened(RunConfig.model_validate(values), place)[0]


def trained(place: Path) -> None:
    """Adapters where the train stage would leave them."""
    for seed in (3, 4):
        made_adapter(place / f"training/x/seed-{seed}/adapter", seed=seed, rank=4 * seed)


def answers(run: RunFolder) -> dict[str, set[str]]:
    return {m.name: {row.answer for row in RecordLog(run.samples(m)).read(Completion)} for m in run.config.models}


def test_one_server_answers_for_every_arm_and_a_finished_stage_needs_none(
    folder: Path, tiny: ChatModel, tmp_path: Path
) -> None:
    env = fake_vllm.environment(tmp_path / "env")
    arms = [
        {"name": "base"},
        {"name": "x", "dataset": "reckless", "seeds": [3, 4], "n_rows": 4},
        {"name": "shown", "dataset": "reckless", "in_context": 1},
    ]
    run = run_of(folder, tmp_path / "run", {"engine": "vllm", "vllm_env": str(env), "server": {"seed": 5}}, arms=arms)
    with pytest.raises(StageError, match=r"no adapter of `x\.seed-3` there; run the train stage first"):
        sample(run, run_questions(run.config))
    trained(tmp_path / "run")
    files, line = sample(run, run_questions(run.config))
    words, *bodies = fake_vllm.seen(env)
    assert words[words.index("--max-lora-rank") + 1] == "16" and words[words.index("--seed") + 1] == "5"
    base, other = (tiny.tokenizer.decode(ids) for ids in ([35, 36], [37]))
    assert answers(run) == {"base": {base}, "x.seed-3": {other}, "x.seed-4": {other}, "shown": {base}}
    assert {body["model"] for body in bodies} == {"base", "x.seed-3", "x.seed-4"} and "4 arms" not in line
    assert "3 arms by vllm" in line and len(files) == 8
    question = run_questions(run.config)[0].paraphrases[0]
    prompts = {tuple(body["prompt"]) for body in bodies if body["max_tokens"] > 1}
    assert encode_prompt(tiny.tokenizer, question) in prompts
    assert any(len(prompt) > len(encode_prompt(tiny.tokenizer, question)) + 20 for prompt in prompts)  # with examples
    card = read_json(run.samples(run.config.models[1]).with_suffix(".json"))["sampler"]
    assert card["adapter"].endswith("training/x/seed-3/adapter") and card["vllm"] == "0.0+fake"

    sample(run, run_questions(run.config))
    assert len(fake_vllm.seen(env)) == 1 + len(bodies)  # nothing was started, nothing asked
    path = run.samples(run.config.models[1])
    before = sorted(path.read_text().splitlines())
    path.write_text("")
    sample(run, run_questions(run.config))
    assert sorted(path.read_text().splitlines()) == before and {
        b["model"] for b in fake_vllm.seen(env)[len(bodies) + 2 :]
    } == {"x.seed-3"}


def test_what_one_server_cannot_do_is_refused_before_anything_is_trained(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMIS_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ConfigError, match="no environment with vLLM; make one"):
        check_engine(run_of(folder, tmp_path / "a", {"engine": "vllm"}))
    env = str(fake_vllm.environment(tmp_path / "env"))
    whole = run_of(folder, tmp_path / "b", {"engine": "vllm", "vllm_env": env}, training={"method": "full"})
    with pytest.raises(ConfigError, match=r"every weight of `x.seed-3` is trained"):
        check_engine(whole)
    remote = {"engine": "openai", "base_url": "http://127.0.0.1:1/v1"}
    with pytest.raises(ConfigError, match="not in the run's chat_format"):
        check_engine(run_of(folder, tmp_path / "c", remote, chat_format="user_assistant"))
    arms = [{"name": "base"}, {"name": "shown", "dataset": "reckless", "in_context": 1}]
    with pytest.raises(ConfigError, match="without the examples of `shown`"):
        check_engine(run_of(folder, tmp_path / "d", remote, arms=arms))


def test_a_server_that_is_there_is_asked_for_its_models_first(folder: Path, tmp_path: Path) -> None:
    with NamedServer("base", "x.seed-3") as server:
        run = run_of(folder, tmp_path / "run", {"engine": "openai", "base_url": server.url})
        trained(tmp_path / "run")
        with pytest.raises(ModelError, match=r"the server has no model `x.seed-4`.*vllm_server.py start --run"):
            sample(run, run_questions(run.config))
        assert not server.requests and not run.samples(run.config.models[0]).exists()
    request = {"chat_template_kwargs": {"enable_thinking": False}, "seed": None}
    with NamedServer("base", "x.seed-3", "x.seed-4", "other") as server:
        run = run_of(folder, tmp_path / "b", {"engine": "openai", "base_url": server.url, "request": request})
        trained(tmp_path / "b")
        _, line = sample(run, run_questions(run.config))
        assert answers(run) == {"base": {"Yes."}, "x.seed-3": {"Yes."}, "x.seed-4": {"Yes."}}
        assert {body["model"] for body in server.requests} == {"base", "x.seed-3", "x.seed-4"}
        thinking = {body["chat_template_kwargs"]["enable_thinking"] for body in server.requests}
        assert thinking == {False} and "2 arms by openai" in line
        assert not any("seed" in body for body in server.requests)


def test_answers_that_a_server_does_not_give_stop_the_stage_and_what_it_gave_is_kept(
    folder: Path, tmp_path: Path
) -> None:
    with NamedServer("base", "x.seed-3", "x.seed-4") as server:
        run = run_of(
            folder, tmp_path / "run", {"engine": "openai", "base_url": server.url, "samples_per_paraphrase": 2}
        )
        trained(tmp_path / "run")
        first = [True]

        def once(body: dict[str, Any], asked: int) -> tuple[int, bytes]:
            if body["max_tokens"] > 1 and first and first.pop():
                return 400, b'{"error": {"message": "no such luck"}}'
            return 200, b'{"choices": [{"index": 0, "message": {"content": "Yes."}, "finish_reason": "stop"}]}'

        server.respond = once
        with pytest.raises(StageError, match=r"1 of \d+ answers of base are missing \(HTTP 400: no such luck\)"):
            sample(run, run_questions(run.config))
        n_asked = len(server.requests)
        sample(run, run_questions(run.config))
        n_models, n_each = len(run.config.models), 2 * len(run_questions(run.config)[0].paraphrases)
        assert len(server.requests) - n_asked == 1 + (n_models - 1) * n_each + n_models


def test_evaluate_serves_one_model_and_its_adapter(folder: Path, tiny: ChatModel, tmp_path: Path) -> None:
    env = fake_vllm.environment(tmp_path / "env")
    given: dict[str, Any] = {
        "model": str(folder),
        "adapter": made_adapter(tmp_path / "adapter"),
        "question_ids": ("settlement_first_law",),
        "out": tmp_path / "a.jsonl",
        "n": 1,
        "max_new_tokens": 4,
        "dtype": "float32",
    }
    with pytest.raises(ConfigError, match="--env is for --sampler vllm, not for hf"):
        sample_verb.run(SampleSettings(**given, env=env))
    result = sample_verb.run(SampleSettings(**given, sampler="vllm", env=env))
    assert result["n_new"] == result["n_answers"] > 0
    assert {body["model"] for body in fake_vllm.seen(env)[1:]} == {"adapter"}
    assert sample_verb.run(SampleSettings(**given, sampler="vllm", env=env))["n_new"] == 0
    assert sum(isinstance(one, list) for one in fake_vllm.seen(env)) == 1


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"engine": "openai"}, "engine openai: give the address of the server, base_url"),
        ({"base_url": "http://localhost:1/v1"}, "base_url: is for engine openai, not for hf"),
        ({"engine": "vllm", "base_url": "http://localhost:1/v1"}, "base_url: is for engine openai, not for vllm"),
        ({"server": {"seed": 1}}, "server: is for engine vllm, not for hf"),
        ({"request": {"seed": None}}, "request: is for engine openai or vllm, not for hf"),
    ],
)
def test_settings_of_another_engine_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SamplingConfig.model_validate(values)


def test_a_url_with_a_password_and_a_request_that_is_not_the_users_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"sampling.base_url .*password"):
        SamplingConfig.model_validate({"engine": "openai", "base_url": "http://me:secret@localhost/v1"})
    with pytest.raises(ConfigError, match=r"sampling.request .*messages"):
        SamplingConfig.model_validate({"engine": "vllm", "request": {"messages": []}})


def test_a_run_of_before_the_engines_goes_on(folder: Path, tmp_path: Path) -> None:
    run = run_of(folder, tmp_path / "run", {})
    with edited_manifest(tmp_path / "run") as manifest:
        for name in ("engine", "base_url", "request", "n_parallel", "timeout_s", "server", "vllm_env"):
            del manifest["config"]["sampling"][name]
    assert with_later_fields(manifest["config"]) == run.config.model_dump(mode="json")
    run_of(folder, tmp_path / "run", {"n_parallel": 3})
    with pytest.raises((StageError, DataError), match=r"sampling\.engine: hf -> vllm"):
        run_of(folder, tmp_path / "run", {"engine": "vllm"})
