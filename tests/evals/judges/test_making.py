"""A configuration makes the judge that it names; the local one has a model of its own."""

from pathlib import Path
from typing import Any

import fake_vllm
import pytest
from adapters_made import made_adapter
from flag_words import filled

from emis_interp.config.pipeline_settings import RunSettings
from emis_interp.config.presets import load_config
from emis_interp.config.run_config import JudgeConfig
from emis_interp.errors import ConfigError
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.embedded import EMBEDDED_NAME
from emis_interp.models.precision import native_dtype
from emis_interp.records import Score
from evals.judges.local_judge import LocalJudge
from evals.judges.logprob_judge import OpenAIJudge
from evals.judges.making import made_judge
from evals.judges.offline_judge import OfflineJudge
from evals.judges.text_judge import TextJudge
from evals.questions import load_questions
from evals.sampling import plan_prompts
from evals.settings.judging import JudgeSettings


def test_every_kind_makes_its_judge() -> None:
    url = "http://h:1/v1"
    with made_judge(JudgeConfig(), "cpu") as offline, made_judge(JudgeConfig(kind="openai", url=url)) as logprob:
        assert isinstance(offline, OfflineJudge) and isinstance(logprob, OpenAIJudge)
    with made_judge(JudgeConfig(kind="text", url=url, model="x", n_samples=2, temperature=1)) as text:
        assert isinstance(text, TextJudge) and text.name == "text:x@h:1 (2 x temperature 1)"
    with made_judge(JudgeConfig(kind="local", model="tiny", dtype="float32"), "cpu") as local:
        assert isinstance(local, LocalJudge) and local.name == "local:tiny:float32"


def test_a_local_judge_without_a_model_is_the_embedded_one() -> None:
    assert JudgeConfig(kind="local").model == EMBEDDED_NAME
    assert JudgeConfig(kind="local", model="m").model == "m"
    assert JudgeConfig(kind="text").model == JudgeConfig().model != EMBEDDED_NAME
    for kind in ("local", "text"):
        whole = JudgeConfig(kind=kind)
        assert JudgeConfig.model_validate(whole.model_dump(mode="json")) == whole


def test_a_run_decides_the_dtype_of_its_local_judge() -> None:
    judge = load_config("smoke", ["judge.kind=local", "device=cpu"]).judge
    assert (judge.model, judge.dtype) == (EMBEDDED_NAME, native_dtype("cpu"))
    assert load_config("smoke", ["judge.kind=local", "judge.dtype=float32"]).judge.dtype == "float32"
    assert load_config("smoke").judge.dtype is None
    with pytest.raises(ConfigError, match=r"judge\.dtype"):
        load_config("smoke", ["judge.dtype=int8"])


def test_the_pipelines_flags_name_a_local_judge() -> None:
    def shown(*words: str) -> dict[str, object]:
        return filled(RunSettings, "--preset", "smoke", *words).config().judge.model_dump()

    assert shown("--judge", "local")["model"] == EMBEDDED_NAME
    found = shown("--judge", "local", "--judge-model", "tiny")
    assert (found["kind"], found["model"]) == ("local", "tiny")
    assert shown("--judge-model", "m")["kind"] == "openai"
    for words in (("--judge-url", "http://h/v1"), ("--request", "a=1")):
        with pytest.raises(ConfigError, match=f"{words[0]} is for an API judge"):
            shown("--judge", "local", *words)


@pytest.mark.parametrize(("kind", "adapter"), [("openai", False), ("text", True)])
def test_a_served_judge_starts_its_server_with_the_first_answer_and_is_the_same_judge_at_every_port(
    tiny: ChatModel, tmp_path: Path, kind: str, adapter: bool
) -> None:
    env = fake_vllm.environment(tmp_path / "env")
    tiny.model.save_pretrained(tmp_path / "judge")
    tiny.tokenizer.save_pretrained(tmp_path / "judge")
    values: dict[str, Any] = {"kind": kind, "engine": "vllm", "model": str(tmp_path / "judge"), "vllm_env": env}
    if adapter:
        values |= {"adapter": made_adapter(tmp_path / "adapter"), "cache_path": tmp_path / "cache.sqlite"}
    config = JudgeConfig.model_validate({**values, "server": {"max_model_len": 2048}})
    question = load_questions()[0]
    row = plan_prompts("a", [question], 1, seed=0)[0].answered("Because.", 1, "stop")
    names = set[str]()

    def n_started() -> int:
        return sum(isinstance(one, list) for one in fake_vllm.seen(env))

    for n_before in range(2):
        found: list[Score] = []
        with made_judge(config, "cpu") as judge:
            names.add(judge.name)
            judge.score([], {question.id: question}, found.extend)
            assert not found and n_started() == n_before
            for _ in range(2):
                judge.score([row], {question.id: question}, found.extend)
            assert n_started() == n_before + 1
        assert [one.aligned for one in found] == [73.0, 73.0] and {one.judge for one in found} == names
    (name,) = names
    assert name.startswith(f"{kind}:") and "@vllm-0.0+fake-float32" in name and "127.0.0.1" not in name
    words, *bodies = fake_vllm.seen(env)
    assert words[words.index("--max-model-len") + 1] == "2048" and ("--enable-lora" in words) == adapter
    asked = {body["model"] for body in bodies if isinstance(body, dict)}
    assert len(asked) == 1 and asked.pop().startswith("adapter-" if adapter else str(tmp_path))
    assert judge.card["model"] == str(tmp_path / "judge") and judge.card["vllm"] == "0.0+fake"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"engine": "vllm", "model": "m"}, "engine vllm: is for kind openai or text, not for offline"),
        ({"kind": "openai", "engine": "vllm"}, r"give the model that is served, judge\.model"),
        ({"kind": "text", "engine": "vllm", "model": "m", "url": "http://h/v1"}, "starts a server of its own"),
        ({"kind": "text", "server": {"seed": 1}}, "server: is for engine vllm"),
    ],
)
def test_settings_that_do_not_go_with_a_served_judge_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        JudgeConfig.model_validate(values)


def test_evaluates_flags_name_a_served_judge(tmp_path: Path) -> None:
    given: dict[str, Any] = {"judge": "openai", "engine": "vllm", "env": tmp_path}
    config = JudgeSettings(**given, model="m", dtype="float32").config
    assert (config.kind, config.engine, config.model, config.vllm_env) == ("openai", "vllm", "m", tmp_path)
    with pytest.raises(ConfigError, match="--judge-model is a name on a server that is there"):
        _ = JudgeSettings(**given, judge_model="m").config
    with pytest.raises(ConfigError, match="--env is not for --judge openai"):
        _ = JudgeSettings(judge="openai", env=tmp_path).config
    with pytest.raises(ConfigError, match="--engine is not for --judge local"):
        _ = JudgeSettings(judge="local", engine="vllm").config
