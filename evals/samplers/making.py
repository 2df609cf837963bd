"""Turns settings into the sampler that they name, its model loaded."""

import os

from emis_interp.errors import ConfigError
from emis_interp.http.addresses import OPENAI_KEY, key_variable_for
from emis_interp.http.chat_api import SAMPLER, ChatApi
from emis_interp.http.request_fields import parse_request
from emis_interp.models.precision import dtype_name
from emis_interp.models.spec import ModelSpec
from evals.samplers import AnswerSampler
from evals.samplers.hf import HFSampler
from evals.samplers.openai_compatible import OpenAISampler
from evals.samplers.vllm_engine import VLLMSampler
from evals.settings_sampling import SampleSettings


def make_sampler(settings: SampleSettings) -> AnswerSampler:
    """The sampler that the settings ask for.

    Raises:
        ConfigError: a setting of another sampler. ModelError: the model cannot be loaded, or the server not be asked.
    """
    if settings.sampler == "openai":
        return _remote(settings)
    if settings.url or settings.request:
        flag = "--url" if settings.url else "--request"
        raise ConfigError(f"{flag} is for --sampler openai, not for {settings.sampler or 'hf'}")
    model, adapter, chat_format = settings.model, settings.adapter, settings.chat_format
    if settings.sampler == "vllm":
        return VLLMSampler(model, adapter, dtype_name(settings.dtype), chat_format=chat_format)
    return HFSampler(ModelSpec(model, adapter, settings.dtype, settings.device, chat_format=chat_format).load())


def _remote(settings: SampleSettings) -> OpenAISampler:
    if settings.chat_format:
        raise ConfigError(
            "--chat-format is for --sampler hf and vllm; with openai the chat template is the server's own"
        )
    if settings.adapter:
        raise ConfigError(
            "--adapter: a server chooses its own weights; serve the adapter and give its name with --model"
        )
    variable = settings.key_variable or key_variable_for(OPENAI_KEY, settings.url)
    api = ChatApi(
        settings.model,
        os.environ.get(variable),
        settings.url,
        n_parallel=settings.n_parallel,
        timeout_s=settings.timeout,
        key_variable=variable,
        role=SAMPLER,
    )
    plain = False if settings.only_standard_fields else None
    return OpenAISampler(api, plain_sampling=plain, request=parse_request(settings.request))
