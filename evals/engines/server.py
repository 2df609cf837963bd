"""Turns a model and its adapters into a vLLM server on this machine, and its address; ends it.

A server is either kept by this process (`kept_server`: it ends when this process does, however that ends) or started for good
(`start_server`), with a state file that `stop_server` reads.
"""

import contextlib
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai

from emis_interp.config.server_flags import dashed
from emis_interp.errors import ConfigError, ModelError, StageError, did_you_mean, printable
from emis_interp.files.store import read_record, write_sealed
from emis_interp.http.blocking import wait_for
from emis_interp.http.chat_api import SAMPLER, ChatApi
from emis_interp.models.checkpoint import resolve_with_weights
from emis_interp.models.gguf import cache_dir
from emis_interp.records import Record
from evals.engines.adapters import ServedAdapters, served_adapters
from evals.engines.environment import Environment, foreign_variables
from evals.samplers import keeper

log = logging.getLogger(__name__)
BASE = "base"
"""The name under which a server knows the model without an adapter, besides the model's own."""
PATIENCE_S = 900.0
_POLL_S, _HURRY_S = 1.0, 1.5
"""An interrupted command has four seconds (`emis_interp.ending`), within which what it started must end twice over."""
_OURS = (
    "host",
    "port",
    "dtype",
    "served-model-name",
    "enable-lora",
    "lora-modules",
    "max-lora-rank",
    "generation-config",
)
"""Flags of `vllm serve` that have settings of their own here, or no choice."""
_KEYS = ("api-key", "hf-token")


@dataclass(frozen=True)
class Serving:
    """What is served, and how.

    Attributes:
        model: name, folder or hub id; adapters: name -> folder or hub id of a LoRA adapter on it.
        port: of the loopback interface; 0 for any free one.
        flags: further ones of `vllm serve` without their dashes (`tensor-parallel-size: 4`); true for one without a value.
    """

    model: str
    adapters: Mapping[str, Path | str] = field(default_factory=dict)
    dtype: str = "float32"
    port: int = 0
    flags: Mapping[str, Any] = field(default_factory=dict)


class ServerState(Record):
    """A server that was started for good. `started` is in clock ticks since the machine was (`keeper.started_at`)."""

    pid: int
    started: int | None
    url: str
    names: tuple[str, ...]
    version: str
    log: str


@dataclass(frozen=True)
class RunningServer:
    """A server that answers: where its API begins, what it serves, and how many tokens a prompt and its answer may have."""

    url: str
    names: tuple[str, ...]
    max_tokens: int | None


@contextlib.contextmanager
def kept_server(
    serving: Serving, environment: Environment, *, patience_s: float = PATIENCE_S
) -> Iterator[RunningServer]:
    """A server for as long as the `with`; it does not outlive this process.

    Raises:
        ModelError: as `served_adapters`, or the server ends or does not answer in time, with the end of its log.
    """
    with tempfile.TemporaryDirectory(prefix="emis-vllm-") as place:
        scratch = Path(place)
        words, url = _command(serving, environment, scratch)
        log_file = scratch / "vllm.log"
        with keeper.kept(words, log_file, _variables(environment)) as process:
            yield _when_ready(url, lambda: process.poll() is None, log_file, patience_s=patience_s)


def start_server(
    serving: Serving, environment: Environment, state: Path, *, patience_s: float = PATIENCE_S
) -> ServerState:
    """Start a server that stays, and wait until it answers.

    Args:
        state: JSON file that says where it is; beside it stand its log and what it reads besides.

    Raises:
        StageError: the server of this file runs. ModelError: as `kept_server`; nothing is left running then.
    """
    if (found := running_server(state)) is not None:
        raise StageError(
            f"{state}: a server runs at {found.url} (process {found.pid}); end it first, or give another --state"
        )
    scratch = _scratch(state)
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    words, url = _command(serving, environment, scratch)
    log_file = scratch / "vllm.log"
    process = keeper.begin(words, log_file, _variables(environment))
    began = {"pid": process.pid, "started": keeper.started_at(process.pid), "url": url, "version": environment.version}
    try:
        write_sealed(state, {**began, "names": [], "log": str(log_file)})
        server = _when_ready(url, lambda: process.poll() is None, log_file, patience_s=patience_s)
    except BaseException:
        keeper.end_group(process.pid, _HURRY_S)
        state.unlink(missing_ok=True)
        raise
    found = ServerState(**began, names=server.names, log=str(log_file))
    write_sealed(state, found.model_dump(mode="json"))
    return found


def stop_server(state: Path) -> ServerState | None:
    """End the server of a state file; None where there is no file.

    Raises:
        DataError: the file is damaged.
    """
    if not state.exists():
        return None
    found = read_record(state, ServerState)
    if running_server(state) is not None:
        keeper.end_group(found.pid)
    state.unlink()
    shutil.rmtree(_scratch(state), ignore_errors=True)
    return found


def running_server(state: Path) -> ServerState | None:
    """The server of a state file, if its process runs."""
    if not state.exists():
        return None
    found = read_record(state, ServerState)
    return found if found.started is not None and keeper.started_at(found.pid) == found.started else None


def default_state() -> Path:
    return cache_dir() / "vllm-server.json"


