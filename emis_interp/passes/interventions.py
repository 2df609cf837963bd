"""Changes what a model computes inside a `with` block: steer, ablate or patch the residual stream; undone on any exit.

An `Intervention` says what is done, `apply` does it; `steer` and `ablate` are the two most wanted ones for a `Direction`. All of them
act in prefill and in generation with a key-value cache.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from emis_interp.directions import Direction
from emis_interp.errors import ModelError
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.finite import check_rows
from emis_interp.models.head import head_logits
from emis_interp.passes.batch_rows import RowKeeper, picked_rows
from emis_interp.passes.batching import pad
from emis_interp.passes.capture import OutputEdit
from emis_interp.passes.edits import (
    Clock,
    Edit,
    Positions,
    adder,
    before,
    orthonormal,
    patcher,
    row_bases,
    scaler,
    setter,
)
from emis_interp.passes.hook_points import hook_site

RowIndices = Sequence[int] | Int[Tensor, "batch"]


@dataclass(frozen=True)
class Steer:
    """Add vectors to `resid_post`.

    Attributes:
        vectors: layer -> what is added, residual-stream units: `[d_model]`, or `[batch, d_model]` for another one in every row.
        positions: `all`; `prompt` (the first pass) or `generated` (passes that continue a key-value cache); or an index: this token of
            the unpadded sequence and all later ones.
        schedule: factor by pass: 0 for the first, 1 for the first token that continues the cache, and so on; None is 1 always.
    """

    vectors: Mapping[int, Float[Tensor, "*batch d_model"]]
    positions: Positions = "all"
    schedule: Callable[[int], float] | None = None

    @property
    def by_pass(self) -> bool:
        """Whether a prompt's pass is treated otherwise than those that continue it."""
        return self.positions in ("prompt", "generated") or self.schedule is not None

    def expand(self, row_indices: RowIndices) -> "Steer":
        """The same for a batch whose row i is row row_indices[i] of this one; what is one for all rows stays so.

        Raises:
            ModelError: a row that there is not.
        """
        return replace(self, vectors={layer: _expanded(rows, row_indices, 2) for layer, rows in self.vectors.items()})


@dataclass(frozen=True)
class Ablate:
    """Set the coordinates along a direction or in a subspace.

    Attributes:
        basis: `[d_model]` or `[k, d_model]`; orthonormalised here. `[batch, k, d_model]` for another one in every row of the batch, where
            all zeros leave a row as it is.
        coordinates: None for zero. Otherwise `[n_layers + 1]` or `[n_layers + 1, k]` (in the coordinates of `orthonormal(basis)`): row 0
            at the input of layer 0, row l + 1 at the output of layer l, e.g. the means of the model's own activations (mean
            ablation) or of the base model's (base-mean ablation). `[n_layers + 1, batch, k]` for others in every row.
        layers: None for everywhere: the input of layer 0, what attention and MLP add in every block, and every output. Otherwise the
            outputs (`resid_post`) of these layers alone, which later layers may write to again.
    """

    basis: Float[Tensor, "*rest d_model"]
    coordinates: Float[Tensor, "n_points *rest"] | None = None
    layers: tuple[int, ...] | None = None

    def expand(self, row_indices: RowIndices) -> "Ablate":
        """As `Steer.expand`."""
        held = self.coordinates
        if held is not None:
            held = _expanded(self._points(held), row_indices, 3, dim=1)
        return replace(self, basis=_expanded(self.basis, row_indices, 3), coordinates=held)

    def _points(self, held: Tensor) -> Tensor:
        """Coordinates as `[n_points, k]`, or `[n_points, batch, k]` for each row its own."""
        if held.ndim == 2 and self.basis.ndim == 3 and self.basis.shape[1] == 1 and held.shape[1] == len(self.basis):
            return held[..., None]  # k = 1, left out
        return held[:, None] if held.ndim == 1 else held


