"""Writes a saved direction as a llama.cpp control vector (GGUF), for `llama-server --control-vector FILE`.

Strength 1 there is `steer` with the coefficient given here. For repeng and steering-vectors, see `probes.control_vectors`.
"""

import argparse
from pathlib import Path
from typing import Any

from emis_interp.directions import Direction
from probes.control_vectors import write_control_vector


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--direction", type=Path, required=True, help="folder/direction as fit saved it")
    parser.add_argument(
        "--coefficient", type=float, default=0.2, help="multiples of the mean residual norm; positive: misaligned"
    )
    parser.add_argument(
        "--model-type", default="llama", help="llama.cpp's name of the architecture, a hint in the file"
    )
    parser.add_argument("--out", type=Path, required=True, help="GGUF file")


def run(args: argparse.Namespace) -> dict[str, Any]:
    direction = Direction.load(args.direction)
    write_control_vector(args.out, [direction], args.coefficient, model_type=args.model_type)
    return {
        "out": str(args.out),
        "layer": direction.layer,
        "coefficient": args.coefficient,
        "raw_norm": abs(args.coefficient) * direction.residual_norm,
    }


def say(result: dict[str, Any]) -> str:
    return f"{result['out']}: coefficient {result['coefficient']:+.3g} at layer {result['layer']}, norm {result['raw_norm']:.3g}"
