"""Turns a decoder block into its layout: which of its submodules write to the residual stream, whatever the family calls them."""

from dataclasses import dataclass

from torch import nn

from emis_interp.errors import ModelError

WRITERS = ("o_proj", "out_proj", "down_proj", "c_proj", "dense", "dense_4h_to_h", "fc2", "fc_out")
"""Names of the linear maps of a decoder block whose output is added to the residual stream (Gemma 2 and 3 norm it first)."""


@dataclass(frozen=True)
class BlockLayout:
    """Names of a block's submodules: whose outputs are added to the residual, and which one reads it between the two.

    `parallel`: attention and MLP read the same residual. `normed`: both outputs pass a norm of their own before they are added.
    """

    attn_out: str
    mlp_out: str
    reads_mid: str
    parallel: bool
    normed: bool = False


def block_layout(block: nn.Module) -> BlockLayout:
    """The layout of a decoder block, recognised by the names of its submodules.

    Raises:
        ModelError: none of the known layouts, with the names that were found.
    """
    names = {name for name, _ in block.named_children()}
    attention = next((name for name in ("self_attn", "attn", "attention") if name in names), None)
    if attention and "mlp" in names:
        if {"ln_1", "ln_2"} <= names and "crossattention" not in names:  # GPT-2
            return BlockLayout(attention, "mlp", "ln_2", parallel=False)
        norms = {name for name in names if name.endswith("layernorm")}
        if norms == {"input_layernorm", "post_attention_layernorm"}:  # Llama, Qwen, Mistral; NeoX may be parallel
            parallel = bool(getattr(block, "use_parallel_residual", False))
            return BlockLayout(attention, "mlp", "post_attention_layernorm", parallel)
        if norms == {
            "input_layernorm",
            "post_attention_layernorm",
            "pre_feedforward_layernorm",
            "post_feedforward_layernorm",
        }:
            # Gemma 2 and 3 normalise both outputs before they are added.
            return BlockLayout(
                "post_attention_layernorm",
                "post_feedforward_layernorm",
                "pre_feedforward_layernorm",
                False,
                normed=True,
            )
    raise ModelError(
        f"{type(block).__name__} is no decoder block of a known layout (its parts: {', '.join(sorted(names))}); "
        "resid_pre and resid_post work in every model"
    )


def writers_of(block: nn.Module) -> tuple[str, str]:
    """Paths of the two linear maps whose outputs are added to the residual stream as they are: attention's and the MLP's.

    Raises:
        ModelError: a block of no known layout, one that norms what it adds, or one whose attention or MLP ends in no single known map
            (experts).
    """
    layout, family = block_layout(block), type(block).__name__
    if layout.normed:
        raise ModelError(
            f"{family} norms what attention and MLP give before it is added, and the norm's weights bring the direction back; use "
            "`ablate`, which acts behind the norm"
        )

    def writer(part: str) -> str:
        found = [name for name, _ in block.get_submodule(part).named_children() if name in WRITERS]
        if len(found) != 1:
            raise ModelError(
                f"{family}: which map of `{part}` writes to the residual stream is not known (found {found})"
            )
        return f"{part}.{found[0]}"

    return writer(layout.attn_out), writer(layout.mlp_out)