@dataclass(frozen=True)
class Rescale:
    """Multiply what the embedding, attention and MLP write into a subspace: the whole stream's coordinates in it, and nothing twice.

    The same as the weights W + (factor - 1) B^T B W of everything that writes to the residual stream (B orthonormal rows).

    Attributes:
        basis: `[d_model]` or `[k, d_model]`; orthonormalised here.
        factor: 0 ablates (as `Ablate` does), 1 changes nothing at all, above 1 amplifies, below 0 turns the coordinates round.
    """

    basis: Float[Tensor, "*k d_model"]
    factor: float

    def expand(self, row_indices: RowIndices) -> "Rescale":
        """As `Steer.expand`; one subspace for all rows."""
        return self


@dataclass(frozen=True)
class Patch:
    """Replace `resid_post` of a layer at given tokens of the unpadded sequence, in every row, by values of another run.

    `values`: `[n_positions, d_model]`, or `[batch, n_positions, d_model]` for each row its own.
    """

    layer: int
    positions: tuple[int, ...]
    values: Float[Tensor, "*batch n_positions d_model"]

    def expand(self, row_indices: RowIndices) -> "Patch":
        """As `Steer.expand`."""
        return replace(self, values=_expanded(self.values, row_indices, 3))


Intervention = Steer | Ablate | Rescale | Patch


@contextlib.contextmanager
def apply(chat_model: ChatModel, *interventions: Intervention) -> Iterator[None]:
    """Run the block with the interventions in place, applied in their order at each layer.

    Row i of tensors that differ from row to row belongs to text i of what is called inside, in the order in which it is given: to prompt
    i of `generate`, answer i of the plan that a sampler gets, text i of `capture_residuals` or `mean_logprobs`, row i of a plain forward
    pass. Sorting, shared prompts and rows that end early change nothing in that; another number of rows is refused.
    `Steer({18: by_question}).expand([0, 0, 1, 1])` gives two rows to each of two questions.

    Raises:
        ModelError: a vector of another width or shape, a layer that the model does not have, or interventions for other numbers of
            rows; nothing is changed then.
    """
    by_pass = any(isinstance(item, Steer) and item.by_pass for item in interventions)
    clock = Clock(RowKeeper(_row_tensors(interventions), by_pass))
    plans = [plan for item in interventions for plan in _plans(chat_model, item, clock)]
    follows = plans or clock.keeper.tensors
    handles = [chat_model.body.register_forward_pre_hook(clock, with_kwargs=True)] if follows else []
    try:
        for module, hook in plans:
            if isinstance(hook, OutputEdit):
                handles.append(module.register_forward_hook(hook))
            else:
                handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def steer(chat_model: ChatModel, direction: Direction, coefficient: float) -> contextlib.AbstractContextManager[None]:
    """Add coefficient x residual_norm x vector to the output of the direction's layer (`resid_post`), at all positions.

    Args:
        coefficient: multiples of the mean residual norm at the layer; positive is more misaligned, 0 changes nothing at all.

    Raises:
        ModelError: the direction is of another model.
    """
    _check_width(chat_model, direction.vector)
    chat_model.check_layers([direction.layer])
    added = coefficient * direction.residual_norm * direction.vector
    return apply(chat_model, Steer({direction.layer: added}))


def ablate(
    chat_model: ChatModel, direction: Direction, coordinates: Float[Tensor, "n_points"] | None = None
) -> contextlib.AbstractContextManager[None]:
    """Hold the coordinate along the direction at zero (or at `coordinates`, see `Ablate`) everywhere in the residual stream.

    Directional ablation (Arditi et al. 2024, section 2.4): the coordinate is removed from the embedding and from everything that
    attention and MLP add, so that with zero it equals `orthogonalized` weights.

    Raises:
        ModelError: the direction is of another model, or the parts of this family's blocks are not known (then
            `apply(chat_model, Ablate(vector, layers=...))` acts on outputs of blocks alone).
    """
    _check_width(chat_model, direction.vector)
    chat_model.check_layers([direction.layer])
    return apply(chat_model, Ablate(direction.vector, coordinates))


