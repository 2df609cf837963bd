"""Turns a device and a model's name into what the checks of a GPU are made on: facts of the device, a folder of random weights."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from emis_interp.errors import ConfigError, ModelError
from emis_interp.files.store import read_object
from emis_interp.models.embedded import EMBEDDED_NAME
from emis_interp.models.loading import load_tokenizer
from emis_interp.models.tiny import tiny_tokenizer

FULL, TINY = "qwen2.5-1.5b-random", "qwen2-tiny-random"
SHAPES: dict[str, dict[str, Any]] = {
    FULL: {
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "vocab_size": 151_936,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    },
    TINY: {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 300,
        "initializer_range": 0.2,
    },
}
"""Layers and widths of Qwen2.5-1.5B-Instruct, and of a model that a CPU runs at once."""
NO_GPU = (
    "no GPU is here: torch {version} {why}; nothing was checked. A dry run of every check on the CPU, with a tiny model: "
    "python scripts/gpu_check.py --device cpu --tiny"
)


@dataclass(frozen=True)
class Subject:
    """What a check is made on. `tiny` asks for the least work of everything."""

    model: str
    device: str
    tiny: bool

    def load(self, dtype: str = "float32", device: str | None = None) -> Any:
        from emis_interp.models.loading import load_model

        return load_model(self.model, dtype=dtype, device=device or self.device)


def chosen_device(asked: str) -> str:
    """`cuda` or `cpu`.

    Raises:
        ConfigError: a GPU is asked for and none is here.
    """
    if asked == "cpu":
        return "cpu"
    if not torch.cuda.is_available():
        why = "is built without CUDA" if torch.version.cuda is None else "finds no CUDA GPU"
        raise ConfigError(NO_GPU.format(version=torch.__version__, why=why))
    return "cuda"


def device_facts(device: str) -> dict[str, Any]:
    """Name, number and memory (GiB) of what the checks run on."""
    if device == "cpu":
        return {"kind": "cpu", "name": "CPU", "n_threads": torch.get_num_threads(), "n_devices": 0}
    found = torch.cuda.get_device_properties(0)
    return {
        "kind": "cuda",
        "name": found.name,
        "n_devices": torch.cuda.device_count(),
        "memory_gib": round(found.total_memory / 2**30, 1),
        "capability": f"{found.major}.{found.minor}",
        "cuda": torch.version.cuda,
    }


def random_model(folder: Path, name: str, device: str) -> dict[str, str]:
    """A checkpoint of a shape in `SHAPES` with random bfloat16 weights, the same on the same kind of device; made where it is not there.

    Its tokenizer is the embedded model's where that is at hand, else bytes; both leave rows of the vocabulary unused.

    Returns:
        `model`, the folder; `weights` and `tokenizer`, what they are.
    """
    target, note = folder / name, "made.txt"
    if not (target / note).exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = folder / f".{name}.{os.getpid()}"
        tokenizer, said = _tokenizer(name)
        config = Qwen2Config(
            **SHAPES[name],
            max_position_embeddings=4096,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        with torch.random.fork_rng(), torch.device(device):
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        model.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
        (unfinished / note).write_text(said, "utf-8")
        shutil.rmtree(target, ignore_errors=True)
        unfinished.replace(target)
    return {
        "model": str(target),
        "weights": f"random, the shape of {name.removesuffix('-random')}",
        "tokenizer": (target / note).read_text("utf-8"),
    }


def given_model(name: str) -> dict[str, str]:
    """The same of a model that the user names.

    Raises:
        ModelError: no folder with a `config.json`.
    """
    folder = Path(name)
    if not (folder / "config.json").exists():
        raise ModelError(
            f"--model {name}: no folder with a config.json; leave it out for random weights that are made here"
        )
    kind = read_object(folder / "config.json").get("model_type")
    return {"model": str(folder), "weights": f"{folder.name} ({kind})", "tokenizer": "its own"}


def _tokenizer(name: str) -> tuple[Any, str]:
    if name != TINY:
        try:
            return load_tokenizer(EMBEDDED_NAME), f"of {EMBEDDED_NAME}"
        except ModelError:  # no embedded model on this machine
            return tiny_tokenizer(), f"bytes; {EMBEDDED_NAME} is not here"
    return tiny_tokenizer(), "bytes"
