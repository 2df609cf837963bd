"""Turns planned prompts into answers of a vLLM engine in this process; needs the extra `vllm`.

Not run on hardware by this project: what is tested is which arguments it gives to vLLM and how it reads what comes back.
"""

from collections.abc import Collection, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from emis_interp.chat import encode_prompt, ends_of, own_answer
from emis_interp.chat_formats import format_of
from emis_interp.config import SamplingConfig
from emis_interp.errors import ModelError
from emis_interp.models import load_tokenizer, resolve
from emis_interp.models.chat_template import template_of
from emis_interp.models.context import check_fits, room
from emis_interp.records import Completion
from emis_interp.store import file_sha256, read_json
from evals.samplers import Key, OnBatch

CHUNK = 1024  # answers per call: so many are lost at most when the process is killed
SEEDS = 2**31


class VLLMSampler:
    """Samples with vLLM; prompts are rendered and encoded here, so that they are those of the HF sampler token for token.

    Args:
        model: a name or folder as `load_model` takes it.
        adapter: a PEFT LoRA folder; its own tokenizer and chat template are used, as `load_model` does.
        chat_format: a plain format for a pretrained model, as in `load_model`.
        engine: further arguments of `vllm.LLM` (`tensor_parallel_size`, `gpu_memory_utilization`, ...).

    Raises:
        ModelError: vLLM is not installed, or the model or adapter is not there.
    """

    def __init__(
        self,
        model: str,
        adapter: Path | None = None,
        dtype: str = "auto",
        chat_format: str | None = None,
        **engine: Any,
    ) -> None:
        self._vllm = _vllm()
        path = resolve(model)
        self._tokenizer = load_tokenizer(model, chat_format, adapter)
        lora: dict[str, Any] = {}
        if adapter is not None:
            # vLLM refuses adapters of a rank above its default of 16.
            lora = {"enable_lora": True, "max_lora_rank": _lora_rank(adapter)}
        self._adapter = adapter
        self._llm = self._vllm.LLM(model=path, dtype=dtype, **lora, **engine)
        self._stops = sorted(ends_of(self._tokenizer, _generation_config(path)))
        self.card: dict[str, Any] = {
            "kind": "vllm",
            "model": model,
            "adapter": None if adapter is None else str(adapter),
            "adapter_sha256": None if adapter is None else file_sha256(adapter / "adapter_model.safetensors"),
            "chat_format": format_of(self._tokenizer),
            "rendering": template_of(self._tokenizer).card,
            "dtype": dtype,
            "seeds": f"answer seed modulo {SEEDS}",
            "stop_tokens": self._tokenizer.convert_ids_to_tokens(self._stops),
        }

    def sample(
        self, plan: Sequence[Completion], done: Collection[Key], config: SamplingConfig, on_batch: OnBatch
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
                text = str(self._tokenizer.decode(tokens, skip_special_tokens=True))
                own, went_on = own_answer(self._tokenizer, text)
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
        return import_module("vllm.lora.request").LoRARequest("adapter", 1, str(self._adapter))


def _lora_rank(adapter: Path) -> int:
    config = adapter / "adapter_config.json"
    if not config.exists():
        raise ModelError(f"{adapter}: no adapter_config.json there; give the folder that training wrote")
    return int(read_json(config)["r"])


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
