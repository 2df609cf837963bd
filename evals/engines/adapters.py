"""Turns LoRA adapters into what one vLLM server takes: a name and a folder for each, and one rank that holds them all."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from emis_interp.errors import ConfigError, ModelError
from emis_interp.files.path_names import path_name_problem
from emis_interp.files.store import file_sha256
from emis_interp.models.adapter_files import WEIGHTS, adapter_folder, naming
from emis_interp.models.lora_config import PLACES, SCALES, SETTINGS, refuse_unread, vllm_rank
from emis_interp.models.one_scale import with_one_scale
from emis_interp.models.weight_files import read_object

MERGE_FOR_VLLM = "merge the adapter (scripts/export_model.py ADAPTER --out DIR) and give DIR as the model"
MOST_AT_ONCE = 8
"""Adapters of which a batch may hold answers; each takes memory for its rank in every layer."""


@dataclass(frozen=True)
class ServedAdapters:
    """Adapters by the names under which they are asked for.

    Attributes:
        folders: as they are served.
        rank: vLLM's `max_lora_rank`.
    """

    folders: Mapping[str, Path]
    rank: int

    @property
    def words(self) -> list[str]:
        """Of `vllm serve`."""
        if not self.folders:
            return []
        counts = ["--max-loras", str(min(len(self.folders), MOST_AT_ONCE)), "--max-cpu-loras", str(len(self.folders))]
        modules = [f"{name}={folder.resolve()}" for name, folder in self.folders.items()]
        return ["--enable-lora", "--max-lora-rank", str(self.rank), *counts, "--lora-modules", *modules]


def served_adapters(given: Mapping[str, Path | str], scratch: Path) -> ServedAdapters:
    """Check adapters and bring them into the form that vLLM reads.

    Args:
        given: name -> folder or hub id.
        scratch: holds, as long as the server runs, what had to be written anew (adapters whose modules have scales of their own).

    Raises:
        ModelError: an adapter that is not there, of a kind that vLLM does not read, or of too large a rank.
        ConfigError: a name that cannot be a file's.
    """
    folders, rank = dict[str, Path](), 0
    for name, adapter in given.items():
        if problem := path_name_problem(name):
            raise ConfigError(f"adapter `{name}`: the name {problem}")
        folder = adapter_folder(adapter)
        with naming(folder):
            rank = max(rank, checked_rank(folder))
        folders[name] = with_one_scale(folder, scratch / name)
    return ServedAdapters(folders, rank)


def checked_rank(folder: Path) -> int:
    """vLLM's `max_lora_rank` for an adapter, after what vLLM does not read is refused."""
    config = read_object(folder / SETTINGS)
    refuse_unread(config, (*SCALES, *PLACES), reader="by vLLM", advice=MERGE_FOR_VLLM)
    if not (folder / WEIGHTS).exists():
        raise ModelError(f"no {WEIGHTS} there; save or download the adapter again")
    return vllm_rank(config)


def adapter_sha256(folder: Path | None) -> str | None:
    return None if folder is None else file_sha256(folder / WEIGHTS)
