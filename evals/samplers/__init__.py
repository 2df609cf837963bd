"""Turns planned prompts into answers: a HF model here, an OpenAI-compatible server, or vLLM, behind one protocol."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

from emis_interp.config.run_config import SamplingConfig
from emis_interp.records import Completion

Key = tuple[str, str, int, int]
"""(arm, question id, paraphrase index, sample index) of an answer."""
OnBatch = Callable[[list[Completion]], None]
"""Called with answers as they are finished; each answer once."""


class AnswerSampler(Protocol):
    """What `evals.sampling.sample_with` needs.

    Attributes:
        card: what decides the answers besides the plan and the `SamplingConfig` (kind, model, stop rules, ...), in JSON's own types;
            without secrets.
    """

    @property
    def card(self) -> dict[str, Any]: ...

    def sample(
        self, plan: Sequence[Completion], done: Collection[Key], config: SamplingConfig, *, on_batch: OnBatch
    ) -> dict[Key, str]:
        """Answer every item of `plan` that is not in `done`; returns the reason for each one that stays without an answer.

        The whole plan is given so that batches can be made of it, whatever is done already.
        """
        ...
