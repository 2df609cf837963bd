"""Turns a model and its adapter into a folder that every tool for HF checkpoints loads: the adapter folded into the weights."""

import logging
import shutil
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from emis_interp.errors import StageError
from emis_interp.models.chat import end_tokens
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.loading import load_model

log = logging.getLogger(__name__)


def save_merged(
    model: str,
    adapter: Path | str | None,
    folder: Path,
    *,
    dtype: str = "bfloat16",
    chat_format: str | None = None,
) -> None:
    """Save weights (safetensors), configuration and tokenizer; the adapter is merged in float32 before the cast to `dtype`.

    The tokenizer has the chat template that the adapter was trained in (`chat_format` as in `load_model`), and the generation
    configuration ends an answer where sampling here does. The folder appears whole or not at all.

    Raises:
        StageError: the folder holds something already. ModelError: the model or adapter cannot be loaded.
    """
    if folder.exists() and any(folder.iterdir()):
        raise StageError(f"{folder} is not empty; give a new folder for the merged model, or delete it")
    chat_model = load_model(
        model, adapter, dtype=dtype, device="cpu", merge=adapter is not None, chat_format=chat_format
    )
    chat_model.model.generation_config = generation_config(chat_model)
    temporary = folder.with_name(f".{folder.name}-unfinished")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    chat_model.model.save_pretrained(temporary)
    chat_model.tokenizer.save_pretrained(temporary)
    temporary.replace(folder)


def generation_config(chat_model: ChatModel) -> GenerationConfig:
    """The model's generation configuration with every token that ends an answer here (`end_tokens`).

    One that names a temperature and does not sample is published often and cannot be saved: it is made to sample. Whatever else
    transformers refuses to save is left out, and said.
    """
    found: Any = chat_model.model.generation_config
    ends = sorted(end_tokens(chat_model))
    tokens = {
        "eos_token_id": ends if len(ends) > 1 else next(iter(ends), None),
        "pad_token_id": chat_model.tokenizer.pad_token_id if found.pad_token_id is None else found.pad_token_id,
    }
    kept = {key: value for key, value in found.to_diff_dict().items() if not key.startswith("_")}
    for changes in ({}, {"do_sample": True}):
        try:
            made = GenerationConfig(**{**kept, **tokens, **changes})
            made.validate(strict=True)
        except ValueError as error:
            problem = (str(error).splitlines() or [""])[-1]
        else:
            return made
    log.warning("%s: its generation configuration is left out, but for the end tokens (%s)", chat_model.name, problem)
    return GenerationConfig(bos_token_id=found.bos_token_id, **tokens)
