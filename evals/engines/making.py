"""Turns settings into the sampler that they name, its model loaded, or its server started when it is first needed."""

from collections.abc import Iterator
from contextlib import contextmanager

from emis_interp.errors import ConfigError
from emis_interp.http.request_fields import parse_request, with_request
from emis_interp.models.precision import dtype_name
from emis_interp.models.spec import ModelSpec
from evals.engines.environment import find_environment
from evals.engines.server import BASE, Serving
from evals.engines.vllm import VLLMEngine
from evals.samplers import AnswerSampler
from evals.samplers.hf import HFSampler
from evals.samplers.later import LaterSampler
from evals.samplers.llama import PROGRAM, LlamaSampler, Program, parse_options
from evals.samplers.openai_compatible import OpenAISampler, sampling_api
from evals.samplers.steered import Steered, SteeredHF, SteeredServer, parse_steering
from evals.settings.sampling import SampleSettings

ADAPTER = "adapter"
"""The name of the one adapter that is served."""


@contextmanager
def made_sampler(settings: SampleSettings) -> Iterator[AnswerSampler]:
    """The sampler that the settings ask for; a server that it starts ends with the `with`.

    Raises:
        ConfigError: a setting of another sampler. ModelError: the model cannot be loaded, or the server not be asked.
    """
    _check(settings)
    steered = parse_steering(settings.steer, settings.steer_fit)
    model, adapter, chat_format = settings.model, settings.adapter, settings.chat_format
    if settings.sampler == "openai":
        yield _remote(settings, steered)
        return
    if settings.sampler == "llama":
        yield _llama(settings, steered)
        return
    if settings.sampler != "vllm":
        spec = ModelSpec(model, adapter, settings.dtype, settings.device, chat_format=chat_format)
        sampler = HFSampler(spec.load())
        yield SteeredHF(sampler, steered) if steered else sampler
        return
    if steered:
        raise ConfigError(
            "--steer: the vLLM server that this command starts adds nothing; serve the model with vLLM and vllm-lens "
            "(docs/steered_sampling.md) and use --sampler openai"
        )
    adapters = {} if adapter is None else {ADAPTER: adapter}
    serving = Serving(model, adapters, dtype_name(settings.dtype))
    with VLLMEngine(serving, find_environment(settings.env)) as engine:
        yield LaterSampler(
            lambda: engine.sampler(
                ADAPTER if adapters else BASE,
                chat_format=chat_format,
                n_parallel=settings.n_parallel,
                timeout_s=settings.timeout,
                request=parse_request(settings.request),
            )
        )


def _check(settings: SampleSettings) -> None:
    """Refuse a setting that the sampler does not have."""
    sampler = settings.sampler or "hf"
    owners = {"url": ("openai",), "request": ("openai", "vllm"), "env": ("vllm",)}
    for name, samplers in owners.items():
        if getattr(settings, name) and sampler not in samplers:
            raise ConfigError(f"--{name} is for --sampler {' or '.join(samplers)}, not for {sampler}")
    if sampler != "llama" and (settings.llama or settings.llama_server != PROGRAM):
        flag = "--llama" if settings.llama else "--llama-server"
        raise ConfigError(f"{flag} is for --sampler llama, not for {sampler}")


def _llama(settings: SampleSettings, steered: Steered | None) -> LlamaSampler:
    if settings.chat_format:
        raise ConfigError(
            "--chat-format is for --sampler hf and vllm; with llama the chat template is the GGUF file's own"
        )
    if settings.adapter:
        raise ConfigError(
            "--adapter: --sampler llama runs one GGUF file; merge the adapter (scripts/export_model.py) and convert what comes of it"
        )
    program = Program((settings.llama_server,), parse_options(settings.llama))
    return LlamaSampler(settings.model, steered, program, n_parallel=settings.n_parallel, timeout_s=settings.timeout)


def _remote(settings: SampleSettings, steered: Steered | None) -> AnswerSampler:
    if settings.chat_format:
        raise ConfigError(
            "--chat-format is for --sampler hf and vllm; with openai the chat template is the server's own"
        )
    if settings.adapter:
        raise ConfigError(
            "--adapter: a server chooses its own weights; serve the adapter and give its name with --model"
        )
    how = {"n_parallel": settings.n_parallel, "timeout_s": settings.timeout}
    api = sampling_api(settings.model, settings.url, key_variable=settings.key_variable, **how)
    plain = False if settings.only_standard_fields else None
    request = parse_request(settings.request)
    if steered is None:
        return OpenAISampler(api, plain_sampling=plain, request=request)
    if api.address.is_openai:
        raise ConfigError("--steer: OpenAI's models cannot be steered; load a model here (--sampler hf), or give --url")
    return SteeredServer(lambda changes: OpenAISampler(api, plain, with_request(request, changes)), steered)