@contextlib.contextmanager
def edit_outputs(chat_model: ChatModel, layers: Sequence[int], edit: Edit) -> Iterator[None]:
    """Replace the residual leaving each of `layers` by `edit(residual)`."""
    chat_model.check_layers(list(layers))
    handles = []
    try:
        handles += [chat_model.layers[layer].register_forward_hook(OutputEdit(edit)) for layer in layers]
        yield
    finally:
        for handle in handles:
            handle.remove()


def _expanded(tensor: Tensor, row_indices: RowIndices, n_dims: int, *, dim: int = 0) -> Tensor:
    """Rows picked along `dim` of a tensor that has its own for each row, which it has in `n_dims` dimensions."""
    return picked_rows(tensor, row_indices, dim) if tensor.ndim == n_dims else tensor


def _row_tensors(interventions: Sequence[Intervention]) -> tuple[Tensor, ...]:
    """Everything that differs from row to row, rows first.

    Raises:
        ModelError: tensors for several numbers of rows.
    """
    found: list[tuple[str, Tensor]] = []
    for item in interventions:
        if isinstance(item, Steer):
            found += [(f"Steer at layer {layer}", rows) for layer, rows in item.vectors.items() if rows.ndim == 2]
        elif isinstance(item, Patch):
            found += [(f"Patch at layer {item.layer}", item.values)] if item.values.ndim == 3 else []
        elif isinstance(item, Ablate):
            found += [("the basis of Ablate", item.basis)] if item.basis.ndim == 3 else []
            held = None if item.coordinates is None else item._points(item.coordinates)
            found += (
                [("the coordinates of Ablate", held.transpose(0, 1))] if held is not None and held.ndim == 3 else []
            )
    for name, rows in found:
        if len(rows) != len(found[0][1]):
            raise ModelError(
                f"{found[0][0]} holds {len(found[0][1])} rows, {name} {len(rows)}; interventions in one batch are for equally many rows"
            )
    return tuple(rows for _, rows in found)


def _plans(chat_model: ChatModel, item: Intervention, clock: Clock) -> list[tuple[torch.nn.Module, Any]]:
    """(module, hook) for every place that an intervention touches."""
    if isinstance(item, Steer):
        chat_model.check_layers(list(item.vectors))
        for vector in item.vectors.values():
            _check_shape(
                chat_model, vector, "the vectors of Steer", n_dims=(1, 2), expected="[d_model] or [batch, d_model]"
            )
        _check_positions([item.positions] if isinstance(item.positions, int) else [])
        return [
            (chat_model.layers[layer], OutputEdit(adder(vector, item.positions, item.schedule, clock=clock)))
            for layer, vector in item.vectors.items()
            if bool((vector != 0).any())  # adding nothing must not even round
        ]
    if isinstance(item, Patch):
        chat_model.check_layers([item.layer])
        dims = "[n_positions, d_model] or [batch, n_positions, d_model]"
        _check_shape(chat_model, item.values, "the values of Patch", n_dims=(2, 3), expected=dims)
        _check_positions(item.positions)
        if item.values.shape[-2] != len(item.positions):
            raise ModelError(f"patch: {item.values.shape[-2]} values for {len(item.positions)} positions")
        return [(chat_model.layers[item.layer], OutputEdit(patcher(item.positions, item.values, clock)))]
    if isinstance(item, Rescale):
        _check_shape(
            chat_model, item.basis, "the basis of Rescale", n_dims=(1, 2), expected="[d_model] or [k, d_model]"
        )
        if not math.isfinite(item.factor):
            raise ModelError(f"scale: the factor is {item.factor}; give a finite number")
        scale = scaler(orthonormal(item.basis), item.factor)
        writes = _writes(chat_model, OutputEdit(scale))
        return [] if item.factor == 1 else [(chat_model.layers[0], before(scale)), *writes]
    dims = "[d_model], [k, d_model] or [batch, k, d_model]"
    _check_shape(chat_model, item.basis, "the basis of Ablate", n_dims=(1, 2, 3), expected=dims)
    basis = row_bases(item.basis) if item.basis.ndim == 3 else orthonormal(item.basis)
    n_points, k = chat_model.n_layers + 1, basis.shape[-2]
    nothing = torch.zeros(k)
    held = nothing.expand(n_points, k) if item.coordinates is None else item._points(item.coordinates)
    if len(held) != n_points:
        raise ModelError(
            f"ablate: {len(held)} rows of coordinates, {chat_model.name} needs {n_points} (input and every layer)"
        )
    if held.ndim > 3 or held.shape[-1] != k:
        raise ModelError(
            f"ablate: coordinates of shape {list(held.shape)} for a basis of {k}; expected [{n_points}, {k}] or [{n_points}, batch, {k}]"
        )
    if item.layers is not None:
        chat_model.check_layers(list(item.layers))
        return [(chat_model.layers[layer], OutputEdit(setter(basis, held[layer + 1], clock))) for layer in item.layers]
    return [
        (chat_model.layers[0], before(setter(basis, held[0], clock))),
        *_writes(chat_model, OutputEdit(setter(basis, nothing, clock))),
        *((block, OutputEdit(setter(basis, held[i + 1], clock))) for i, block in enumerate(chat_model.layers)),
    ]


