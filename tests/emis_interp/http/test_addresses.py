"""URLs of servers: what is a URL, what may be in one, and which variable may hold its key."""

from pathlib import Path
from typing import Any

import pytest

from emis_interp.config.presets import load_config
from emis_interp.config.run_config import JudgeConfig, judge_key, judge_key_variable
from emis_interp.errors import ConfigError, DataError
from emis_interp.http.addresses import key_variable_for, read_address, url_problem
from evals.judges.logprob_judge import OpenAIJudge
from evals.judges.text_judge import TextJudge

SECRET = "hunter22"
AZURE = "https://us.openai.azure.com/openai/deployments/gpt/?api-version=2024-10-21"


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        (f"http://me:{SECRET}@host/v1", "password"),
        (f"http://{SECRET}@host/v1", "password"),
        (f"http://me:{SECRET}@host:port/v1", "password"),
        (f"http://host\\@{SECRET}/v1", "password"),
        (f"me:{SECRET}@host/v1", "password"),
        (f"http://[me:{SECRET}@host/v1", "password"),
        (f"http://host/v1?key={SECRET}", "must not contain a query"),
        (f"http://host/v1?api-version=1&key={SECRET}", "must not contain a query"),
        (f"http://host/v1?api-version={SECRET} x", "blank"),
        (f"http://host/v1?api-version=%0A{SECRET}", "one version of Azure's API"),
        (f"http://host/v1#{SECRET}", "must not contain a query"),
        (f"http://host/v1\n{SECRET}", "a line break at position 15"),
        ("http://host/v1\r", "a line break"),
        ("http://host/v1\t", "a blank at position 15"),
        (" http://host/v1", "a blank at position 1"),
        ("http://host/v\x001", "an unusual character"),
        ("http://hôst/v1", "an unusual character"),
        ("http://host\u202e/v1", "an unusual character"),
        ("localhost:8000/v1", "must look like"),
        ("ftp://host/v1", "must look like"),
        ("file:///etc/passwd", "must look like"),
        ("http://", "must look like"),
        ("http://host:port/v1", "must look like"),
        ("http://host:99999/v1", "must look like"),
        ("http://host:0/v1", "must look like"),
        ("http://[::1/v1", "must look like"),
        ("http://a b/v1", "a blank"),
        ("http://host/v1/chat/completions", "must end where the API begins"),
        ("https://us.openai.azure.com/openai/deployments/gpt", "lacks the version of its API"),
    ],
)
def test_a_url_that_is_none_or_holds_a_secret_is_refused_everywhere_without_repeating_it(
    url: str, problem: str
) -> None:
    found = url_problem(url)
    assert found is not None and problem in found and SECRET not in found
    for make in (lambda: JudgeConfig(kind="text", url=url), lambda: load_config("laptop", [f"judge.url={url!r}"])):
        with pytest.raises(ConfigError) as caught:
            make()
        assert SECRET not in str(caught.value) and "judge.url" in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("url", "base", "place", "is_azure"),
    [
        (None, "https://api.openai.com/v1", "api.openai.com", False),
        ("http://localhost:8000/v1/", "http://localhost:8000/v1", "localhost:8000", False),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1", "[::1]:8000", False),
        ("https://openrouter.ai/api/v1", "https://openrouter.ai/api/v1", "openrouter.ai/api/v1", False),
        (
            AZURE,
            "https://us.openai.azure.com/openai/deployments/gpt",
            "us.openai.azure.com/openai/deployments/gpt",
            True,
        ),
        (
            "https://us.openai.azure.com?api-version=preview",
            "https://us.openai.azure.com/openai",
            "us.openai.azure.com/openai",
            True,
        ),
        (
            "https://us.openai.azure.com/openai/v1/",
            "https://us.openai.azure.com/openai/v1",
            "us.openai.azure.com/openai/v1",
            False,
        ),
        (
            "https://us.services.ai.azure.com/models?api-version=2024-05-01-preview",
            "https://us.services.ai.azure.com/models",
            "us.services.ai.azure.com/models",
            False,
        ),
    ],
)
def test_a_url_is_read_as_where_the_api_begins_and_which_model_it_may_be(
    url: str | None, base: str, place: str, is_azure: bool
) -> None:
    assert url is None or url_problem(url) is None
    address = read_address(url)
    assert (address.base, address.place, address.is_azure) == (base, place, is_azure)


