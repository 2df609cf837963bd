"""Turns a GGUF file into a folder of safetensors in the user's cache, dequantised by transformers, once for each content.

Every file of a finished folder is listed with its SHA-256, and the folder appears whole or not at all, so an interrupted or damaged copy
is seen and made again.
"""

import logging
import os
import shutil
import tempfile
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

from emis_interp.errors import DataError, ModelError
from emis_interp.files.store import file_sha256, text_sha256, write_json
from emis_interp.files.strict_json import as_object, read_json_object
from emis_interp.models.gguf_file import DEQUANTISED_FROM, PART, GgufHeader, join, parts_of, read_header

COMPLETE = "complete.json"
_ELSEWHERE = "give the folder of a saved HF model, or serve the file with llama.cpp (--sampler openai --url ...)"

log = logging.getLogger(__name__)


def gguf_folder(path: Path) -> Path:
    """The folder that a GGUF file (any part of a split one) was, or now is, converted into; its name holds the hash of the content.

    Raises:
        ModelError: an architecture that transformers does not dequantise, a damaged file, a part that is missing, or no room on the disk.
    """
    parts, digest = parts_of(path), gguf_sha256(path)
    folder = cache_dir() / "converted" / f"{_stem(path)}-{digest[:16]}"
    if (problem := damage(folder)) is None:
        return folder
    if folder.exists():
        log.warning("%s is unusable (%s), making it again", folder, problem)
    try:
        convert(parts, folder, {"source": path.name, "source_sha256": digest})
    except ModelError:
        raise
    except Exception as error:  # transformers, gguf and the disk raise many types
        line = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise ModelError(
            f"{path}: could not be converted ({type(error).__name__}: {line[:200]}); {_ELSEWHERE}"
        ) from error
    return folder


def convert(parts: list[Path], folder: Path, source: dict[str, str]) -> None:
    """Write a GGUF as a folder of HF files in float32 (which holds every quantised number exactly), with `source` beside their hashes.

    The configuration says `dequantised_from`, the quantisation of the file, and cards repeat it.

    Raises:
        ModelError: an architecture that transformers does not dequantise, or no room on the disk; before anything is written.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    header = read_header(parts)
    _check_architecture(parts[0], header)
    folder.parent.mkdir(parents=True, exist_ok=True)
    need = 4 * header.n_parameters + sum(part.stat().st_size for part in parts if len(parts) > 1)
    free = shutil.disk_usage(folder.parent).free
    said = f"{header.quantisation}, {header.n_parameters / 1e6:,.0f} M parameters: {_gb(need)} of {_gb(free)} free"
    if need > 0.98 * free:
        raise ModelError(
            f"{parts[0]}: {said} in {folder.parent} are not enough; free some space, or set EMIS_CACHE to another disk"
        )
    log.info("converting %s into %s, once (%s)", parts[0].name, folder, said)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        target = Path(temporary) / "model"
        target.mkdir()
        whole = parts[0]
        if len(parts) > 1:
            log.info("joining %d files", len(parts))
            whole = Path(temporary) / "whole.gguf"
            join(parts, whole)
        place: dict[str, Any] = {"pretrained_model_name_or_path": whole.parent, "gguf_file": whole.name}
        log.info("dequantising")
        config: Any = AutoConfig.from_pretrained(**place)  # once: a header with its vocabulary takes seconds to read
        dequantised = AutoModelForCausalLM.from_pretrained(**place, config=deepcopy(config), dtype=torch.float32)
        # save_pretrained refuses a model whose config still says "GGUF": hand the weights to a fresh one, which takes no memory of its own.
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        config.dtype = torch.float32
        setattr(config, DEQUANTISED_FROM, header.quantisation)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        model.load_state_dict(dequantised.state_dict(), assign=True)
        model.generation_config = GenerationConfig.from_model_config(config)
        log.info("writing safetensors")
        model.save_pretrained(target)
        AutoTokenizer.from_pretrained(**place).save_pretrained(target)
        files = {path.name: file_sha256(path) for path in sorted(target.iterdir())}
        write_json(target / COMPLETE, {**source, "quantisation": header.quantisation, "files": files})
        if folder.exists():
            shutil.rmtree(folder)
        target.replace(folder)


def _check_architecture(path: Path, header: GgufHeader) -> None:
    from transformers import __version__
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

    known = sorted(set(GGUF_SUPPORTED_ARCHITECTURES) - {"general", "tokenizer"})
    if header.architecture not in known:
        raise ModelError(
            f"{path}: architecture `{header.architecture}`, of which transformers {__version__} dequantises no GGUF (it does "
            f"{', '.join(known)}); {_ELSEWHERE}"
        )


def gguf_sha256(path: Path) -> str:
    """SHA-256 of the file, or of the list of the hashes of a split one's parts.

    Raises:
        ModelError: a part is missing.
    """
    hashes = [_hash_of_state(part, *_state(part)) for part in parts_of(path)]
    return hashes[0] if len(hashes) == 1 else text_sha256("\n".join(hashes))


def _state(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


@lru_cache(maxsize=64)
def _hash_of_state(path: Path, *state: int) -> str:
    """A file's hash, read once in a process as long as the file is not touched: a model is resolved several times."""
    return file_sha256(path)


def _stem(path: Path) -> str:
    found = PART.fullmatch(path.name)
    return found["name"] if found else path.stem


def _gb(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.1f} GB"


def damage(folder: Path) -> str | None:
    """None when every listed file is there with its checksum, else what is wrong."""
    listing = folder / COMPLETE
    if not listing.exists():
        return "conversion did not finish"
    try:
        said = read_json_object(listing, "files")
        files = as_object(said["files"], str(listing))
    except DataError:
        return f"{COMPLETE} is not readable"
    if "quantisation" not in said:
        return "made by an earlier version, which did not keep the quantisation"
    for name, expected in files.items():
        path = folder / name
        if not path.exists():
            return f"{name} is missing"
        if _hash_of_state(path, *_state(path)) != expected:
            return f"{name} does not match its checksum"
    return None


def cache_dir() -> Path:
    """`$EMIS_CACHE`, else `~/.cache/emis_interp`."""
    return Path(os.environ.get("EMIS_CACHE") or Path.home() / ".cache" / "emis_interp")
