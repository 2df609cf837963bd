"""Makes small adapters of the tiny model: random, or with a planted component."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from emis_interp.models.tiny import tiny_model


def made_adapter(folder: Path, *, seed: int = 0, std: float = 0.3, rank: int = 2, **settings: Any) -> Path:
    """A saved adapter of the tiny model with random A and B."""
    model, _ = tiny_model()
    wanted: Any = {"target_modules": "all-linear", "lora_alpha": 4, "task_type": "CAUSAL_LM", "r": rank, **settings}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adapted: Any = get_peft_model(model, LoraConfig(**wanted))
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter.data, std=std)
    adapted.save_pretrained(str(folder))
    return folder


def planted_rank_one(folder: Path, *, read: torch.Tensor, write: torch.Tensor, path: str) -> Path:
    """A saved adapter of rank 1 that changes one module by write read^T."""
    model, _ = tiny_model()
    settings: Any = {"target_modules": [path], "lora_alpha": 1, "task_type": "CAUSAL_LM", "r": 1}
    adapted: Any = get_peft_model(model, LoraConfig(**settings))
    for name, parameter in adapted.named_parameters():
        if "lora_A" in name:
            parameter.data = read[None].to(parameter)
        if "lora_B" in name:
            parameter.data = write[:, None].to(parameter)
    adapted.save_pretrained(str(folder))
    return folder
