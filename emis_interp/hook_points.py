"""Turns a decoder block and the name of a hook point into the submodule, and its side, where that residual can be read.

With the blocks numbered from 0, in every family: resid_pre + attn_out = resid_mid, resid_mid + mlp_out = resid_post, and resid_post is
the resid_pre of the next block. Parallel blocks (GPT-NeoX) add both at once: resid_pre + attn_out + mlp_out = resid_post.
"""

from dataclasses import dataclass
from typing import Literal

from emis_interp.errors import DataError, ModelError, did_you_mean
from emis_interp.models import ChatModel

HookPoint = Literal["resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out"]
HOOK_POINTS: tuple[HookPoint, ...] = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")


@dataclass(frozen=True)
class Site:
    """Where to read: the first input or the (first) output of the submodule `path` of a block; the block itself when `path` is empty."""

    path: str
    side: Literal["input", "output"]


def find_site(chat_model: ChatModel, hook_point: str) -> Site:
    """The site of a hook point in the blocks of this model.

    Raises:
        DataError: no such hook point.
        ModelError: the hook point does not exist in this family, or the family is not known to the table below.
    """
    if hook_point not in HOOK_POINTS:
        raise DataError(f"unknown hook point `{hook_point}`{did_you_mean(hook_point, HOOK_POINTS)}")
    if hook_point in EVERYWHERE:
        return EVERYWHERE[hook_point]
    block = chat_model.layers[0]
    family = type(block).__name__
    if family not in INSIDE:
        raise ModelError(
            f"{chat_model.name}: `{hook_point}` is not known for blocks of type {family} (known: {', '.join(sorted(INSIDE))}); "
            "use resid_pre or resid_post, which every decoder has"
        )
    if hook_point == "resid_mid" and getattr(block, "use_parallel_residual", False):
        raise ModelError(
            f"{chat_model.name}: attention and MLP run in parallel, so there is no resid_mid between them; "
            "use resid_pre, attn_out, mlp_out or resid_post"
        )
    return INSIDE[family][hook_point]


EVERYWHERE = {"resid_pre": Site("", "input"), "resid_post": Site("", "output")}


def _inside(resid_mid: str, attn_out: str, mlp_out: str) -> dict[str, Site]:
    return {
        "resid_mid": Site(resid_mid, "input"),
        "attn_out": Site(attn_out, "output"),
        "mlp_out": Site(mlp_out, "output"),
    }


_PRE_NORM = _inside("post_attention_layernorm", "self_attn", "mlp")
# Gemma norms what attention and MLP give before it is added; the norm's output is the contribution.
_PRE_AND_POST_NORM = _inside("pre_feedforward_layernorm", "post_attention_layernorm", "post_feedforward_layernorm")

# By the type of the block, never by the names of its parts: OLMo-2 and Cohere have the same names in another order.
INSIDE = {
    "LlamaDecoderLayer": _PRE_NORM,
    "MistralDecoderLayer": _PRE_NORM,
    "Qwen2DecoderLayer": _PRE_NORM,
    "Qwen3DecoderLayer": _PRE_NORM,
    "Gemma2DecoderLayer": _PRE_AND_POST_NORM,
    "Gemma3DecoderLayer": _PRE_AND_POST_NORM,
    "GPT2Block": _inside("ln_2", "attn", "mlp"),
    # The sequential variant of NeoX reads resid_mid through this norm; its dropouts are the last step before the sum.
    "GPTNeoXLayer": _inside("post_attention_layernorm", "post_attention_dropout", "post_mlp_dropout"),
}
