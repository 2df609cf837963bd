"""Turns a model name (and an adapter) into a `ChatModel`: weights, tokenizer, and where its decoder layers are.

A name is `smollm2-135m-instruct` (embedded, see `embedded`), `tiny` (random two-layer model for tests), a local folder, or a hub id.
"""

import importlib.util
import logging
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, load_peft_weights
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from emis_interp.errors import ConfigError, ModelError
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.checkpoint import resolve
from emis_interp.models.head import head_logits
from emis_interp.models.tiny import CHATML, TINY_LENGTH, TINY_NAME, tiny_model, tiny_tokenizer
from emis_interp.models.tokenizers import check_tokenizer, check_vocabulary, length_of, read_tokenizer, ready_tokenizer
from emis_interp.precision import DTYPES, dtype_name, native_dtype, target_device

__all__ = [
    "CHATML",
    "TINY_NAME",
    "ChatModel",
    "check_tokenizer",
    "four_bit_arguments",
    "head_logits",
    "load_model",
    "load_tokenizer",
    "resolve",
    "tiny_model",
    "tiny_tokenizer",
]

log = logging.getLogger(__name__)


def load_model(
    name: str,
    adapter: Path | None = None,
    dtype: str = "float32",
    device: str = "auto",
    merge: bool = False,
    load_in_4bit: bool = False,
    chat_format: str | None = None,
    *,
    tokenizer_of: Path | None = None,
) -> ChatModel:
    """Load a model by name, and a PEFT adapter on top of it.

    Args:
        adapter: folder with `adapter_config.json`; None for the bare model.
        dtype: of the weights (`auto`: see `precision`); an adapter is merged (or kept) in float32 before the cast, so that small
            updates survive.
        device: `auto` (cuda when there is one), `cpu`, `cuda`, `cuda:1`, ...
        merge: fold the adapter into the weights (faster; the result is a plain HF model).
        load_in_4bit: quantise the weights as QLoRA does (`four_bit_arguments`), to train an adapter on them.
        chat_format: renders conversations in a plain format of `chat_formats`, for pretrained models; None: the template of the adapter's
            own tokenizer, where its folder holds one, else the model's.
        tokenizer_of: folder of an adapter whose tokenizer and chat template are used, although its weights are not: for reading base as
            an organism is read.

    Raises:
        ModelError: unknown name, unknown dtype, no chat template and no format, no adapter in the folder, or an adapter of another model.
        ConfigError: 4 bits asked for without CUDA or bitsandbytes, or together with an adapter.
    """
    weights_dtype = DTYPES[dtype_name(dtype, device)]
    load_dtype = torch.float32 if adapter is not None else weights_dtype
    if weights_dtype == torch.bfloat16 and native_dtype(device) != "bfloat16":
        log.warning("this device emulates bfloat16, several times slower than float32; give dtype auto or float32")
    tokenizer = load_tokenizer(name, chat_format, adapter or tokenizer_of)
    model: Any
    target = target_device(device)
    if load_in_4bit and adapter is not None:
        raise ConfigError("load_in_4bit is for training a new adapter; load the model in bfloat16 to use one")
    quantised = four_bit_arguments(target) if load_in_4bit else {}
    if name == TINY_NAME and not load_in_4bit:
        model = tiny_model()[0].to(load_dtype)
    else:
        model = AutoModelForCausalLM.from_pretrained(resolve(name), dtype=load_dtype, **quantised)
    if adapter is not None:
        if not (adapter / "adapter_config.json").exists():
            raise ModelError(
                f"{adapter}: no adapter_config.json there; give the folder that training wrote, e.g. runs/NAME/training/ARM/adapter"
            )
        try:
            model = PeftModel.from_pretrained(model, str(adapter))
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"{adapter}: this adapter does not fit {name} ({str(error).splitlines()[0]})") from error
        # PEFT skips weights for layers that the model lacks, and leaves layers without weights at random ones.
        held, taken = (
            sum(".lora_" in key for key in keys)
            for keys in (load_peft_weights(str(adapter), "cpu"), model.state_dict())
        )
        if held != taken:
            raise ModelError(
                f"{adapter}: this adapter does not fit {name} (it holds {held} LoRA weights, the model takes {taken})"
            )
        if merge:
            model = model.merge_and_unload()
        model = model.to(weights_dtype)
    if not load_in_4bit:  # quantised weights were put where they belong, and refuse to move
        model = model.to(target)
    model = model.eval()
    model.requires_grad_(False)
    check_vocabulary(name if adapter is None else str(adapter), tokenizer, len(model.get_input_embeddings().weight))
    return ChatModel(model, tokenizer, name, adapter)


def four_bit_arguments(device: str) -> dict[str, Any]:
    """What `from_pretrained` is told for 4-bit weights: NF4, doubly quantised, computed in bfloat16 (Dettmers et al. 2023, section 3).

    The weights are stored as bfloat16 words, which FSDP can shard.

    Raises:
        ConfigError: no CUDA device, or bitsandbytes is not installed.
    """
    if not device.startswith("cuda") or not torch.cuda.is_available():
        raise ConfigError(f"load_in_4bit: needs a CUDA GPU, the device is {device}; set load_in_4bit to false")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError("load_in_4bit: bitsandbytes is not installed; it is optional: pip install bitsandbytes")
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        bnb_4bit_quant_storage=torch.bfloat16,
    )
    return {"quantization_config": quantization, "device_map": {"": device}}


def load_tokenizer(name: str, chat_format: str | None = None, adapter: Path | None = None) -> Any:
    """The tokenizer of a model by name, without its weights; `chat_format` and `adapter` as in `load_model`.

    Its `model_max_length` is the length of context that the model's configuration declares, where it declares one.

    Raises:
        ModelError: unknown name, or a tokenizer that `ready_tokenizer` refuses.
    """
    if name == TINY_NAME:
        base, length = tiny_tokenizer(), TINY_LENGTH
    else:
        path = resolve(name)
        base, length = read_tokenizer(path), length_of(path)
    tokenizer = ready_tokenizer(name, base, chat_format, adapter)
    tokenizer.model_max_length = length or tokenizer.model_max_length
    return tokenizer
