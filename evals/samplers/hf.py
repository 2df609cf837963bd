"""Turns planned prompts into answers of a loaded HF model (hooks and adapters included), in batches of like lengths."""

import itertools
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from emis_interp.config.run_config import SamplingConfig
from emis_interp.files.store import file_sha256
from emis_interp.models.chat import check_prompts, encode_prompt, end_tokens, read_answer
from emis_interp.models.chat_formats import format_of
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.chat_template import template_of
from emis_interp.passes.batch_rows import batch_rows
from emis_interp.passes.generate import Continuation, generate
from emis_interp.records import Completion
from evals.samplers import Key, OnBatch


class HFSampler:
    """Samples from a loaded model as it stands: within `steer` or `ablate` it answers with that intervention.

    Interventions with a tensor for each row have one for each answer of the plan, in its order, whatever batches it is cut into:
    `apply(model, Steer({18: by_question}).expand([number[item.question_id] for item in plan]))`.
    """

    def __init__(self, chat_model: ChatModel) -> None:
        self.chat_model = chat_model

    @property
    def card(self) -> dict[str, Any]:
        model, adapter = self.chat_model, self.chat_model.adapter
        return {
            "kind": "hf",
            "model": model.name,
            "quantisation": model.quantisation,
            "adapter": None if adapter is None else str(adapter),
            "adapter_sha256": _adapter_sha256(adapter),
            "chat_format": format_of(model.tokenizer),
            "rendering": template_of(model.tokenizer).card,
            "dtype": model.dtype,
            "stop_tokens": model.tokenizer.convert_ids_to_tokens(sorted(end_tokens(model))),
        }

    def sample(
        self, plan: Sequence[Completion], done: Collection[Key], config: SamplingConfig, *, on_batch: OnBatch
    ) -> dict[Key, str]:
        """Every answer of the plan; nothing stays missing. A plan with a prompt that does not fit raises a DataError before the first.

        A batch that is done in part is sampled as a whole and appended where it lacks, so that a resumed file equals an
        uninterrupted one.
        """
        encoded: dict[tuple[str, str | None], tuple[int, ...]] = {}
        for item in plan:
            if (item.question, item.system) not in encoded:
                encoded[item.question, item.system] = encode_prompt(
                    self.chat_model.tokenizer, item.question, item.system
                )
        prompts = [encoded[item.question, item.system] for item in plan]
        check_prompts(self.chat_model, prompts, config.max_new_tokens)
        for rows in plan_batches([len(prompt) for prompt in prompts], config.batch_size):
            if all(plan[i].key in done for i in rows):
                continue
            with batch_rows(self.chat_model, rows, len(plan), noun="answers planned"):
                written = generate(
                    self.chat_model,
                    [prompts[i] for i in rows],
                    [plan[i].seed for i in rows],
                    config.max_new_tokens,
                    config.temperature,
                )
            on_batch(
                [
                    self._filled(plan[i], answer)
                    for i, answer in zip(rows, written, strict=True)
                    if plan[i].key not in done
                ]
            )
        return {}

    def _filled(self, item: Completion, answer: Continuation) -> Completion:
        own, went_on = read_answer(self.chat_model.tokenizer, answer.tokens)
        return item.answered(own, len(answer.tokens), "stop" if went_on else answer.finish)


def plan_batches(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Indices in batches of at most `batch_size` and like size, shortest prompts first, equal prompts beside each other."""
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    n_batches = -(-len(order) // batch_size)
    edges = [len(order) * k // n_batches for k in range(n_batches + 1)] if n_batches else []
    return [order[start:end] for start, end in itertools.pairwise(edges)]


def _adapter_sha256(adapter: Path | None) -> str | None:
    path = None if adapter is None else adapter / "adapter_model.safetensors"
    return file_sha256(path) if path is not None and path.exists() else None
