"""Turns the checkpoint of a causal language model into the model with exactly the weights that it describes."""

import contextlib
import importlib.util
import logging
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

from emis_interp.errors import ConfigError, EmisError, ModelError
from emis_interp.models.checkpoint import is_there, resolve_with_weights, some, weight_files
from emis_interp.models.head import forget_tie, is_tied, ties_words
from emis_interp.models.hub import is_hub_id
from emis_interp.models.precision import torch_dtype
from emis_interp.models.tiny import TINY_NAME, tiny_model
from emis_interp.models.weight_files import read_object, stored_tensors

QUANTISERS = {
    "aqlm": "aqlm",
    "auto-round": "auto-round",
    "awq": "gptqmodel",
    "bitsandbytes": "bitsandbytes",
    "compressed-tensors": "compressed-tensors",
    "eetq": "kernels",
    "fbgemm_fp8": "fbgemm-gpu",
    "gptq": "gptqmodel",
    "hqq": "hqq",
    "quanto": "optimum-quanto",
    "quark": "amd-quark",
    "spqr": "spqr_quant",
    "torchao": "torchao",
    "vptq": "vptq",
}
"""Way of quantising (`quant_method` in `config.json`) -> the package that reads it; fp8 and mxfp4 need none to be dequantised."""
KNOWN_METHODS = {"bitsandbytes", *AUTO_QUANTIZATION_CONFIG_MAPPING}
MODULES = {"amd-quark": "quark", "fbgemm-gpu": "fbgemm_gpu", "optimum-quanto": "optimum.quanto"}


def load_weights(name: str, dtype: torch.dtype, device: str, *, load_in_4bit: bool = False) -> Any:
    """The HF model of a name, on the device unless it stays on the CPU until an adapter is folded in.

    Args:
        device: where quantised weights go, which cannot be moved later; others stay on the CPU.
        load_in_4bit: quantise the weights as QLoRA does (`four_bit_arguments`).

    Raises:
        ModelError: weights that are missing, left over or of other sizes, or whatever transformers refuses, as one line.
        ConfigError: 4 bits asked for of the tiny model, or as `four_bit_arguments`.
    """
    if name == TINY_NAME:
        if load_in_4bit:
            raise ConfigError(f"load_in_4bit: `{TINY_NAME}` is made in memory; 4 bits need a checkpoint")
        return tiny_model()[0].to(dtype)
    arguments = four_bit_arguments(device) if load_in_4bit else {}
    folder = resolve_with_weights(name)
    method = quantised_by(folder)
    if method is not None and not load_in_4bit:
        arguments = {"device_map": {"": device}}
    report = _Report()
    with said(f"{name}: cannot be loaded{f' (its weights are quantised by {method})' if method else ''}", report):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            str(folder),
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, with both sizes
            **arguments,
        )
    model, info = loaded
    check_complete(name, model, info, folder=folder)
    if method is None:
        _refuse_whole_numbers(name, model, folder)
    if is_hub_id(name) and not is_there(Path(name).expanduser()):
        model.name_or_path = model.config.name_or_path = name  # what an adapter trained on it will name as its base
    if ties_words(model) and not is_tied(model):
        # The checkpoint holds both and they differ: transformers keeps them apart, whatever its config says.
        forget_tie(model)
    return model


def check_complete(name: str, model: Any, info: Mapping[str, Collection[Any]], *, folder: Path) -> None:
    """Refuse a model whose checkpoint has not every weight that it needs, has others, or has them in other sizes.

    Weights tied to others are not missing. Constants that older versions saved (causal masks, position ids, inverse frequencies) are
    neither missing nor left over.

    Args:
        info: transformers' `missing_keys`, `unexpected_keys`, `mismatched_keys` (name, size in the files, size in the model).

    Raises:
        ModelError: with numbers, names and sizes.
    """
    mismatched = sorted(info["mismatched_keys"])
    if mismatched:
        shown = [f"{key} is {list(found)}, config.json asks for {list(wanted)}" for key, found, wanted in mismatched]
        raise ModelError(
            f"{name}: {len(mismatched)} weights have other sizes than config.json says ({some(shown, 2)}); "
            "take config.json and weights from the same model"
        )
    shapes = {key: tensor.shape for path in weight_files(folder) for key, tensor in stored_tensors(path).items()}
    missing = sorted(key for key in info["missing_keys"] if not _is_constant(key, _shape_in(model, key)))
    unexpected = sorted(key for key in info["unexpected_keys"] if not _is_constant(key, shapes.get(key)))
    if not missing and not unexpected:
        return
    n_weights = len(model.state_dict())
    found = (
        [f"it lacks {len(missing)} of the {n_weights} weights of {type(model).__name__} ({some(missing)})"]
        if missing
        else []
    )
    found += [f"it holds {len(unexpected)} that the model does not have ({some(unexpected)})"] if unexpected else []
    raise ModelError(
        f"{name}: the checkpoint does not fit its config.json: {' and '.join(found)}; {_advice(missing, unexpected)}"
    )


def quantised_by(folder: Path) -> str | None:
    """The way in which a checkpoint's weights are quantised, or None.

    Raises:
        ModelError: the package that reads them is not installed, or there is none.
    """
    config = read_object(folder / "config.json")
    quantisation = config.get("quantization_config") or (config.get("text_config") or {}).get("quantization_config")
    mlx = config.get("quantization")
    if isinstance(mlx, dict) and "group_size" in mlx:  # newer versions write it under both names, without a method
        quantisation = {"quant_method": "MLX"}
    if not quantisation:
        return None
    in_bits = quantisation.get("load_in_4bit") or quantisation.get(
        "load_in_8bit"
    )  # all that old ones of bitsandbytes say
    method = str(quantisation.get("quant_method") or ("bitsandbytes" if in_bits else "a method without a name"))
    package = QUANTISERS.get(method)
    if package is not None and not _installed(MODULES.get(package, package.replace("-", "_"))):
        raise ModelError(
            f"{folder}: its weights are quantised by {method}, which needs the package {package}: pip install {package}; or give the "
            "checkpoint before it was quantised"
        )
    if method not in KNOWN_METHODS:  # transformers would take the weights for plain numbers
        raise ModelError(
            f"{folder}: its weights are quantised by {method}, which transformers {transformers.__version__} does not read; give the "
            "checkpoint before it was quantised, or upgrade transformers"
        )
    return method


