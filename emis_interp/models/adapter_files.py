"""Turns the folder or hub id of a LoRA adapter into its settings and weights, each checked before PEFT sees it."""

import contextlib
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from emis_interp.errors import ModelError, printable
from emis_interp.models.checkpoint import is_there, some
from emis_interp.models.hub import SMALL_FILES, hub_folder, is_hub_id
from emis_interp.models.lora_config import LOADED, SETTINGS, LoraScales, refuse_unread
from emis_interp.models.weight_files import CONVERT, Stored, check_pointers, pickled, read_object, stored_tensors

log = logging.getLogger(__name__)

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
RANKED = (".lora_A.weight", ".lora_embedding_A")
"""How the names of matrices end whose rows are as many as the rank."""
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


def adapter_folder(adapter: Path | str) -> Path:
    """The folder that holds an adapter's settings and weights: the one given, the last checkpoint in it, or a hub id's in the cache.

    Raises:
        ModelError: no adapter there, several, or one whose weights are pickled.
    """
    given = Path(adapter).expanduser()
    if is_there(given) and given.is_file():
        raise ModelError(f"{given}: is a file; give the folder of a PEFT adapter")
    if is_there(given):
        folder = _inside(given)
    elif is_hub_id(str(adapter)):
        root = hub_folder(str(adapter), SMALL_FILES, "give the folder of an adapter")
        folder = _inside(root)
        hub_folder(str(adapter), [(folder / WEIGHTS).relative_to(root).as_posix()], "give the folder of an adapter")
    else:
        raise ModelError(
            f"{given}: no such folder; give the folder of a PEFT adapter, e.g. runs/NAME/training/ARM/adapter"
        )
    return folder


def read_adapter(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """An adapter's settings, and its weights by PEFT's names of them.

    Raises:
        ModelError: files that are absent, pickled, cut off or no JSON; settings that `refuse_unread` refuses.
    """
    check_pointers(folder)
    config = read_object(folder / SETTINGS)
    if "peft_type" not in config:
        raise ModelError(
            f"{folder / SETTINGS}: names no peft_type, so it is none of PEFT's; convert the adapter to PEFT's format, or merge it"
        )
    with naming(folder):
        refuse_unread(config, LOADED)
    if not (folder / WEIGHTS).exists():
        raise ModelError(_no_weights(folder))
    stored = stored_tensors(folder / WEIGHTS)
    with naming(folder):
        _check_ranks(config, stored)
    try:
        weights = load_file(folder / WEIGHTS)
    except Exception as error:  # safetensors raises a type of its own, torch others
        raise ModelError(
            f"{folder / WEIGHTS}: cannot be read ({type(error).__name__}: {str(error)[:120]}); save it again"
        ) from error
    odd = [name for name, value in weights.items() if value.is_floating_point() and not value.isfinite().all()]
    if odd:
        raise ModelError(
            f"{folder / WEIGHTS}: {len(odd)} weights hold numbers that are not finite ({some(odd)}); train it again"
        )
    return config, weights


def base_named_by(config: Mapping[str, Any]) -> str | None:
    """The base model that an adapter's settings name."""
    named = config.get("base_model_name_or_path")
    return named if isinstance(named, str) and named else None


def module_names(weights: Mapping[str, Tensor]) -> list[str]:
    """Paths of the modules with matrices of their own, inside the base model."""
    found = {key.partition(".lora_")[0].removeprefix(PREFIX) for key in weights if ".lora_" in key}
    return sorted(name.removesuffix(".base_layer") for name in found)


@contextlib.contextmanager
def naming(folder: Path) -> Iterator[None]:
    """Put the folder before what is said about its settings."""
    try:
        yield
    except ModelError as error:
        raise ModelError(f"{folder}/{printable(str(error), 2000)}") from None


def _inside(folder: Path) -> Path:
    """The folder itself or the one inside it that holds an adapter."""
    if (folder / SETTINGS).is_file():
        return folder
    inside = [path.parent for path in folder.glob(f"*/{SETTINGS}")]
    checkpoints = {int(match[1]): path for path in inside if (match := _CHECKPOINT.fullmatch(path.name))}
    names = sorted(path.name for path in inside)
    if inside and len(checkpoints) == len(inside):
        chosen = checkpoints[max(checkpoints)]
        log.warning("%s: holds %s and no adapter of its own; %s is taken", folder, some(names), chosen.name)
        return chosen
    if inside:
        raise ModelError(
            f"{folder}: no {SETTINGS} there; give the folder that training wrote, one of those in it: {some(names)}"
        )
    if (folder / "config.json").exists():
        raise ModelError(
            f"{folder}: no {SETTINGS} there, but config.json of a whole model; give it as the model, without an adapter"
        )
    raise ModelError(
        f"{folder}: no {SETTINGS} there; give the folder that training wrote, e.g. runs/NAME/training/ARM/adapter"
    )


def _no_weights(folder: Path) -> str:
    pickles = pickled(folder)
    if pickles:
        convert = CONVERT.format(found=pickles[0], wanted=WEIGHTS)
        return (
            f"{folder}: its weights are pickled ({some(pickles)}), and a pickle can run code when it is read; where you trust the file, "
            f"turn it into {WEIGHTS}: {convert}"
        )
    present = sorted(path.name for path in folder.iterdir())
    return f"{folder}: no {WEIGHTS} there (it holds {some(present)}); save or download the adapter again"


def _check_ranks(config: Mapping[str, Any], stored: Mapping[str, Stored]) -> None:
    """Refuse settings whose ranks are not those of the weights: PEFT would make matrices of whatever size they say."""
    scales = LoraScales.of(config)
    held = {
        key.partition(".lora_")[0].removeprefix(PREFIX): tensor.shape[0]
        for key, tensor in stored.items()
        if key.endswith(RANKED) and tensor.shape
    }
    if config.get("target_parameters"):  # their matrices hold the ranks of all experts
        largest = max([scales.rank, *scales.rank_pattern.values()])
        if held and largest > max(held.values()):
            raise ModelError(
                f"{SETTINGS} says rank {largest}, the weights have rank {max(held.values())}; take both from the same adapter"
            )
        return
    for module, (rank, _) in scales.of_modules(held).items():
        if rank != held[module]:
            raise ModelError(
                f"{SETTINGS} says rank {rank} for {module}, the weights have {held[module]}; take both from the same adapter"
            )