def test_a_url_with_a_password_reaches_no_file_of_a_run(tmp_path: Path) -> None:
    from small_run import pipeline

    given = ["--preset", "smoke", "--run-dir", str(tmp_path / "run"), "--judge-url", f"http://me:{SECRET}@localhost/v1"]
    with pytest.raises(ConfigError, match=r"judge\.url must not contain a password") as caught:
        pipeline(*given)
    assert SECRET not in str(caught.value)
    assert not (tmp_path / "run").exists()


# Keys.


def preset(tmp_path: Path, **judge: Any) -> str:
    path = tmp_path / "theirs.yaml"
    lines = "\n".join(f"  {name}: {value}" for name, value in judge.items())
    path.write_text(f"name: theirs\nmodel: tiny\narms: [{{name: base}}]\njudge:\n{lines}\n")
    return str(path)


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "PATH", "GITHUB_TOKEN", "api_keyring"])
def test_a_preset_may_not_have_any_secret_sent_to_its_server(tmp_path: Path, name: str) -> None:
    theirs = preset(tmp_path, kind="text", url="https://evil.example/v1", key_variable=name)
    with pytest.raises(ConfigError, match=rf"`{name}` does not end with API_KEY.*--set judge.key_variable=NAME"):
        load_config(theirs)
    assert load_config(theirs, [f"judge.key_variable={name}"]).judge.key_variable == name
    assert load_config(preset(tmp_path, key_variable="THEIR_API_KEY")).judge.key_variable == "THEIR_API_KEY"


def test_a_variable_is_a_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="key_variable"):
        load_config("laptop", ["judge.key_variable='A=B'"])


def test_a_job_folder_may_not_have_any_secret_sent_to_its_server(tmp_path: Path) -> None:
    from training.hosted.job_folder import JobRecord, JobRequest, StatusChange, key_variable_of

    request = JobRequest(model="m", n_epochs=1, data_sha256="0" * 64)
    record = JobRecord(
        data="d",
        n_rows=1,
        n_tokens=1,
        tokens_by="x",
        price=None,
        request=request,
        url="https://evil.example/v1",
        key_variable="AWS_SECRET_ACCESS_KEY",
        prepared_at=0,
        history=(StatusChange(at=0, status="prepared"),),
    )
    with pytest.raises(DataError, match=r"job.json: key_variable: `AWS_SECRET_ACCESS_KEY` .*--key-variable NAME"):
        key_variable_of(tmp_path, record)


def test_azure_takes_its_own_variable_where_it_is_set_and_no_other_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, key in (("OPENAI_API_KEY", "of-openai"), ("AZURE_OPENAI_API_KEY", "of-azure"), ("MY_API_KEY", "mine")):
        monkeypatch.setenv(name, key)
    config = JudgeConfig(kind="openai", url=AZURE)
    assert (judge_key_variable(config), judge_key(config)) == ("AZURE_OPENAI_API_KEY", "of-azure")
    assert judge_key(JudgeConfig(kind="openai", url="http://localhost/v1")) == "of-openai"
    assert judge_key(JudgeConfig(kind="openai", url=AZURE, key_variable="MY_API_KEY")) == "mine"
    assert key_variable_for("OPENAI_API_KEY", AZURE, {}) == "OPENAI_API_KEY"
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.delenv("AZURE_OPENAI_API_KEY")
    for judge in (OpenAIJudge, TextJudge):
        with pytest.raises(Exception, match=r"no API key for us.openai.azure.com: set .* AZURE_OPENAI_API_KEY"):
            judge.from_config(config)
