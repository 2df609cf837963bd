"""Turns a model name (and an adapter) into a `ChatModel`: weights, tokenizer, and where its decoder layers are.

A name is `smollm2-135m-instruct` (embedded, see `embedded`), `tiny` (random two-layer model for tests), a local folder, or a hub id.
"""

import copy
import logging
from pathlib import Path
from typing import Any

import torch

from emis_interp.errors import ConfigError, ModelError
from emis_interp.models.adapter_files import adapter_folder
from emis_interp.models.adapters import attach, merged
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.checkpoint import resolve
from emis_interp.models.context import context_length
from emis_interp.models.continuing import problems_of
from emis_interp.models.head import check_head
from emis_interp.models.precision import check_device, native_dtype, torch_dtype
from emis_interp.models.tiny import TINY_LENGTH, TINY_NAME, tiny_tokenizer
from emis_interp.models.tokenizers import check_vocabulary, length_of, read_tokenizer, ready_tokenizer
from emis_interp.models.weights import is_whole, load_weights, said

log = logging.getLogger(__name__)


def load_model(
    name: str,
    adapter: Path | str | None = None,
    dtype: str = "float32",
    *,
    device: str = "auto",
    merge: bool = False,
    load_in_4bit: bool = False,
    chat_format: str | None = None,
    tokenizer_of: Path | str | None = None,
) -> ChatModel:
    """Load a model by name, and a LoRA adapter on top of it.

    Args:
        adapter: folder with `adapter_config.json` (or with checkpoints that have one: the last is taken), or a hub id; None for the bare
            model.
        dtype: of the weights (`auto`: see `precision`); an adapter is merged (or kept) in float32 before the cast, so that small
            updates survive.
        device: `auto` (cuda when there is one), `cpu`, `cuda`, `cuda:1`, ...
        merge: fold the adapter into the weights (faster; the result is a plain HF model).
        load_in_4bit: quantise the weights as QLoRA does (`four_bit_arguments`), to train an adapter on them.
        chat_format: renders conversations in a plain format of `chat_formats`, for pretrained models; None: the template of the adapter's
            own tokenizer, where its folder holds one, else the model's.
        tokenizer_of: an adapter whose tokenizer and chat template are used, although its weights are not: for reading base as an organism
            is read.

    Raises:
        ModelError: unknown name, dtype or device; a checkpoint that is damaged, incomplete or of another kind; no chat template and no
            format; an adapter that is not read or does not fit.
        ConfigError: 4 bits asked for of the tiny model, without bitsandbytes, or together with an adapter.
    """
    target = check_device(device)
    weights_dtype = torch_dtype(dtype, device)
    if weights_dtype == torch.bfloat16 and native_dtype(device) != "bfloat16":
        log.warning("this device emulates bfloat16, several times slower than float32; give dtype auto or float32")
    if load_in_4bit and adapter is not None:
        raise ConfigError("load_in_4bit is for training a new adapter; load the model in bfloat16 to use one")
    folder = None if adapter is None else adapter_folder(adapter)
    tokenizer = load_tokenizer(name, chat_format, folder or tokenizer_of)
    model = load_weights(name, torch.float32 if folder else weights_dtype, target, load_in_4bit=load_in_4bit)
    is_quantised = getattr(model, "hf_quantizer", None) is not None
    if folder is not None:
        if is_quantised and merge:
            raise ModelError(
                f"{name}: an adapter is not folded into quantised weights; give the checkpoint before it was quantised"
            )
        model = attach(model, folder, name)
        model = merged(model) if merge else model
    if not is_quantised:  # quantised weights were put where they belong, and refuse to move
        with said(f"{name}: cannot be moved to {target}"):
            model = model.to(weights_dtype).to(target)
    return _ready(model, tokenizer, name, adapter=folder)


def of_hf_model(model: Any, tokenizer: Any, *, chat_format: str | None = None) -> ChatModel:
    """A HF causal language model that is there, with its tokenizer, checked like one that is loaded by name.

    The model is put into evaluation mode without gradients, and otherwise left as it is; the tokenizer is copied.

    Raises:
        ModelError: no tokenizer, no causal language model, or one that cannot be used.
    """
    if not hasattr(model, "get_output_embeddings") or not hasattr(model, "generate"):
        raise ModelError(f"a model is given by name, or as a HF causal language model; found {type(model).__name__}")
    if tokenizer is None:
        raise ModelError("a HF model needs its tokenizer: ei.load(model, tokenizer)")
    name = str(getattr(model.config, "name_or_path", "") or type(model).__name__)
    own = ready_tokenizer(name, copy.deepcopy(tokenizer), chat_format, adapter=None)
    own.model_max_length = context_length(model.config) or own.model_max_length
    return _ready(model, own, name, adapter=None)


def _ready(model: Any, tokenizer: Any, name: str, *, adapter: Path | None) -> ChatModel:
    """Without gradients, its head and its vocabulary checked."""
    model = model.eval()
    model.requires_grad_(False)
    if is_whole(model):
        check_head(model, name)
        problems_of(model)  # while no hook changes what it computes; said where it is used so
    check_vocabulary(name if adapter is None else str(adapter), tokenizer, len(model.get_input_embeddings().weight))
    return ChatModel(model, tokenizer, name, adapter=adapter)


def load_tokenizer(name: str, chat_format: str | None = None, adapter: Path | str | None = None) -> Any:
    """The tokenizer of a model by name, without its weights; `chat_format` and `adapter` as in `load_model`.

    Its `model_max_length` is the length of context that the model's configuration declares, where it declares one.

    Raises:
        ModelError: unknown name, no adapter in the folder, or a tokenizer that `ready_tokenizer` refuses.
    """
    if name == TINY_NAME:
        base, length = tiny_tokenizer(), TINY_LENGTH
    else:
        path = resolve(name)
        base, length = read_tokenizer(path), length_of(path)
    tokenizer = ready_tokenizer(name, base, chat_format, adapter=None if adapter is None else adapter_folder(adapter))
    tokenizer.model_max_length = length or tokenizer.model_max_length
    return tokenizer
