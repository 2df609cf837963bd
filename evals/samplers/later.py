"""A sampler that is made when it is first needed: a file of answers that is complete needs no model."""

from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from emis_interp.config.run_config import SamplingConfig
from emis_interp.files.rows import by_key
from emis_interp.files.store import RecordLog
from emis_interp.records import Completion
from evals.samplers import AnswerSampler, Key, OnBatch


class LaterSampler:
    """Stands for the sampler that `make` makes."""

    def __init__(self, make: Callable[[], AnswerSampler]) -> None:
        self._make = make

    @cached_property
    def made(self) -> AnswerSampler:
        return self._make()

    def make_for(self, plan: Sequence[Completion], path: Path) -> int:
        """Make the sampler if a file lacks answers of a plan; returns how many the file holds."""
        done = by_key(RecordLog(path).read(Completion), path)
        n_done = sum(item.key in done for item in plan)
        if n_done < len(plan):
            _ = self.made
        return n_done

    @property
    def card(self) -> dict[str, Any]:
        return self.made.card

    def sample(
        self, plan: Sequence[Completion], done: Collection[Key], config: SamplingConfig, *, on_batch: OnBatch
    ) -> dict[Key, str]:
        return self.made.sample(plan, done, config, on_batch=on_batch)
