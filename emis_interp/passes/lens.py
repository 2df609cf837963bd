"""Turns residual vectors into the logits that the model's own final norm and head give them, and logits into tokens.

The logit lens (nostalgebraist 2020). A direction, or a difference of residuals, has no norm of its own that means anything, so it is read
with the scale of the final norm frozen (`FrozenNorm`): then the norm is linear, and the lens of a sum is the sum of the lenses.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from emis_interp.errors import ModelError
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.head import head_logits


@dataclass(frozen=True)
class FrozenNorm:
    """The final norm with its scale held fixed: out = weight * (x - mean(x) if it centres) * scale + bias.

    Attributes:
        weight, bias: what the norm multiplies by and adds; a bias of zeros where it has none.
        centres: whether it takes the mean out first (LayerNorm; RMSNorm does not).
        epsilon: what it adds to the mean square.
    """

    weight: Float[Tensor, "d_model"]
    bias: Float[Tensor, "d_model"]
    centres: bool
    epsilon: float

    def scale(self, residual: Float[Tensor, "... d_model"]) -> Float[Tensor, "... 1"]:
        """What a residual is multiplied by: one over its root mean square (behind the centring, if any)."""
        return (self._centred(residual).square().mean(-1, keepdim=True) + self.epsilon).rsqrt()

    def linear(self, part: Float[Tensor, "... d_model"], scale: Float[Tensor, "... 1"]) -> Float[Tensor, "... d_model"]:
        """A part of a residual as it leaves the norm, without the bias, at the scale of the whole."""
        return self.weight * self._centred(part) * scale

    def _centred(self, x: Tensor) -> Tensor:
        return x - x.mean(-1, keepdim=True) if self.centres else x


def final_norm(chat_model: ChatModel) -> nn.Module:
    """The norm between the last block and the head.

    Raises:
        ModelError: the decoder has none behind its blocks, or several.
    """
    names = [name for name, _ in chat_model.body.named_children()]
    behind = names[names.index(chat_model.layers_name) + 1 :]
    found = [name for name in behind if "norm" in name.lower() or name.lower().startswith("ln")]
    if len(found) != 1:
        raise ModelError(
            f"{chat_model.name}: expected one norm behind the blocks of {type(chat_model.body).__name__}, found {found or 'none'}; "
            "the lens does not know this family"
        )
    return chat_model.body.get_submodule(found[0])


def frozen_norm(chat_model: ChatModel) -> FrozenNorm:
    """The final norm taken apart, and checked to give what the module gives on random vectors.

    Raises:
        ModelError: it is neither an RMSNorm nor a LayerNorm.
    """
    module: Any = final_norm(chat_model)
    weight: Tensor = module.weight.detach()
    epsilon = float(getattr(module, "eps", getattr(module, "variance_epsilon", 0.0)))
    bias = getattr(module, "bias", None)
    centres = isinstance(module, nn.LayerNorm)
    # Some families keep the weight as its difference from 1 (Gemma).
    for shown in (weight, 1 + weight):
        one = FrozenNorm(shown, torch.zeros_like(weight) if bias is None else bias.detach(), centres, epsilon)
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(4, chat_model.d_model, generator=generator).to(weight)
        with torch.no_grad():
            expected, found = module(x), one.linear(x, one.scale(x)) + one.bias
        if (found - expected).norm() <= max(1e-5, 8 * torch.finfo(weight.dtype).eps) * expected.norm():
            return one
    raise ModelError(
        f"{chat_model.name}: {type(module).__name__} is neither an RMSNorm nor a LayerNorm as known here; the lens cannot freeze it"
    )


def lens_logits(chat_model: ChatModel, residuals: Float[Tensor, "... d_model"]) -> Float[Tensor, "... vocab"]:
    """Logits of `resid_post` at any layer, as if the blocks behind it did nothing; those of the last layer are the model's own."""
    with torch.no_grad():
        normed = final_norm(chat_model)(residuals.to(chat_model.device, getattr(torch, chat_model.dtype)))
        return head_logits(chat_model.model, normed)


def direction_logits(
    chat_model: ChatModel, vectors: Float[Tensor, "... d_model"], *, scale: float = 1.0
) -> Float[Tensor, "... vocab"]:
    """What adding a vector to the last residual does to each logit, per unit of `scale`, at a frozen final norm.

    Args:
        scale: of the frozen norm (one over the root mean square of a residual); it orders no tokens.

    Raises:
        ModelError: a head that is not linear (capped logits).
    """
    norm = frozen_norm(chat_model)
    with torch.no_grad():
        normed = norm.linear(vectors.to(norm.weight), norm.weight.new_tensor([scale]))
        zero = head_logits(chat_model.model, torch.zeros_like(normed))
        found = head_logits(chat_model.model, normed) - zero
        twice = head_logits(chat_model.model, 2 * normed) - zero
    if not torch.allclose(twice, 2 * found, rtol=1e-2, atol=1e-3 * float(found.abs().max())):
        raise ModelError(
            f"{chat_model.name}: its head is not linear (it caps logits), so that a direction has no logits of its own"
        )
    return found


def extreme_tokens(tokenizer: Any, logits: Float[Tensor, "vocab"], n: int) -> tuple[list[str], list[str]]:
    """The n tokens with the largest logits, falling, and the n with the smallest, rising; tokens that the tokenizer does not have (padding
    of the vocabulary) are left out."""
    known = logits[: len(tokenizer)].float()
    return token_texts(tokenizer, known.topk(n).indices.tolist()), token_texts(
        tokenizer, (-known).topk(n).indices.tolist()
    )


def token_texts(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """Each token as text."""
    return [str(tokenizer.decode([token])) for token in ids]
