"""Turns a model and its adapter into a folder that every tool for HF checkpoints loads: the adapter folded into the weights."""

import shutil
from pathlib import Path

from emis_interp.errors import StageError
from emis_interp.models import load_model


def save_merged(model: str, adapter: Path | None, folder: Path, dtype: str = "bfloat16") -> None:
    """Save weights (safetensors), configuration and tokenizer; the adapter is merged in float32 before the cast to `dtype`.

    The folder appears whole or not at all.

    Raises:
        StageError: the folder holds something already. ModelError: the model or adapter cannot be loaded.
    """
    if folder.exists() and any(folder.iterdir()):
        raise StageError(f"{folder} is not empty; give a new folder for the merged model, or delete it")
    chat_model = load_model(model, adapter, dtype=dtype, device="cpu", merge=adapter is not None)
    temporary = folder.with_name(f".{folder.name}-unfinished")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    chat_model.model.save_pretrained(temporary)
    chat_model.tokenizer.save_pretrained(temporary)
    temporary.replace(folder)
