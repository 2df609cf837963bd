"""Turns a model and its adapters into samplers of one vLLM server, which starts when the first of them is needed."""

from collections.abc import Mapping
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from transformers import GenerationConfig

from emis_interp.http.chat_api import SAMPLER, ChatApi
from emis_interp.models.chat import ends_of
from emis_interp.models.checkpoint import resolve_with_weights
from emis_interp.models.loading import load_tokenizer
from evals.engines.adapters import adapter_sha256
from evals.engines.environment import Environment
from evals.engines.server import BASE, RunningServer, Serving, kept_server
from evals.samplers.vllm_engine import VLLMSampler


class VLLMEngine:
    """One server of a model and its adapters; use it in a `with`, at whose end the server ends.

    Args:
        serving: model and adapters, which need not be there before the first sampler is asked.
    """

    def __init__(self, serving: Serving, environment: Environment) -> None:
        self.serving, self.environment = serving, environment
        self._open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @cached_property
    def server(self) -> RunningServer:
        """The running server."""
        return self._open.enter_context(kept_server(self.serving, self.environment))

    def sampler(
        self,
        name: str = BASE,
        *,
        tokenizer: Any = None,
        chat_format: str | None = None,
        n_parallel: int = 64,
        timeout_s: float = 600.0,
        request: Mapping[str, Any] | None = None,
    ) -> VLLMSampler:
        """A sampler of one model of the server.

        Args:
            name: of an adapter, or `base`.
            tokenizer: instead of the model's, or the adapter's own.
        """
        given = self.serving.adapters.get(name)
        adapter = None if given is None else Path(given)
        if tokenizer is None:
            tokenizer = load_tokenizer(self.serving.model, chat_format, adapter)
        stops = ends_of(tokenizer, _generation_config(self.serving.model))
        api = ChatApi(name, url=self.server.url, n_parallel=n_parallel, timeout_s=timeout_s, role=SAMPLER)
        card = {
            "model": self.serving.model,
            "adapter": None if adapter is None else str(adapter),
            "adapter_sha256": adapter_sha256(adapter),
            "dtype": self.serving.dtype,
            "vllm": self.environment.version,
        }
        return VLLMSampler(api, tokenizer, stops, card=card, max_tokens=self.server.max_tokens, request=request)


def _generation_config(model: str) -> GenerationConfig | None:
    try:
        return GenerationConfig.from_pretrained(resolve_with_weights(model))
    except OSError:  # a checkpoint without one
        return None
