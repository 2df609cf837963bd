"""Turns a model's name into the folder of its checkpoint, after what can be told without reading the weights."""

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import transformers
from transformers import CONFIG_MAPPING, AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from emis_interp.errors import ModelError, did_you_mean
from emis_interp.files.store import file_sha256, text_sha256
from emis_interp.models.embedded import EMBEDDED_NAME, embedded_path
from emis_interp.models.gguf import gguf_folder, gguf_sha256
from emis_interp.models.gguf_file import DEQUANTISED_FROM
from emis_interp.models.hub import SMALL_FILES, hub_files, hub_folder, is_hub_id
from emis_interp.models.tiny import TINY_NAME
from emis_interp.models.weight_files import CONVERT, check_pointers, pickled, read_object, stored_tensors

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
LONGEST = 200  # characters of a name in a message
MODEL_FILES = (".safetensors", ".bin", ".gguf", ".json", ".jinja", ".model", ".tiktoken", ".txt")
OTHER_HEADS = ("Classification", "Answering", "Choice", "RewardModel", "Prediction", "Retrieval")
"""How transformers' names of models end that are not trained to write the next token."""


def resolve(name: str) -> str:
    """The folder of a model's configuration and tokenizer by name; fetches the embedded model, or these files from the hub.

    Raises:
        ModelError: unknown name, or a folder that `check_folder` refuses.
    """
    if name == EMBEDDED_NAME:
        return str(embedded_path())
    folder = Path(name).expanduser()
    if _is_gguf(folder):
        folder = gguf_folder(folder)
    if not is_there(folder):
        if not is_hub_id(name):
            raise ModelError(
                f"unknown model `{name}`{did_you_mean(name, [EMBEDDED_NAME, TINY_NAME])} (a folder or a hub id owner/name works too)"
            )
        folder = hub_folder(name, SMALL_FILES, f"use the embedded `{EMBEDDED_NAME}`")
    try:
        check_folder(folder)
    except OSError as error:  # a folder that is not ours to read, a disk that fails
        raise ModelError(
            f"{folder}: cannot be read ({error.strerror or error}); mend its permissions, or copy it"
        ) from None
    return str(folder)


def resolve_with_weights(name: str) -> Path:
    """`resolve`, with the weights beside the configuration, and every file of them whole.

    Raises:
        ModelError: as `resolve`; weights that are not there, in pieces, or pickled.
    """
    folder = Path(resolve(name))
    from_hub = is_hub_id(name) and not is_there(Path(name).expanduser())
    if from_hub:
        index = folder / INDEX
        wanted = _shards(index) if index.exists() else [WEIGHTS]
        hub_folder(name, wanted, f"use the embedded `{EMBEDDED_NAME}`")
    files = weight_files(folder, hub_files(name) if from_hub and not _has_weights(folder) else ())
    for path in files:
        stored_tensors(path)
    return folder


def origin_of(name: str) -> dict[str, str | None]:
    """What is known of a model's weights besides its name: `quantisation` of the GGUF that they were made from, `revision` on the hub."""
    if name == TINY_NAME:
        return {"quantisation": None, "revision": None}
    folder = Path(resolve(name))
    revision = folder.name if folder.parent.name == "snapshots" else None
    return {"quantisation": read_object(folder / "config.json").get(DEQUANTISED_FROM), "revision": revision}


def check_folder(folder: Path) -> None:
    """Refuse what is no checkpoint of a causal language model that transformers knows.

    Raises:
        ModelError: a file instead of a folder, no or no readable `config.json`, pointers of Git LFS, an adapter, an unknown
            architecture, settings that it does not take, code of its own, or another head.
    """
    if folder.is_file():
        raise ModelError(f"{folder}: is a file; give a GGUF file (.gguf), or the folder of a saved HF model")
    check_pointers(folder)
    config = folder / "config.json"
    if not config.exists():
        raise ModelError(f"{folder}: is there but holds no config.json{_instead(folder)}")
    if (folder / "adapter_config.json").exists():
        raise ModelError(
            f"{folder}: holds config.json of a model and adapter_config.json of an adapter, and it cannot be told which is meant; give "
            "the base model with this folder as its adapter, or move adapter_config.json away"
        )
    check_config(read_object(config), config)
    for name in ("generation_config.json", "tokenizer_config.json"):
        if (folder / name).exists():
            read_object(folder / name)
    try:
        AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # each architecture checks its settings in its own way
        line = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise ModelError(
            f"{config}: transformers {transformers.__version__} refuses its settings ({type(error).__name__}: {_short(line)}); mend "
            "them, or save the model again"
        ) from error


