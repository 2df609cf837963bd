"""A configuration makes the judge that it names; the local one has a model of its own."""

import pytest
from flag_words import filled

from emis_interp.config.pipeline_settings import RunSettings
from emis_interp.config.presets import load_config
from emis_interp.config.run_config import JudgeConfig
from emis_interp.errors import ConfigError
from emis_interp.models.embedded import EMBEDDED_NAME
from emis_interp.models.precision import native_dtype
from evals.judges.local_judge import LocalJudge
from evals.judges.logprob_judge import OpenAIJudge
from evals.judges.making import make_judge
from evals.judges.offline_judge import OfflineJudge
from evals.judges.text_judge import TextJudge


def test_every_kind_makes_its_judge() -> None:
    url = "http://h:1/v1"
    assert isinstance(make_judge(JudgeConfig(), "cpu"), OfflineJudge)
    assert isinstance(make_judge(JudgeConfig(kind="openai", url=url)), OpenAIJudge)
    text = make_judge(JudgeConfig(kind="text", url=url, model="x", n_samples=2, temperature=1))
    assert isinstance(text, TextJudge) and text.name == "text:x@h:1 (2 x temperature 1)"
    local = make_judge(JudgeConfig(kind="local", model="tiny", dtype="float32"), "cpu")
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
