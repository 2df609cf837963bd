"""Turns vectors that are added to the residual stream into llama.cpp's control vector files, and such files back into vectors."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor

from emis_interp.errors import DataError, printable
from emis_interp.models.gguf_file import bounded_reader

ARCHITECTURE = "controlvector"


def save_control_vector(path: Path, vectors: Mapping[int, Float[Tensor, "d_model"]], *, model_type: str) -> None:
    """Write a llama.cpp control vector (GGUF) of what `added_vectors(..., LLAMA_CPP)` gives.

    llama.cpp adds tensor `direction.N` to the output of block N, 0-based as here, and has no place for block 0.

    Args:
        model_type: llama.cpp's name of the architecture (`llama`, `qwen2`, ...), a hint for the reader.
    """
    import gguf

    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(str(path), ARCHITECTURE)
    writer.add_string(f"{ARCHITECTURE}.model_hint", model_type)
    writer.add_uint32(f"{ARCHITECTURE}.layer_count", len(vectors))
    for layer, vector in vectors.items():
        writer.add_tensor(f"direction.{layer}", vector.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def control_vector_arguments(path: Path) -> list[str]:
    """The arguments with which llama.cpp's programs take the file, at strength 1 and behind every block that it names.

    Raises:
        DataError: a comma in the path, where llama.cpp parts several files.
    """
    if "," in str(path):
        raise DataError(f"{path}: llama.cpp takes a comma for the end of a file's name; give the file another place")
    return ["--control-vector", str(path)]


def read_control_vector(path: Path) -> dict[int, Float[np.ndarray, "d_model"]]:
    """Layer -> added vector of a control vector file, ours or another tool's.

    Raises:
        DataError: no such file, no control vector, or a tensor that is no vector of finite floats (quantised, say).
    """
    if not path.exists():
        raise DataError(f"{path}: no such file")
    try:
        tensors = bounded_reader(path).tensors
    except Exception as error:  # the library promises nothing about what it raises on a damaged file
        raise DataError(f"{path}: not a GGUF file ({printable(str(error), 120)})") from None
    found: dict[int, np.ndarray] = {}
    for tensor in tensors:
        if match := re.fullmatch(r"direction\.([0-9]{1,6})", tensor.name):
            vector = np.array(tensor.data)
            if vector.dtype not in (np.float16, np.float32, np.float64) or vector.ndim != 1:
                raise DataError(
                    f"{path}: `{tensor.name}` is {tensor.tensor_type.name} of shape {[int(n) for n in tensor.shape]}, expected one "
                    "vector of floats"
                )
            if not np.isfinite(vector).all():
                raise DataError(f"{path}: `{tensor.name}` holds numbers that are not finite")
            found[int(match[1])] = vector
    if not found:
        raise DataError(f"{path}: holds no tensor `direction.N`, so it is no control vector")
    return found
