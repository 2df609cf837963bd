"""Turns what an intervention asks for into functions of one residual tensor, and follows where the tokens of a pass stand."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from emis_interp.errors import DataError
from emis_interp.passes.batch_rows import RowKeeper

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
    """Where the tokens of the pass at hand stand: their place in the unpadded sequence, how many passes continued the cache, and which
    rows they belong to. A forward pre-hook of the model's body.

    Raises:
        ModelError: a pass of another number of rows than the interventions are for.
    """

    keeper: RowKeeper = field(default_factory=RowKeeper)
    step: int = 0
    places: Tensor = field(default_factory=lambda: torch.empty(0))

    def __call__(self, module: torch.nn.Module, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        past = kwargs.get("past_key_values")
        n_past = 0 if past is None else int(past.get_seq_length())
        self.step = self.step + 1 if n_past else 0
        ids = kwargs.get("input_ids", inputs[0] if inputs else None)
        ids = kwargs["inputs_embeds"][..., 0] if ids is None else ids
        self.keeper.check(ids.shape[0], "rows in this forward pass")
        places = kwargs.get("position_ids")
        if places is None:
            mask = kwargs.get("attention_mask")
            if isinstance(mask, Tensor) and mask.ndim == 2:
                places = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[-1] :]
            else:
                places = torch.arange(n_past, n_past + ids.shape[-1], device=ids.device)[None]
        self.places = places.expand(ids.shape[0], -1)


def adder(
    vector: Float[Tensor, "*batch d_model"],
    positions: Positions,
    schedule: Callable[[int], float] | None,
    *,
    clock: Clock,
) -> Edit:
    """Adds a vector, or each row's own."""

    def edit(residual: Tensor) -> Tensor:
        if (positions == "prompt" and clock.step > 0) or (positions == "generated" and clock.step == 0):
            return residual
        added = clock.keeper.take(vector)[:, None] if vector.ndim == 2 else vector
        added = (added if schedule is None else schedule(clock.step) * added).to(residual)
        if isinstance(positions, int):
            chosen = (clock.places >= positions)[..., None].to(residual.device)
            return torch.where(chosen, residual + added, residual)
        return residual + added

    return edit


def patcher(positions: Sequence[int], values: Float[Tensor, "*batch n_positions d_model"], clock: Clock) -> Edit:
    """Puts values in at their positions, or each row's own."""

    def edit(residual: Tensor) -> Tensor:
        patched = residual.clone()
        rows = clock.keeper.take(values)[:, :, None] if values.ndim == 3 else values
        for index, position in enumerate(positions):
            chosen = (clock.places == position)[..., None].to(residual.device)
            value = rows[:, index] if rows.ndim == 4 else rows[index]
            patched = torch.where(chosen, value.to(residual), patched)
        return patched

    return edit


def row_bases(bases: Float[Tensor, "batch k d_model"]) -> Float[Tensor, "batch k d_model"]:
    """Orthonormal bases row by row; equal ones are computed once, and zeros stay zeros."""
    unique, places = torch.unique(bases.double(), dim=0, return_inverse=True)
    return torch.stack([orthonormal(basis) if basis.any() else basis for basis in unique])[places]


def setter(basis: Float[Tensor, "*batch k d_model"], coordinates: Float[Tensor, "*batch k"], clock: Clock) -> Edit:
    """Sets coordinates of `[batch, position, d_model]`, in float32 or better."""

    def edit(residual: Tensor) -> Tensor:
        exact = torch.promote_types(residual.dtype, torch.float32)
        axes = clock.keeper.take(basis) if basis.ndim == 3 else basis
        held = clock.keeper.take(coordinates)[:, None] if coordinates.ndim == 2 else coordinates
        axes, values = axes.to(residual.device, exact), residual.to(exact)
        return (values + (held.to(values) - values @ axes.mT) @ axes).to(residual.dtype)

    return edit


def scaler(basis: Float[Tensor, "k d_model"], factor: float) -> Edit:
    """Multiplies coordinates of `[batch, position, d_model]`, in float32 or better."""

    def edit(residual: Tensor) -> Tensor:
        exact = torch.promote_types(residual.dtype, torch.float32)
        axes, values = basis.to(residual.device, exact), residual.to(exact)
        return (values + (factor - 1) * (values @ axes.mT) @ axes).to(residual.dtype)

    return edit


def before(edit: Edit) -> Callable[..., Any]:
    """A forward pre-hook that edits the residual entering a block."""

    def hook(module: torch.nn.Module, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if inputs:
            return (edit(inputs[0]), *inputs[1:]), kwargs
        return inputs, {**kwargs, "hidden_states": edit(kwargs["hidden_states"])}

    return hook