def served_names(api: ChatApi) -> tuple[list[str], int | None]:
    """Names of the models behind an API, and the fewest tokens that one of them has room for, where the server says it.

    Raises:
        ModelError: no answer, or no list of models.
    """

    async def ask() -> list[dict[str, Any]]:
        async with api.connect() as client:
            return await api.models(client)

    try:
        rows = wait_for(ask())
    except openai.OpenAIError as error:
        why = api.refusal(error, "requests for /models") or api.say(error)
        raise ModelError(f"{api.host}: the models of the server cannot be listed: {why}") from None
    if not rows:
        raise ModelError(f"{api.host}: the server lists no models at /models; check the address")
    lengths = [row["max_model_len"] for row in rows if isinstance(row.get("max_model_len"), int)]
    return [str(row["id"]) for row in rows], min(lengths, default=None)


def check_names(where: str, wanted: Sequence[str], names: Sequence[str]) -> None:
    """Refuse a server that lacks a model.

    Raises:
        ModelError: with the names that are missing, and those that there are.
    """
    if missing := [name for name in wanted if name not in names]:
        said = ", ".join(f"`{name}`" for name in missing)
        raise ModelError(
            f"{where}: the server has no model {said}{did_you_mean(missing[0], names)}; serve each arm under its name "
            "(scripts/vllm_server.py start --run RUN)"
        )


def _command(serving: Serving, environment: Environment, scratch: Path) -> tuple[list[str], str]:
    """The words that start a server, and where its API will begin."""
    model = str(resolve_with_weights(serving.model))
    adapters = served_adapters(serving.adapters, scratch / "adapters")
    port = serving.port or keeper.free_port()
    return [
        str(environment.python),
        "-m",
        "vllm.entrypoints.cli.main",
        "serve",
        model,
        *words_of(serving, environment, adapters, port=port),
    ], f"http://{keeper.LOOPBACK}:{port}/v1"


def words_of(serving: Serving, environment: Environment, adapters: ServedAdapters, *, port: int) -> list[str]:
    """Flags of `vllm serve`. The model's own generation config (top-p, repetition penalty, ...) is left out by one of them.

    On a CPU prompts are not read in parts: vLLM 0.32 ends there at a request with a seed whose prompt is (docs/evaluation.md).

    Raises:
        ConfigError: a flag that has a setting of its own, or a key.
    """
    names = [BASE] if serving.model == BASE else [BASE, serving.model]
    if taken := set(names) & set(adapters.folders):
        raise ConfigError(f"adapter `{min(taken)}`: the model itself is served under this name; choose another")
    plain: dict[str, Any] = (
        {"enforce-eager": True, "no-enable-chunked-prefill": True} if environment.device == "cpu" else {}
    )
    given = {dashed(name): value for name, value in serving.flags.items()}
    # A beginning of a flag's name may stand for the flag.
    if refused := [name for name in given if any(own.startswith(name) for own in _OURS)]:
        raise ConfigError(f"`{refused[0]}` is no further flag of the server: it is set here already")
    if refused := [name for name in given if any(key.startswith(name) for key in _KEYS)]:
        raise ConfigError(
            f"`{refused[0]}` would stand in the list of processes for everyone to read; the server answers this machine alone, leave it out"
        )
    words = ["--host", keeper.LOOPBACK, "--port", str(port), "--dtype", serving.dtype, "--generation-config", "vllm"]
    words += ["--served-model-name", *names, *adapters.words]
    for name, value in {**plain, **given}.items():
        if value is not None and value is not False:
            words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return words


def _variables(environment: Environment) -> dict[str, str]:
    """The environment of a server: what is set there already stands."""
    ours = {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    if environment.device == "cpu":  # a step of a busy CPU takes longer than a GPU's, after which vLLM gives up
        ours |= {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS": "3600"}
        ours |= {"VLLM_ENGINE_READY_TIMEOUT_S": "3600"}
    return {**ours, **foreign_variables()}


def _when_ready(url: str, runs: Callable[[], bool], log_file: Path, *, patience_s: float) -> RunningServer:
    log.info("starting vLLM at %s (a minute or two)", url)
    until, api = time.monotonic() + patience_s, ChatApi("", url=url, timeout_s=30, max_retries=0, role=SAMPLER)
    while time.monotonic() < until:
        if not runs():
            raise ModelError(f"vLLM ended while it started: {_last_words(log_file)}")
        with contextlib.suppress(ModelError):
            names, max_tokens = served_names(api)
            return RunningServer(url, tuple(names), max_tokens)
        time.sleep(_POLL_S)
    raise ModelError(f"vLLM did not answer within {patience_s:g} s: {_last_words(log_file)}")


def _last_words(log_file: Path) -> str:
    """The line of a log that says why, else its last one."""
    try:
        lines = [line.strip() for line in log_file.read_text("utf-8", "replace").splitlines() if line.strip()]
    except OSError:
        lines = []
    reasons = [line for line in lines if "Error: " in line and "RuntimeError: Engine core init" not in line]
    return printable((reasons or lines or ["it wrote nothing"])[-1], 400)


def _scratch(state: Path) -> Path:
    return state.with_name(f"{state.name}.files")
