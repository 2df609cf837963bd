"""Turns interventions into the vectors that an engine other than transformers adds for us, or says what that engine cannot do.

What such an engine does is one thing: behind some decoder blocks it adds the same vector to the residual of every token of every text.
`Steer` at all positions is that, with layers counted as ours are; everything else is refused here, before a wrong answer is sampled.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from emis_interp.errors import ModelError
from emis_interp.passes.interventions import Ablate, Intervention, Patch, Rescale, Steer


@dataclass(frozen=True)
class Engine:
    """What adds the vectors.

    Attributes:
        name: for messages.
        first_layer: the first decoder block, 0-based, behind which it adds.
    """

    name: str
    first_layer: int = 0


LLAMA_CPP = Engine("a control vector of llama.cpp", first_layer=1)
"""`llama_adapter_cvec` in llama.cpp's sources: one tensor for each block from 1 on, added to the output of that block."""
VLLM_LENS = Engine("a steering vector of vllm-lens")
"""The worker extension of vllm-lens 1.3.0: added to the output of a block; where vLLM keeps residual and update apart, to the update."""

ORTHOGONALIZE = (
    "write weights without the direction (emis_interp.passes.orthogonalize.orthogonalized) and sample those, "
    "or let this process run the model (--sampler hf)"
)


def added_vectors(interventions: Sequence[Intervention], engine: Engine) -> dict[int, Float[Tensor, "d_model"]]:
    """Layer (decoder block, 0-based) -> what is added to its output, residual-stream units, float32; layers of several are summed.

    A layer to which nothing is added is left out, so no interventions and a coefficient of 0 give an empty mapping.

    Raises:
        ModelError: an intervention that is no addition of one vector at every token, a layer that the engine does not reach, vectors of
            several widths, or a number that is not finite.
    """
    sums: dict[int, Tensor] = {}
    for item in interventions:
        for layer, vector in _same_everywhere(item, engine).vectors.items():
            if vector.ndim != 1:
                raise ModelError(
                    f"{engine.name} is one for all texts, the Steer at layer {layer} holds {len(vector)}, one for each; sample each "
                    "vector's texts by themselves, or let this process run the model (--sampler hf)"
                )
            added = vector.detach().float().cpu()
            if layer in sums and sums[layer].shape != added.shape:
                raise ModelError(f"layer {layer}: vectors of {len(sums[layer])} and {len(added)} dimensions are added")
            sums[layer] = sums[layer] + added if layer in sums else added
    found = {layer: vector for layer, vector in sorted(sums.items()) if bool((vector != 0).any())}
    if len(widths := {len(vector) for vector in found.values()}) > 1:
        raise ModelError(f"vectors of {sorted(widths)} dimensions are added; they are of different models")
    for layer, vector in found.items():
        if layer < engine.first_layer:
            raise ModelError(
                f"{engine.name} reaches the outputs of blocks {engine.first_layer} and later, not of block {layer}; take another layer"
            )
        if not bool(torch.isfinite(vector).all()):
            raise ModelError(f"layer {layer}: what is added is not finite; take a smaller coefficient")
    return found


def _same_everywhere(item: Intervention, engine: Engine) -> Steer:
    """The intervention, when it adds one thing at every token.

    Raises:
        ModelError: as `added_vectors`, with what to do instead.
    """
    if isinstance(item, Ablate):
        raise ModelError(
            f"{engine.name} adds the same to every residual; an ablation takes from each residual its own coordinate, which is no "
            f"addition: {ORTHOGONALIZE}"
        )
    if isinstance(item, Rescale):
        raise ModelError(
            f"{engine.name} adds the same to every residual; scaling a subspace changes each by its own coordinates, which is no addition; "
            "let this process run the model (--sampler hf)"
        )
    if isinstance(item, Patch):
        raise ModelError(
            f"{engine.name} adds to residuals, a Patch puts others in their place at single tokens; let this process run the model"
        )
    if item.positions != "all":
        raise ModelError(
            f"{engine.name} is added at every token, not at positions={item.positions!r}; steer at `all`, or let this process run the "
            "model (--sampler hf)"
        )
    if item.schedule is not None:
        raise ModelError(
            f"{engine.name} is the same in every pass, a schedule is not; leave it out, or let this process run the model"
        )
    return item


def vllm_lens_vectors(vectors: Mapping[int, Float[Tensor, "d_model"]]) -> list[dict[str, Any]]:
    """What vllm-lens takes as `apply_steering_vectors`, as JSON: its `SteeringVector`, with float32 numbers that it reads uncompressed.

    Its own scaling stays out of it (`scale` 1, no `norm_match`): the vectors are in residual-stream units already.
    """
    if not vectors:
        return []
    rows = torch.stack([vector.detach().float().cpu() for vector in vectors.values()])
    return [
        {
            "activations": {
                "data": base64.b64encode(rows.numpy().astype("<f4").tobytes()).decode("ascii"),
                "dtype": "float32",
                "original_dtype": "torch.float32",
                "shape": list(rows.shape),
            },
            "layer_indices": list(vectors),
            "scale": 1.0,
            "norm_match": False,
            "position_indices": None,
        }
    ]
