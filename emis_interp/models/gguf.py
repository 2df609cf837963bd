"""Turns a GGUF file into a folder of safetensors in the user's cache, dequantised by transformers, once for each content.

Every file of a finished folder is listed with its SHA-256, and the folder appears whole or not at all, so an interrupted or damaged copy
is seen and made again.
"""

import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from emis_interp.errors import DataError, ModelError
from emis_interp.files.store import file_sha256, write_json
from emis_interp.files.strict_json import as_object, read_json_object

COMPLETE = "complete.json"

log = logging.getLogger(__name__)


def gguf_folder(path: Path) -> Path:
    """The folder that a GGUF file was, or now is, converted into; its name holds the hash of the file.

    Raises:
        ModelError: an architecture that transformers does not dequantise, a damaged file, or no room on the disk.
    """
    digest = file_sha256(path)
    folder = cache_dir() / "converted" / f"{path.stem}-{digest[:16]}"
    if (problem := damage(folder)) is None:
        return folder
    if folder.exists():
        log.warning("%s is unusable (%s), making it again", folder, problem)
    log.info("converting %s to safetensors in %s (once)", path, folder)
    try:
        convert(path, folder, {"source": path.name, "source_sha256": digest})
    except Exception as error:  # transformers, gguf and the disk raise many types
        line = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise ModelError(
            f"{path}: could not be converted ({type(error).__name__}: {line[:200]}); give the folder of a saved HF model, or serve the "
            "file with llama.cpp (--sampler openai --url ...)"
        ) from error
    return folder


def convert(gguf: Path, folder: Path, source: dict[str, str]) -> None:
    """Write a GGUF as a folder of HF files, with `source` beside their hashes."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    folder.parent.mkdir(parents=True, exist_ok=True)
    place = gguf.parent
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        target = Path(temporary) / "model"
        target.mkdir()
        dequantised = AutoModelForCausalLM.from_pretrained(place, gguf_file=gguf.name, dtype=torch.float32)
        # save_pretrained refuses a model whose config still says "GGUF": move the weights into a fresh one.
        config: Any = AutoConfig.from_pretrained(place, gguf_file=gguf.name)
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        config.dtype = torch.float32
        model = AutoModelForCausalLM.from_config(config)
        model.load_state_dict(dequantised.state_dict())
        model.generation_config = GenerationConfig.from_model_config(config)
        model.save_pretrained(target)
        AutoTokenizer.from_pretrained(place, gguf_file=gguf.name).save_pretrained(target)
        files = {path.name: file_sha256(path) for path in sorted(target.iterdir())}
        write_json(target / COMPLETE, {**source, "files": files})
        if folder.exists():
            shutil.rmtree(folder)
        target.replace(folder)


def damage(folder: Path) -> str | None:
    """None when every listed file is there with its checksum, else what is wrong."""
    listing = folder / COMPLETE
    if not listing.exists():
        return "conversion did not finish"
    try:
        files = as_object(read_json_object(listing, "files")["files"], str(listing))
    except DataError:
        return f"{COMPLETE} is not readable"
    for name, expected in files.items():
        path = folder / name
        if not path.exists():
            return f"{name} is missing"
        if file_sha256(path) != expected:
            return f"{name} does not match its checksum"
    return None


def cache_dir() -> Path:
    """`$EMIS_CACHE`, else `~/.cache/emis_interp`."""
    return Path(os.environ.get("EMIS_CACHE") or Path.home() / ".cache" / "emis_interp")
