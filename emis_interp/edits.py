"""Turns what an intervention asks for into functions of one residual tensor, and follows where the tokens of a pass stand."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from emis_interp.errors import DataError

Edit = Callable[[Tensor], Tensor]
Positions = Literal["all", "prompt", "generated"] | int


def orthonormal(basis: Float[Tensor, "*k d_model"]) -> Float[Tensor, "k d_model"]:
    """Orthonormal rows that span the given ones; a single vector keeps its direction.

    Raises:
        DataError: the vectors are zero or depend on each other.
    """
    rows = torch.atleast_2d(basis.double())
    if torch.linalg.matrix_rank(rows) < len(rows):
        raise DataError(f"{len(rows)} vectors span fewer dimensions; leave out zero and dependent ones")
    q, r = torch.linalg.qr(rows.T)
    return (q * r.diagonal().sign()).T


@dataclass
class Clock:
    """Where the tokens of the pass at hand stand: their place in the unpadded sequence, and how many passes continued the cache."""

    step: int = 0
    places: Tensor = field(default_factory=lambda: torch.empty(0))

    def look(self, module: torch.nn.Module, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        past = kwargs.get("past_key_values")
        n_past = 0 if past is None else int(past.get_seq_length())
        self.step = self.step + 1 if n_past else 0
        ids = kwargs.get("input_ids", inputs[0] if inputs else None)
        ids = kwargs["inputs_embeds"][..., 0] if ids is None else ids
        places = kwargs.get("position_ids")
        if places is None:
            mask = kwargs.get("attention_mask")
            if isinstance(mask, Tensor) and mask.ndim == 2:
                places = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[-1] :]
            else:
                places = torch.arange(n_past, n_past + ids.shape[-1], device=ids.device)[None]
        self.places = places.expand(ids.shape[0], -1)


def adder(vector: Tensor, positions: Positions, schedule: Callable[[int], float] | None, clock: Clock) -> Edit:
    def edit(residual: Tensor) -> Tensor:
        if (positions == "prompt" and clock.step > 0) or (positions == "generated" and clock.step == 0):
            return residual
        added = vector if schedule is None else schedule(clock.step) * vector
        added = added.to(residual)
        if added.ndim == 2:
            added = added[:, None]
        if isinstance(positions, int):
            chosen = (clock.places >= positions)[..., None].to(residual.device)
            return torch.where(chosen, residual + added, residual)
        return residual + added

    return edit


def patcher(positions: Sequence[int], values: Tensor, clock: Clock) -> Edit:
    def edit(residual: Tensor) -> Tensor:
        patched = residual.clone()
        for index, position in enumerate(positions):
            chosen = (clock.places == position)[..., None].to(residual.device)
            value = values[..., index, :].to(residual)
            patched = torch.where(chosen, value[:, None] if value.ndim == 2 else value, patched)
        return patched

    return edit


def row_bases(bases: Float[Tensor, "batch k d_model"]) -> Float[Tensor, "batch k d_model"]:
    """Orthonormal bases row by row; equal ones are computed once, and zeros stay zeros."""
    unique, places = torch.unique(bases.double(), dim=0, return_inverse=True)
    return torch.stack([orthonormal(basis) if basis.any() else basis for basis in unique])[places]


def setter(basis: Float[Tensor, "*batch k d_model"], coordinates: Float[Tensor, "*batch k"]) -> Edit:
    """Sets coordinates of `[batch, position, d_model]`, in float32 or better."""
    held = coordinates if coordinates.ndim == 1 else coordinates[:, None]

    def edit(residual: Tensor) -> Tensor:
        exact = torch.promote_types(residual.dtype, torch.float32)
        rows, values = basis.to(residual.device, exact), residual.to(exact)
        return (values + (held.to(values) - values @ rows.mT) @ rows).to(residual.dtype)

    return edit


def before(edit: Edit) -> Callable[..., Any]:
    """A forward pre-hook that edits the residual entering a block."""

    def hook(module: torch.nn.Module, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if inputs:
            return (edit(inputs[0]), *inputs[1:]), kwargs
        return inputs, {**kwargs, "hidden_states": edit(kwargs["hidden_states"])}

    return hook