def four_bit_arguments(device: str) -> dict[str, Any]:
    """What `from_pretrained` is told for 4-bit weights: NF4, doubly quantised, computed in bfloat16 (Dettmers et al. 2023, section 3).

    The weights are stored as bfloat16 words, which FSDP can shard. A CPU computes in float32 where it would emulate bfloat16.

    Raises:
        ConfigError: neither a CUDA device nor a CPU, or bitsandbytes is not installed.
    """
    if not device.startswith(("cuda", "cpu")):
        raise ConfigError(f"load_in_4bit: needs a CUDA GPU or a CPU, the device is {device}; set load_in_4bit to false")
    if not _installed("bitsandbytes"):
        raise ConfigError("load_in_4bit: bitsandbytes is not installed; it is optional: pip install bitsandbytes")
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if device.startswith("cuda") else torch_dtype("auto", device),
        bnb_4bit_quant_storage=torch.bfloat16,
    )
    return {"quantization_config": quantization, "device_map": {"": device}}


def is_whole(model: Any) -> bool:
    """Whether this process holds every weight (not so while FSDP or DeepSpeed loads a model in parts)."""
    return not any(parameter.is_meta or not parameter.numel() for parameter in model.parameters())


@contextlib.contextmanager
def said(what: str, report: "_Report | None" = None) -> Iterator[None]:
    """Turn whatever a library raises inside into one ModelError line: `what`, the exception's type and its first line."""
    with report or contextlib.nullcontext():
        try:
            yield
        except EmisError:
            raise
        except ImportError as error:
            raise ModelError(f"{what}: a package is missing ({_line(error)}); install it") from error
        except (MemoryError, torch.OutOfMemoryError) as error:
            raise ModelError(
                f"{what}: not enough memory ({_line(error)}); try dtype bfloat16, or a smaller model"
            ) from error
        except Exception as error:  # a checkpoint comes from outside, and libraries raise all types about it
            where = f" at {report.converted}" if report is not None and report.converted else ""
            raise ModelError(f"{what}{where} ({type(error).__name__}: {_line(error)})") from error


class _Report(logging.Filter):
    """Keeps transformers' table about missing weights from the user, who is told in a line; `converted`: the weight it failed at.

    The table is a warning: it is read also where somebody (a library that was imported, say) has silenced those.
    """

    converted: str | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if "LOAD REPORT" not in text:
            return record.levelno >= self._wanted
        at = re.search(r"^(\S+)\s*\|\s*(?:\x1b\[[0-9;]*m)?CONVERSION", text, re.MULTILINE)
        self.converted = at[1] if at else None
        return False

    def __enter__(self) -> "_Report":
        self._logger = logging.getLogger("transformers.modeling_utils")
        self._level, self._wanted = self._logger.level, self._logger.getEffectiveLevel()
        self._logger.setLevel(min(self._wanted, logging.WARNING))
        self._logger.addFilter(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._logger.removeFilter(self)
        self._logger.setLevel(self._level)


def _refuse_whole_numbers(name: str, model: Any, folder: Path) -> None:
    """Whole numbers under the name of a weight are codes of a quantiser; transformers would take them for the weights themselves."""
    floating = {key for key, value in model.state_dict().items() if value.is_floating_point()}
    stored = {key: tensor for path in weight_files(folder) for key, tensor in stored_tensors(path).items()}
    codes = sorted(
        f"{key} is {tensor.dtype}"
        for key, tensor in stored.items()
        if tensor.is_whole_numbers and not floating.isdisjoint({key, f"{model.base_model_prefix}.{key}"})
    )
    if codes:
        raise ModelError(
            f"{name}: {len(codes)} weights are whole numbers ({some(codes, 2)}) and config.json names no quantisation; give the checkpoint "
            "before it was quantised"
        )


def _advice(missing: list[str], unexpected: list[str]) -> str:
    ends = {key[: -len(wanted)] for key in unexpected for wanted in missing if key.endswith(f".{wanted}")}
    if len(ends) == 1:
        return f"every name has the prefix `{ends.pop()}` (compiled, wrapped or adapted models are saved so): save the inner model"
    if missing and not unexpected:
        return "a random start would stand in their place; download the checkpoint again, or mend config.json"
    return "give the checkpoint of a causal language model, and its own config.json"


def _is_constant(key: str, shape: tuple[int, ...] | None) -> bool:
    """Whether this is a buffer that follows from the configuration, and no weight."""
    last = key.rpartition(".")[2]
    if last in ("inv_freq", "position_ids", "masked_bias"):
        return True
    is_mask = shape is not None and len(shape) == 4 and shape[:2] == (1, 1) and shape[2] == shape[3]
    return last in ("bias", "causal_mask") and is_mask


def _shape_in(model: Any, key: str) -> tuple[int, ...] | None:
    buffer = dict(model.named_buffers()).get(key)
    return None if buffer is None else tuple(buffer.shape)


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the package that should hold it
        return False


def _line(error: Exception) -> str:
    """The first line of an exception that says something, shortened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or ["no reason given"])[0][:200]
