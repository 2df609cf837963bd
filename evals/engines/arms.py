"""Turns the models of a run into samplers of the engine that its configuration names: one engine for all of them."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from emis_interp.config.run_config import ModelConfig, RunConfig
from emis_interp.config.run_folder import RunFolder
from emis_interp.config.run_models import ModelSource
from emis_interp.errors import ConfigError, StageError
from emis_interp.http.chat_api import ChatApi
from emis_interp.http.request_fields import with_request
from emis_interp.models.chat_formats import with_examples
from emis_interp.models.lora_config import SETTINGS
from emis_interp.passes.effects import Steering
from evals.engines.environment import find_environment
from evals.engines.server import BASE, Serving, check_names, served_names
from evals.engines.vllm import VLLMEngine
from evals.samplers import AnswerSampler
from evals.samplers.hf import HFSampler
from evals.samplers.openai_compatible import OpenAISampler, sampling_api
from evals.samplers.steered import Steered, SteeredServer

SamplerOf = Callable[[ModelConfig], AnswerSampler]
"""Called when the first answer of a model is needed."""


def check_engine(run: RunFolder) -> None:
    """Refuse what the engine of a run cannot do, before anything is trained.

    Raises:
        ConfigError: what it cannot do, or what is not installed; with what to do.
    """
    config, engine = run.config, run.config.sampling.engine
    sources = {model.name: run.source(model) for model in config.models}
    if engine == "vllm":
        find_environment(config.sampling.vllm_env)
        if whole := [name for name, source in sources.items() if source.checkpoint is not None]:
            raise ConfigError(
                f"sampling.engine vllm: every weight of `{whole[0]}` is trained, and one server serves adapters of one model; "
                "set sampling.engine=hf, or serve the models yourself and set sampling.engine=openai"
            )
    if engine == "openai":
        if config.chat_format is not None:
            raise ConfigError(
                "sampling.engine openai: prompts are rendered by the server, not in the run's chat_format; set sampling.engine=vllm or hf"
            )
        if shown := [name for name, source in sources.items() if source.examples is not None]:
            raise ConfigError(
                f"sampling.engine openai: prompts are rendered by the server, without the examples of `{shown[0]}` (in_context); "
                "set sampling.engine=vllm or hf"
            )


@contextmanager
def samplers_of(run: RunFolder) -> Iterator[SamplerOf]:
    """Samplers of the models of a run; a server that the run starts ends with the `with`."""
    config, engine = run.config, run.config.sampling.engine
    check_engine(run)
    if engine == "openai":
        yield _remote(config)
        return
    if engine == "hf":
        yield lambda model: HFSampler(run.models.load(model))
        return
    sources = {model.name: run.source(model) for model in config.models}
    with VLLMEngine(serving_of(config, sources), find_environment(config.sampling.vllm_env)) as served:

        def of(model: ModelConfig) -> AnswerSampler:
            examples = sources[model.name].examples
            return served.sampler(
                BASE if sources[model.name].adapter is None else model.name,
                tokenizer=None if examples is None else with_examples(run.models.tokenizer, examples()),
                chat_format=config.chat_format,
                n_parallel=config.sampling.n_parallel,
                timeout_s=config.sampling.timeout_s,
                request=config.sampling.request,
            )

        yield of


def serving_of(config: RunConfig, sources: Mapping[str, ModelSource]) -> Serving:
    """The base model of a run with every adapter of its arms, each under the name of its model.

    Raises:
        StageError: one is not trained yet.
    """
    adapters = {name: source.adapter for name, source in sources.items() if source.adapter is not None}
    for name, folder in adapters.items():
        if not (folder / SETTINGS).exists():
            raise StageError(f"{folder}: no adapter of `{name}` there; run the train stage first (--from train)")
    return Serving(config.model, adapters, config.dtype, flags=config.sampling.server or {})


def _remote(config: RunConfig) -> SamplerOf:
    """Samplers of the server at `base_url`, which is asked for its models first."""
    found: list[str] = []

    def of(model: ModelConfig) -> AnswerSampler:
        api = _api(config, model.name)
        if not found:
            found.extend(served_names(api)[0])
            check_names(api.host, [one.name for one in config.models], found)
        return OpenAISampler(api, request=config.sampling.request)

    return of


def steered_sampler_of(config: RunConfig) -> Callable[[Steering], AnswerSampler]:
    """Samplers of base under a steering, by the server at `base_url`, which has to be vLLM with vllm-lens (`SteeredServer` asks)."""
    api, request = _api(config, BASE), config.sampling.request or {}

    def of(steering: Steering) -> AnswerSampler:
        steered = Steered((steering,), "selection")
        return SteeredServer(lambda changes: OpenAISampler(api, request=with_request(request, changes)), steered)

    return of


def _api(config: RunConfig, model: str) -> ChatApi:
    sampling = config.sampling
    return sampling_api(model, sampling.base_url, n_parallel=sampling.n_parallel, timeout_s=sampling.timeout_s)
