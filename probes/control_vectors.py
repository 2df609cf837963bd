"""Turns directions into the steering files of other tools: llama.cpp control vectors, and the arguments of repeng and steering-vectors.

All three add a vector behind a decoder block, as `steer` does with `resid_post`, and multiply it by a strength that they are given when
they run. What is written is coefficient x residual_norm x vector: strength 1 is `steer` with that coefficient.
"""

from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from emis_interp.directions import Direction
from emis_interp.errors import DataError
from emis_interp.passes.added_vectors import LLAMA_CPP, added_vectors
from emis_interp.passes.control_vectors import save_control_vector
from emis_interp.passes.interventions import Steer


def vectors_of(directions: list[Direction], coefficient: float) -> dict[int, Float[Tensor, "d_model"]]:
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

    Args:
        model_type: llama.cpp's name of the architecture (`llama`, `qwen2`, ...), a hint for the reader.

    Raises:
        ModelError: a direction of layer 0. DataError: as `vectors_of`, or a coefficient of 0, which leaves nothing to write.
    """
    vectors = added_vectors([Steer(vectors_of(directions, coefficient))], LLAMA_CPP)
    if not vectors:
        raise DataError(f"coefficient {coefficient:g} adds nothing; a control vector needs another one")
    save_control_vector(path, vectors, model_type=model_type)


def repeng_arguments(directions: list[Direction], coefficient: float, model_type: str) -> dict[str, Any]:
    """`repeng.ControlVector(**result)`: `model_type`, and `directions` as layer -> numpy float32 `[d_model]`."""
    vectors = vectors_of(directions, coefficient)
    return {
        "model_type": model_type,
        "directions": {layer: vector.float().numpy() for layer, vector in vectors.items()},
    }


def steering_vectors_arguments(directions: list[Direction], coefficient: float) -> dict[str, Any]:
    """`steering_vectors.SteeringVector(**result)`: `layer_activations` as layer -> tensor `[d_model]`, `layer_type` decoder_block."""
    return {"layer_activations": vectors_of(directions, coefficient), "layer_type": "decoder_block"}