def _writes(chat_model: ChatModel, edit: OutputEdit) -> list[tuple[torch.nn.Module, Any]]:
    """`edit` at what attention and MLP add in every block."""
    return [
        (block.get_submodule(hook_site(block, hook_point).path), edit)
        for block in chat_model.layers
        for hook_point in ("attn_out", "mlp_out")
    ]


def _check_positions(positions: Sequence[int]) -> None:
    for position in positions:
        if position < 0:
            raise ModelError(
                f"position {position}: tokens of the unpadded sequence are counted from its beginning, 0 or more"
            )


def _check_shape(chat_model: ChatModel, tensor: Tensor, name: str, *, n_dims: tuple[int, ...], expected: str) -> None:
    if tensor.ndim not in n_dims:
        raise ModelError(f"{name}: shape {list(tensor.shape)}, expected {expected}")
    _check_width(chat_model, tensor)


def _check_width(chat_model: ChatModel, vector: Tensor) -> None:
    if vector.shape[-1] != chat_model.d_model:
        raise ModelError(
            f"direction has d_model {vector.shape[-1]}, {chat_model.name} has {chat_model.d_model}; it is of another model"
        )


def next_token_logprobs(chat_model: ChatModel, prompts: Sequence[Sequence[int]]) -> Float[Tensor, "batch vocab"]:
    """Log-probabilities of the token after each prompt, float32 on the CPU."""
    batch = pad(prompts, chat_model.tokenizer.pad_token_id)
    last = [len(prompt) - 1 for prompt in prompts]
    with torch.inference_mode():
        hidden = chat_model.body(**batch.model_inputs(chat_model.device), use_cache=False).last_hidden_state
        logits = head_logits(chat_model.model, hidden[torch.arange(len(prompts)), last])
    found = logits.float().log_softmax(-1).cpu()
    if bool(found.isnan().any()):  # minus infinity bars a token in some families
        check_rows(
            chat_model,
            found.nan_to_num(neginf=0.0, nan=torch.nan),
            lambda i: prompts[i],
            rows=range(len(prompts)),
            what="a logit",
        )
    return found


def mean_kl(before: Float[Tensor, "batch vocab"], after: Float[Tensor, "batch vocab"]) -> float:
    """Mean KL(before || after) over prompts, nats: what an intervention costs on harmless prompts (Arditi et al. 2024 drop
    candidates above 0.1)."""
    return float(prompt_kls(before, after).mean())


def prompt_kls(before: Float[Tensor, "batch vocab"], after: Float[Tensor, "batch vocab"]) -> Float[Tensor, "batch"]:
    """KL(before || after) of what comes next after each prompt, nats."""
    return (before.exp() * (before - after)).sum(-1)
