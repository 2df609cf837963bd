"""Turns a hook point (`resid_pre`, `attn_out`, ...) and a decoder block into the submodule whose input or output it is.

Blocks are recognised by the names of their submodules, not by the model's class, and what was found is checked by arithmetic on a
short forward pass: resid_pre + attn_out = resid_mid and resid_mid + mlp_out = resid_post, or, where attention and MLP read the same
residual, resid_pre + attn_out + mlp_out = resid_post.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from emis_interp.errors import ModelError, did_you_mean
from emis_interp.models.blocks import BlockLayout, block_layout
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.batch_rows import one_probe_row
from emis_interp.passes.hook_names import HOOK_POINTS


@dataclass(frozen=True)
class Site:
    """The input or the output of a submodule of a decoder block; the empty path is the block itself."""

    path: str
    end: Literal["input", "output"]


def hook_site(block: nn.Module, hook_point: str) -> Site:
    """Where `hook_point` is read in this block.

    Raises:
        ModelError: an unknown hook point, a block whose parts are not recognised, or `resid_mid` of a parallel block.
    """
    if hook_point not in HOOK_POINTS:
        raise ModelError(f"unknown hook point `{hook_point}`{did_you_mean(hook_point, HOOK_POINTS)}")
    if hook_point in ("resid_pre", "resid_post"):
        return Site("", "input" if hook_point == "resid_pre" else "output")
    layout = block_layout(block)
    if hook_point == "resid_mid":
        if layout.parallel:
            raise ModelError(
                f"{type(block).__name__} has no resid_mid: attention and MLP read the same residual and both outputs are added to it "
                "at once; use resid_pre, attn_out, mlp_out or resid_post"
            )
        return Site(layout.reads_mid, "input")
    return Site(layout.attn_out if hook_point == "attn_out" else layout.mlp_out, "output")


def check_identities(chat_model: ChatModel) -> None:
    """Check on four tokens that the outputs found in layer 0 are what is added to the residual there.

    A block may carry known names and yet scale an output before it is added (Granite does): such a model is refused, not misread.

    Raises:
        ModelError: the identity in the docstring of this module does not hold.
    """
    block: Any = chat_model.layers[0]
    layout = block_layout(block)
    found = _first_block(chat_model, layout)
    sums = (
        {"resid_post": found["resid_pre"] + found["attn_out"] + found["mlp_out"]}
        if layout.parallel
        else {
            "resid_mid": found["resid_pre"] + found["attn_out"],
            "resid_post": found["resid_mid"] + found["mlp_out"],
        }
    )
    for name, expected in sums.items():
        actual = found[name]
        rounding = 4 * torch.finfo(actual.dtype).eps
        gap, added = (actual - expected).float().norm(), (actual - found["resid_pre"]).float().norm()
        if not gap <= 0.01 * added + rounding * actual.float().norm():  # also refuses what is not a number
            raise ModelError(
                f"{type(block).__name__}: what `{layout.attn_out}` and `{layout.mlp_out}` return is not what is added to the residual "
                f"({name} differs by {float(gap):.3g}, the block adds {float(added):.3g}); use resid_pre or resid_post"
            )


class _Stop(Exception):
    """Ends the forward pass once the first block is read."""


def _first_block(chat_model: ChatModel, layout: BlockLayout) -> dict[str, Tensor]:
    """The residual around layer 0 and what is added to it there, as its own submodules computed it."""
    block: Any = chat_model.layers[0]
    found: dict[str, Tensor] = {}

    def keep(name: str, value: Any) -> None:
        found[name] = value[0] if isinstance(value, tuple) else value

    def keep_last(module: nn.Module, inputs: Any, output: Any) -> None:
        keep("resid_post", output)
        raise _Stop

    def first(inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        return inputs[0] if inputs else kwargs["hidden_states"]

    handles = [
        block.register_forward_pre_hook(lambda _, inputs, kw: keep("resid_pre", first(inputs, kw)), with_kwargs=True),
        block.get_submodule(layout.attn_out).register_forward_hook(lambda *call: keep("attn_out", call[2])),
        block.get_submodule(layout.reads_mid).register_forward_pre_hook(
            lambda _, inputs, kw: keep("resid_mid", first(inputs, kw)), with_kwargs=True
        ),
        block.get_submodule(layout.mlp_out).register_forward_hook(lambda *call: keep("mlp_out", call[2])),
        # Before the hooks of an intervention, whose edit is no part of the block's own sum.
        block.register_forward_hook(keep_last, prepend=True),
    ]
    ids = torch.arange(4, device=chat_model.device)[None]
    with _removed(handles), contextlib.suppress(_Stop), torch.no_grad(), one_probe_row(chat_model):
        chat_model.body(input_ids=ids, attention_mask=torch.ones_like(ids), position_ids=ids, use_cache=False)
    return found


@contextlib.contextmanager
def _removed(handles: list[Any]) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
