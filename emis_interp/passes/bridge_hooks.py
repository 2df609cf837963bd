"""Turns a direction, a scorer or an SAE into hooks of a TransformerBridge: steer, ablate, score, splice; undone at the end of the block.

The same arithmetic as `passes.interventions`, in TransformerLens' own hooks, so that the two can be compared and mixed with its tools.
Every hook name is checked to be there, because TransformerLens and sae-lens pass over unknown ones in silence.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from emis_interp.directions import Direction
from emis_interp.errors import ModelError
from emis_interp.models.bridge import bridge_hook, check_hook
from emis_interp.passes.edits import Clock, orthonormal, setter

HookFunction = Callable[..., Tensor]


@contextlib.contextmanager
def steer_bridge(bridge: Any, direction: Direction, coefficient: float) -> Iterator[None]:
    """Add coefficient x residual_norm x vector to `resid_post` of the direction's layer at all positions (`interventions.steer`).

    Raises:
        ModelError: a direction of another model.
    """
    _check_bridge_width(bridge, direction.vector)
    added = coefficient * direction.residual_norm * direction.vector

    def hook(residual: Tensor, hook: Any) -> Tensor:
        return residual + added.to(residual)

    with _hooked(bridge, {bridge_hook(bridge, direction.layer): hook}):
        yield


@contextlib.contextmanager
def ablate_bridge(bridge: Any, direction: Direction) -> Iterator[None]:
    """Hold the coordinate along the direction at zero in the embedding and in all that attention and MLP add (`interventions.ablate`).

    Raises:
        ModelError: a direction of another model.
    """
    _check_bridge_width(bridge, direction.vector)
    basis = orthonormal(direction.vector)
    remove = setter(basis, basis.new_zeros(len(basis)), Clock())

    def hook(value: Tensor, hook: Any) -> Tensor:
        return remove(value)

    names = [bridge_hook(bridge, 0, "resid_pre")]
    for layer in range(bridge.cfg.n_layers):
        names += [bridge_hook(bridge, layer, point) for point in ("attn_out", "mlp_out", "resid_post")]
    with _hooked(bridge, dict.fromkeys(names, hook)):
        yield


@contextlib.contextmanager
def score_bridge(bridge: Any, scorer: Any) -> Iterator[list[Float[Tensor, "batch position"]]]:
    """Score every token that the bridge reads, as a monitor does: the list gets the scores of each forward pass, larger is more misaligned.

    Padding is scored too. The residual is read behind the hooks that are there when the block begins: open `steer_bridge` and the like
    first.

    Args:
        scorer: anything with `layer` and `score(residuals)`, such as a saved probe, or a saved direction, as
            `probes.monitoring.scorers.load_scorer` gives them, or a `DirectionScorer` around a `Direction`.

    Raises:
        ModelError: no scorer of tokens, or one of another model.
    """
    if not callable(getattr(scorer, "score", None)) or not hasattr(scorer, "layer"):
        raise ModelError(
            f"{type(scorer).__name__} scores no tokens: expected `layer` and `score`; put a Direction into DirectionScorer"
        )
    name = bridge_hook(bridge, scorer.layer)
    found = scorer.score(torch.zeros(1, bridge.cfg.d_model, device=bridge.cfg.device))  # refuses another width
    if found.shape != (1,):
        raise ModelError(f"{scorer!r} gives scores {tuple(found.shape)} for one token; it does not score single tokens")
    scores: list[Tensor] = []

    def hook(residual: Tensor, hook: Any) -> Tensor:
        scores.append(scorer.score(residual.detach()))
        return residual

    with _hooked(bridge, {name: hook}):
        yield scores


@contextlib.contextmanager
def splice_bridge(bridge: Any, sae: Any, hook_name: str | None = None) -> Iterator[None]:
    """Replace a residual by an SAE's reconstruction of it.

    Args:
        sae: anything that is called with activations and returns their reconstruction, such as an SAE of sae-lens.
        hook_name: of the bridge; None takes `sae.cfg.metadata.hook_name`.

    Raises:
        ModelError: the SAE names no hook, or one that the bridge does not have.
    """
    name = hook_name or getattr(getattr(getattr(sae, "cfg", None), "metadata", None), "hook_name", None)
    if name is None:
        raise ModelError(f"{type(sae).__name__} names no hook; give hook_name, e.g. {bridge_hook(bridge, 0)}")

    def hook(residual: Tensor, hook: Any) -> Tensor:
        return sae(residual)

    with _hooked(bridge, {check_hook(bridge, name): hook}):
        yield


@contextlib.contextmanager
def _hooked(bridge: Any, hooks: dict[str, HookFunction]) -> Iterator[None]:
    """TransformerLens counts the hooks that it adds, but it does not complain about those that it does not: here that is seen."""
    called: set[str] = set()

    def counted(name: str, function: HookFunction) -> HookFunction:
        def hook(value: Tensor, hook: Any) -> Tensor:
            called.add(name)
            return function(value, hook=hook)

        return hook

    with bridge.hooks(fwd_hooks=[(name, counted(name, function)) for name, function in hooks.items()]):
        yield
    if called and len(called) < len(hooks):
        silent = sorted(set(hooks) - called)
        raise ModelError(
            f"{len(silent)} hooks were never called (the first: {silent[0]}); this family computes past them"
        )


def _check_bridge_width(bridge: Any, vector: Float[Tensor, "d_model"]) -> None:
    if vector.shape[-1] != bridge.cfg.d_model:
        raise ModelError(
            f"direction has d_model {len(vector)}, the bridge has {bridge.cfg.d_model}; it is of another model"
        )