def check_config(config: dict[str, Any], path: Path) -> None:
    """Refuse a `config.json` that describes no causal language model of transformers' own.

    Raises:
        ModelError: as `check_folder`.
    """
    kind, version = config.get("model_type"), f"transformers {transformers.__version__}"
    if not isinstance(kind, str) or not kind:
        raise ModelError(f"{path}: has no model_type, by which {version} knows an architecture; save the model again")
    if kind not in CONFIG_MAPPING:
        if config.get("auto_map"):
            code = (
                next(iter(config["auto_map"].values())) if isinstance(config["auto_map"], dict) else config["auto_map"]
            )
            raise ModelError(
                f"{path}: `{kind}` needs code of its own (auto_map: {_short(code)}), and code that comes with a model is not run "
                "(trust_remote_code stays off); choose a model that transformers knows"
            )
        close = difflib.get_close_matches(kind, CONFIG_MAPPING.keys(), n=1, cutoff=0.8)
        guess = f"; did you mean `{close[0]}`?" if close else ""
        raise ModelError(
            f"{path}: {version} knows no architecture `{_short(kind)}` (model_type){guess}; upgrade transformers, or choose another model"
        )
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ModelError(
            f"{path}: `{kind}` (model_type) is no causal language model in {version}; choose another model"
        )
    for setting in ("text_config", "quantization_config"):
        if not isinstance(config.get(setting) or {}, dict):
            raise ModelError(
                f"{path}: {setting}: expected an object of settings, found {type(config[setting]).__name__}; save the model again"
            )
    named = config.get("architectures")
    for architecture in named if isinstance(named, list) else ():
        if str(architecture).endswith(OTHER_HEADS):
            raise ModelError(
                f"{path}: the checkpoint is a {architecture}, whose head gives no next token; choose the language model it was made from"
            )


def weight_files(folder: Path, elsewhere: Sequence[str] = ()) -> list[Path]:
    """The safetensors files of a checkpoint, as transformers chooses them.

    Args:
        elsewhere: further files of the same repository that are not in the folder.

    Raises:
        ModelError: a shard that the index names is not there, or no safetensors at all.
    """
    if (folder / WEIGHTS).exists():
        return [folder / WEIGHTS]
    if (folder / INDEX).exists():
        shards = _shards(folder / INDEX)
        absent = [shard for shard in shards if not (folder / shard).is_file()]
        if absent:
            raise ModelError(
                f"{folder / INDEX}: {len(absent)} of the {len(shards)} files that it names are not there ({some(absent)}); download them"
            )
        return [folder / shard for shard in shards]
    present = sorted({*(path.name for path in folder.iterdir()), *elsewhere})
    pickles = sorted({*pickled(folder), *(name for name in elsewhere if name.endswith(".bin"))} - {"training_args.bin"})
    if pickles:
        convert = CONVERT.format(found=pickles[0], wanted=WEIGHTS)
        raise ModelError(
            f"{folder}: its weights are pickled ({some(pickles)}), and a pickle can run code when it is read; where you trust the file, "
            f"turn it into {WEIGHTS}: {convert}"
        )
    raise ModelError(f"{folder}: holds no {WEIGHTS} and no {INDEX} (it holds {some(present)}); download the weights")


def model_sha256(name: str) -> str | None:
    """One hash over the files of a local model that decide what it computes: weights, configuration, tokenizer, chat template, or the
    GGUF that holds them all; None for a model that is no file or folder here."""
    folder = Path(name).expanduser()
    if _is_gguf(folder):
        return gguf_sha256(folder)
    if not is_there(folder) or not folder.is_dir():
        return None
    files = sorted(path for path in folder.iterdir() if path.suffix in MODEL_FILES and not path.name.startswith("."))
    return text_sha256("\n".join(f"{path.name} {file_sha256(path)}" for path in files))


def is_there(path: Path) -> bool:
    """Whether there is such a file or folder; not so for what cannot be the name of one."""
    try:
        return path.exists()
    except OSError:
        return False


def some(names: Iterable[str], n: int = 4) -> str:
    """The first names, and how many more there are."""
    listed = list(names)
    shown = ", ".join(f"{_short(name)}" for name in listed[:n])
    return shown + (f" and {len(listed) - n} more" if len(listed) > n else "") if listed else "nothing"


def _is_gguf(path: Path) -> bool:
    return path.suffix == ".gguf" and is_there(path) and path.is_file()


def _has_weights(folder: Path) -> bool:
    return (folder / WEIGHTS).exists() or (folder / INDEX).exists()


def _shards(index: Path) -> list[str]:
    """Names of the files that an index lists, each once."""
    content = read_object(index)
    listed = content.get("weight_map")
    names = (
        set(listed.values()) if isinstance(listed, dict) and all(isinstance(v, str) for v in listed.values()) else set()
    )
    if not names or any(Path(name).name != name for name in names):
        raise ModelError(f"{index}: expected `weight_map`, from weights to files beside it; download it again")
    if not isinstance(content.get("metadata"), dict):  # transformers reads it, and fails without a word of advice
        raise ModelError(
            f'{index}: expected `metadata`, an object, empty or not; add "metadata": {{}}, or download it again'
        )
    return sorted(names)


def _instead(folder: Path) -> str:
    """What a folder without a configuration holds, and what to do about it."""
    present = sorted(path.name for path in folder.iterdir())
    if (folder / "adapter_config.json").exists():
        base = read_object(folder / "adapter_config.json").get("base_model_name_or_path")
        return f", but an adapter{f' of {_short(base)}' if base else ''}; give the base model, and this folder as its adapter"
    inside = sorted(path.parent.name for path in folder.glob("*/config.json"))
    if inside:
        return f"; models are in {some(inside)}: give one of these folders"
    if any(name.endswith(".gguf") for name in present):
        return f" but {some(name for name in present if name.endswith('.gguf'))}; give that file itself, or the folder of a saved HF model"
    return f" (it holds {some(present)}); give the folder of a saved HF model"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
