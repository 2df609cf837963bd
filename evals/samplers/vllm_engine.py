"""Turns planned prompts into answers of a vLLM engine in this process; needs the extra `vllm`.

Not run on hardware by this project: what is tested is which arguments it gives to vLLM and how it reads what comes back.
"""

import tempfile
from collections.abc import Collection, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from emis_interp.config.run_config import SamplingConfig
from emis_interp.errors import ModelError
from emis_interp.files.store import file_sha256
from emis_interp.models.adapter_files import WEIGHTS, adapter_folder
from emis_interp.models.chat import encode_prompt, ends_of, read_answer
from emis_interp.models.chat_formats import format_of
from emis_interp.models.chat_template import template_of
from emis_interp.models.checkpoint import resolve_with_weights
from emis_interp.models.context import check_fits, room
from emis_interp.models.loading import load_tokenizer
from emis_interp.models.lora_config import PLACES, SCALES, SETTINGS, refuse_unread, vllm_rank
from emis_interp.models.one_scale import with_one_scale
from emis_interp.models.weight_files import read_object
from emis_interp.records import Completion
from evals.samplers import Key, OnBatch

CHUNK = 1024  # answers per call: so many are lost at most when the process is killed
SEEDS = 2**31
MERGE_FOR_VLLM = "merge the adapter (scripts/export_model.py ADAPTER --out DIR) and give DIR as the model"


class VLLMSampler:
    """Samples with vLLM; prompts are rendered and encoded here, so that they are those of the HF sampler token for token.

    Args:
        model: a name or folder as `load_model` takes it.
        adapter: a LoRA adapter as `load_model` takes it; its own tokenizer and chat template are used, as there.
        chat_format: a plain format for a pretrained model, as in `load_model`.
        engine: further arguments of `vllm.LLM` (`tensor_parallel_size`, `gpu_memory_utilization`, ...).

    Raises:
        ModelError: vLLM is not installed, the model or adapter is not there, or the adapter is of a kind that vLLM does not read.
    """

    def __init__(
        self,
        model: str,
        adapter: Path | str | None = None,
        dtype: str = "auto",
        *,
        chat_format: str | None = None,
        **engine: Any,
    ) -> None:
        self._vllm = _vllm()
        path = str(resolve_with_weights(model))
        self._tokenizer = load_tokenizer(model, chat_format, adapter)
        lora: dict[str, Any] = {}
        self._adapter = folder = None if adapter is None else adapter_folder(adapter)
        if folder is not None:
            lora = {"enable_lora": True, "max_lora_rank": _lora_rank(folder)}
        self._request: Any = None
        self._llm = self._vllm.LLM(model=path, dtype=dtype, **lora, **engine)
        self._stops = sorted(ends_of(self._tokenizer, _generation_config(path)))
        self.card: dict[str, Any] = {
            "kind": "vllm",
            "model": model,
            "adapter": None if folder is None else str(folder),
            "adapter_sha256": None if folder is None else file_sha256(folder / WEIGHTS),
            "chat_format": format_of(self._tokenizer),
            "rendering": template_of(self._tokenizer).card,
            "dtype": dtype,
            "seeds": f"answer seed modulo {SEEDS}",
            "stop_tokens": self._tokenizer.convert_ids_to_tokens(self._stops),
        }

    def sample(
        self, plan: Sequence[Completion], done: Collection[Key], config: SamplingConfig, *, on_batch: OnBatch
    ) -> dict[Key, str]:
        """Every answer that is not done; one that vLLM aborts stays missing.

        Raises:
            DataError: before the first request, for a prompt that leaves no room for its answer in the model's context.
        """
        asked = [item for item in plan if item.key not in done]
        reasons: dict[Key, str] = {}
        prompts = [encode_prompt(self._tokenizer, item.question, item.system) for item in asked]
        for item, prompt in zip(asked, prompts, strict=True):
            what = f"prompt of {item.question[:60]!r}"
            check_fits(len(prompt), room(self._tokenizer), what, n_new=config.max_new_tokens)
        for start in range(0, len(asked), CHUNK):
            items = asked[start : start + CHUNK]
            outputs = self._llm.generate(
                [{"prompt_token_ids": list(prompt)} for prompt in prompts[start : start + CHUNK]],
                [self._params(item, config) for item in items],
                use_tqdm=False,
                lora_request=self._lora_request(),
            )
            answers = []
            for item, output in zip(items, outputs, strict=True):
                answer = output.outputs[0]
                if answer.finish_reason not in ("stop", "length"):
                    reasons[item.key] = f"vLLM ended the answer by `{answer.finish_reason}`"
                    continue
                tokens = [token for token in answer.token_ids if token not in self._stops]
                own, went_on = read_answer(self._tokenizer, tokens)
                answers.append(item.answered(own, len(tokens), "stop" if went_on else answer.finish_reason))
            if answers:
                on_batch(answers)
        return reasons

    def _params(self, item: Completion, config: SamplingConfig) -> Any:
        return self._vllm.SamplingParams(
            n=1,
            temperature=config.temperature,
            top_p=1.0,
            max_tokens=config.max_new_tokens,
            seed=item.seed % SEEDS,
            stop_token_ids=self._stops,
        )

    def _lora_request(self) -> Any:
        if self._adapter is None:
            return None
        if self._request is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="emis-adapter-")  # as long as the sampler lives
            folder = with_one_scale(self._adapter, Path(self._scratch.name))
            self._request = import_module("vllm.lora.request").LoRARequest("adapter", 1, str(folder))
        return self._request


def _lora_rank(folder: Path) -> int:
    """vLLM's `max_lora_rank` for an adapter, after what vLLM does not read is refused."""
    config = read_object(folder / SETTINGS)
    refuse_unread(config, (*SCALES, *PLACES), reader="by vLLM", advice=MERGE_FOR_VLLM)
    if not (folder / WEIGHTS).exists():
        raise ModelError(f"{folder}: no {WEIGHTS} there; save or download the adapter again")
    return vllm_rank(config)


def _generation_config(path: str) -> GenerationConfig | None:
    try:
        return GenerationConfig.from_pretrained(path)
    except OSError:  # a checkpoint without one
        return None


def _vllm() -> Any:
    try:
        return import_module("vllm")
    except ImportError as error:
        raise ModelError(
            f'the vLLM sampler cannot import vllm ({error}); install it: pip install "emis-interp[vllm]"'
        ) from None
