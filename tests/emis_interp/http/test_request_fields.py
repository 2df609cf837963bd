"""Fields of a request by flag: how they are read, laid over the others, told apart, and named when a server refuses one."""

from typing import Any

import pytest

from emis_interp.config.presets import load_config
from emis_interp.config.run_config import JudgeConfig
from emis_interp.errors import ConfigError
from emis_interp.http.request_fields import parse_request, refused_field, say_request, token_limit, with_request

FIELDS = {"max_tokens": 16, "temperature": 0, "logprobs": True, "top_logprobs": 20}


@pytest.mark.parametrize(
    ("settings", "sent"),
    [
        ([], FIELDS),
        (["top_logprobs=5"], {**FIELDS, "top_logprobs": 5}),
        (["temperature="], {key: value for key, value in FIELDS.items() if key != "temperature"}),
        (["temperature=null"], {key: value for key, value in FIELDS.items() if key != "temperature"}),
        (["temperature=1e-1"], {**FIELDS, "temperature": 0.1}),
        (["user='1e3'"], {**FIELDS, "user": "1e3"}),
        (["stop=[a, b]"], {**FIELDS, "stop": ["a", "b"]}),
        (
            ["chat_template_kwargs.enable_thinking=false", "chat_template_kwargs.a=1"],
            {**FIELDS, "chat_template_kwargs": {"enable_thinking": False, "a": 1}},
        ),
        (["extra_body.top_k=5"], {**FIELDS, "top_k": 5}),
        (['extra_body={"top_k": 5, "x": {"y": 1}}', "x.z=2"], {**FIELDS, "top_k": 5, "x": {"y": 1, "z": 2}}),
        (["extra_body.temperature="], {key: value for key, value in FIELDS.items() if key != "temperature"}),
        (["provider.order=[a]", "missing="], {**FIELDS, "provider": {"order": ["a"]}}),
        (["url=http://a=b"], {**FIELDS, "url": "http://a=b"}),
        (["stream=false"], {**FIELDS, "stream": False}),
        (["api-version=2024-10-21"], {**FIELDS, "api-version": "2024-10-21"}),
    ],
)
def test_settings_are_laid_over_the_fields(settings: list[str], sent: dict[str, Any]) -> None:
    assert with_request(FIELDS, parse_request(settings)) == sent


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (["top_p"], "expected KEY=VALUE"),
        (["=1"], "expected KEY=VALUE"),
        (["a..b=1"], "expected KEY=VALUE"),
        (["a=1", "a=2"], "`a` is given twice"),
        (["a=1", "a.b=2"], "cannot hold `b`"),
        (["a=[1"], "while parsing"),
        (["a=.nan"], "what JSON does not have"),
        (["messages=[]"], "`messages` cannot be set"),
        (["model=x"], "`model` cannot be set"),
        (["extra_body.model=x"], "`model` cannot be set"),
        (["api_key=sk-1"], "a key belongs in the environment"),
        (["extra_body.Authorization=x"], "a key belongs in the environment"),
        (["stream=true"], "`stream` cannot be set"),
        (["n=4"], "`n` cannot be set: one reply is read"),
        (["extra_headers.x=1"], "only fields of the body"),
    ],
)
def test_what_is_no_field_of_the_users_is_refused(settings: list[str], problem: str) -> None:
    with pytest.raises(ConfigError, match="--request") as caught:
        parse_request(settings)
    assert problem in str(caught.value)


def test_a_preset_and_the_pipelines_flags_take_the_same_fields() -> None:
    config = load_config(
        "laptop", ["judge.request.temperature=", "judge.request.chat_template_kwargs.enable_thinking=false"]
    )
    assert config.judge.request == {"temperature": None, "chat_template_kwargs": {"enable_thinking": False}}
    with pytest.raises(ConfigError, match=r"judge\.request `stream` cannot be set"):
        JudgeConfig(request={"stream": True})


def test_the_pipelines_flag_is_for_api_judges() -> None:
    from small_run import pipeline

    words = ["--show-config", "--request", "temperature=", "--request", "a.b=2"]
    with pytest.raises(ConfigError, match="--request is for an API judge"):
        pipeline(*words)
    shown = pipeline(*words, "--judge", "text")
    assert shown["judge"]["request"] == {"temperature": None, "a": {"b": 2}}
    with pytest.raises(ConfigError, match="--request x: expected KEY=VALUE"):
        pipeline("--judge", "text", "--request", "x")


def test_two_requests_that_differ_read_differently() -> None:
    texts = [[], ["a="], ["a=1"], ['a="1"'], ["a.b=1"], ["a=1", "b=2"], ["a=true"]]
    assert len({say_request(parse_request(text)) for text in texts}) == len(texts)
    assert (
        say_request(parse_request(["b=2", "a="])) == say_request(parse_request(["a=", "extra_body.b=2"])) == "a=, b=2"
    )


def test_the_limit_of_tokens_is_known_by_each_of_its_names() -> None:
    assert token_limit(FIELDS) == 16
    assert token_limit(with_request(FIELDS, parse_request(["max_tokens=", "max_completion_tokens=99"]))) == 99
    assert token_limit({}) is None and token_limit({"max_tokens": True}) is None


@pytest.mark.parametrize(
    ("said", "param", "field"),
    [
        (
            "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead.",
            None,
            "max_tokens",
        ),
        ("Unsupported value: 'temperature' does not support 0", "temperature", "temperature"),
        ("top_logprobs must be at most 5", None, "top_logprobs"),
        ("logprobs are not supported by this model", None, "logprobs"),
        ("Invalid topLogprobs", None, "top_logprobs"),
        ("max-tokens: too small", None, "max_tokens"),
        ("Max tokens has to be at least 16", None, "max_tokens"),
        ('[{"loc": ["body", "top_logprobs"], "msg": "le 5"}]', None, "top_logprobs"),
        ("my_temperature is wrong", None, None),
        ("no", "logprobs", "logprobs"),
        ("no", "messages", None),
        ("x" * 10_000_000 + "temperature", None, None),
    ],
)
def test_the_field_that_a_server_means_is_found(said: str, param: str | None, field: str | None) -> None:
    assert refused_field(said, FIELDS, param) == field
