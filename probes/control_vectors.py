"""Turns directions into the steering files of other tools: llama.cpp control vectors, and the arguments of repeng and steering-vectors.

All three add a vector behind a decoder block, as `steer` does with `resid_post`, and multiply it by a strength that they are given when
they run. What is written is coefficient x residual_norm x vector: strength 1 is `steer` with that coefficient.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from emis_interp.directions import Direction
from emis_interp.errors import DataError, ModelError, printable

ARCHITECTURE = "controlvector"


def added_vectors(directions: list[Direction], coefficient: float) -> dict[int, Float[Tensor, "d_model"]]:
    """Layer -> the vector that is added there, residual-stream units.

    Raises:
        DataError: no directions, or two of one layer.
    """
    layers = [direction.layer for direction in directions]
    if not layers or len(set(layers)) != len(layers):
        raise DataError(f"a control vector needs one direction for each of its layers, found layers {layers}")
    return {
        row.layer: coefficient * row.residual_norm * row.vector for row in sorted(directions, key=lambda row: row.layer)
    }


def write_control_vector(path: Path, directions: list[Direction], coefficient: float, *, model_type: str) -> None:
    """Write a llama.cpp control vector (GGUF), for `--control-vector FILE` or `--control-vector-scaled FILE:SCALE`.

    llama.cpp adds tensor `direction.N` to the output of block N (0-based) and has no place for block 0.

    Args:
        model_type: llama.cpp's name of the architecture (`llama`, `qwen2`, ...), a hint for the reader.

    Raises:
        ModelError: a direction of layer 0.
    """
    import gguf

    vectors = added_vectors(directions, coefficient)
    if 0 in vectors:
        raise ModelError("llama.cpp applies control vectors from block 1 on; leave out layer 0")
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


def read_control_vector(path: Path) -> dict[int, Float[np.ndarray, "d_model"]]:
    """Layer -> added vector of a control vector file, ours or another tool's.

    Raises:
        DataError: no such file, or no control vector.
    """
    import gguf

    if not path.exists():
        raise DataError(f"{path}: no such file")
    try:
        tensors = gguf.GGUFReader(str(path)).tensors
    except Exception as error:  # the library promises nothing about what it raises on a damaged file
        raise DataError(f"{path}: not a GGUF file ({printable(str(error), 120)})") from None
    found = {
        int(match[1]): np.array(tensor.data)
        for tensor in tensors
        if (match := re.fullmatch(r"direction\.([0-9]{1,6})", tensor.name))
    }
    if not found:
        raise DataError(f"{path}: holds no tensor `direction.N`, so it is no control vector")
    return found


def repeng_arguments(directions: list[Direction], coefficient: float, model_type: str) -> dict[str, Any]:
    """`repeng.ControlVector(**result)`: `model_type`, and `directions` as layer -> numpy float32 `[d_model]`."""
    vectors = added_vectors(directions, coefficient)
    return {
        "model_type": model_type,
        "directions": {layer: vector.float().numpy() for layer, vector in vectors.items()},
    }


def steering_vectors_arguments(directions: list[Direction], coefficient: float) -> dict[str, Any]:
    """`steering_vectors.SteeringVector(**result)`: `layer_activations` as layer -> tensor `[d_model]`, `layer_type` decoder_block."""
    added: Mapping[int, Tensor] = added_vectors(directions, coefficient)
    return {"layer_activations": dict(added), "layer_type": "decoder_block"}
