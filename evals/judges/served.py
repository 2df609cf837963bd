"""Turns a chat model and a judge's method into a judge whose vLLM server starts with the first answer that is to be judged."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Self

from emis_interp.config.run_config import JudgeConfig
from emis_interp.models.adapter_files import adapter_folder
from emis_interp.models.precision import AUTO, dtype_name
from emis_interp.records import Completion, Question
from evals.engines.adapters import adapter_sha256
from evals.engines.environment import Environment
from evals.engines.server import Serving, kept_server
from evals.judges.api_judge import ApiJudge, options_from
from evals.judges.judge import OnBatch
from evals.judges.logprob_judge import OpenAIJudge
from evals.judges.text_judge import TextJudge

NOWHERE = "http://127.0.0.1:9/v1"
"""Stands for the address of a server that does not run yet; nothing is sent there."""


class ServedJudge:
    """An API judge of a model that this process serves; use it in a `with`, at whose end the server ends.

    It is the same judge at whichever port its server stands: its name and the keys of its cache hold vLLM's version and the number
    format in place of a host. An adapter is asked for by its hash.

    Args:
        config: of kind `openai` or `text`, whose `model` and `adapter` are served.
        device: `auto` for the dtype of that device.

    Raises:
        ModelError: no adapter there.
    """

    def __init__(self, config: JudgeConfig, environment: Environment, device: str = "auto") -> None:
        self._environment, self._open = environment, ExitStack()
        dtype = dtype_name(config.dtype or AUTO, device)
        folder = None if config.adapter is None else adapter_folder(config.adapter)
        sha256 = adapter_sha256(folder)
        adapters = {} if folder is None else {f"adapter-{sha256}"[:20]: folder}
        asked = next(iter(adapters), config.model)
        self._serving = Serving(config.model, adapters, dtype, flags=config.server or {})
        self._make = _maker(config, asked, f"vllm-{environment.version}-{dtype}")
        self._judge, self._runs = self._make(NOWHERE), False
        self.name, self.together = self._judge.name, self._judge.together
        self.card: dict[str, Any] = {
            **self._judge.card,
            "engine": "vllm",
            "model": config.model,
            "adapter": None if config.adapter is None else str(config.adapter),
            "adapter_sha256": sha256,
            "dtype": dtype,
            "vllm": environment.version,
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def score(self, completions: Sequence[Completion], questions: Mapping[str, Question], on_batch: OnBatch) -> None:
        """As `ApiJudge.score`.

        Raises:
            JudgeError: as there. ModelError: the server does not start.
        """
        if completions and not self._runs:
            server = self._open.enter_context(kept_server(self._serving, self._environment))
            self._judge, self._runs = self._make(server.url), True
        self._judge.score(completions, questions, on_batch)


def _maker(config: JudgeConfig, model: str, place: str) -> Callable[[str], ApiJudge]:
    """What makes the judge of a server at an address, which takes no key."""
    options = options_from(config)

    def make(url: str) -> ApiJudge:
        how: dict[str, Any] = {**options, "key": None, "url": url, "place": place}
        if config.kind == "text":
            return TextJudge(model, **how, n_samples=config.n_samples, temperature=config.temperature)
        return OpenAIJudge(model, **how)

    return make
