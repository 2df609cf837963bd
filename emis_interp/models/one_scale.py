"""Turns a LoRA adapter whose modules have scales of their own into one with a single scale, for readers that know no other.

vLLM up to 0.30 takes alpha / r from the head of `adapter_config.json` for every module and reads neither `rank_pattern` nor
`alpha_pattern` (vllm/lora/peft_helper.py; 0.32 reads both): an adapter with such patterns would answer with updates that are several
times too large or small.
"""

from pathlib import Path

from safetensors.torch import save_file

from emis_interp.files.store import write_json
from emis_interp.models.adapter_files import PREFIX, WEIGHTS, module_names, naming, read_adapter
from emis_interp.models.lora_config import SETTINGS, LoraScales
from emis_interp.models.weight_files import read_object


def with_one_scale(folder: Path, out: Path) -> Path:
    """The adapter's folder if all its modules have one scale, else `out`, with the same updates at scale 1: every B holds its own.

    Raises:
        ModelError: an adapter that cannot be read.
    """
    settings = read_object(folder / SETTINGS)
    if not settings.get("rank_pattern") and not settings.get("alpha_pattern"):
        return folder
    config, weights = read_adapter(folder)
    with naming(folder):
        scales = LoraScales.of(config)
        of_modules = scales.of_modules(module_names(weights))
    for path, (rank, alpha) in of_modules.items():
        for key in (f"{PREFIX}{path}.lora_B.weight", f"{PREFIX}{path}.lora_embedding_B"):
            if key in weights:
                b = weights[key]
                weights[key] = (b.float() * scales.scale(rank, alpha)).to(b.dtype)
    largest = max((rank for rank, _ in of_modules.values()), default=scales.rank)
    one = {"r": largest, "lora_alpha": largest, "use_rslora": False, "rank_pattern": {}, "alpha_pattern": {}}
    write_json(out / SETTINGS, config | one)
    save_file(weights, out / WEIGHTS, {"format": "pt"})
    return out
