"""Turns a saved direction into a llama.cpp control vector."""

from typing import Any

from emis_interp.directions import Direction
from emis_interp.passes.control_vectors import control_vector_arguments
from emis_interp.process import Bars, no_bars
from probes.control_vectors import write_control_vector
from probes.settings import ExportSettings


def run(settings: ExportSettings, bars: Bars = no_bars) -> dict[str, Any]:
    """Write the file; says what strength 1 means there, and how llama.cpp takes it."""
    direction = Direction.load(settings.direction)
    arguments = control_vector_arguments(settings.out)
    write_control_vector(settings.out, [direction], settings.coefficient, model_type=settings.model_type)
    return {
        "out": str(settings.out),
        "layer": direction.layer,
        "coefficient": settings.coefficient,
        "raw_norm": abs(settings.coefficient) * direction.residual_norm,
        "arguments": arguments,
    }


def say(result: dict[str, Any]) -> str:
    what = f"coefficient {result['coefficient']:+.3g} at layer {result['layer']}, norm {result['raw_norm']:.3g}"
    return f"{result['out']}: {what}; llama.cpp takes it as {' '.join(result['arguments'])}"
