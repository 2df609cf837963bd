"""Turns texts that a model reads into what each of its parts adds to their log-probability: direct logit attribution, parts that sum.

The log-probability of a token t is logit_t - log sum_v exp(logit_v), and log sum_v exp(logit_v) = sum_v p_v logit_v + H(p) for the model's
own next-token distribution p. So log p_t = (logit_t - sum_v p_v logit_v) - H(p), and with p and the scale of the final norm held at what
they are at that token, the first term is linear in the last residual: embedding, attention and MLP of every layer have a share each, and
the shares and -H(p) sum to the log-probability with no remainder. The linear term is also the first-order effect of each part (the gradient
of log p_t is that of logit_t - sum_v p_v logit_v). Frozen-norm attribution: Elhage et al. (2021), "A Mathematical Framework for Transformer
Circuits", and the `logit_attrs` of TransformerLens, which attribute differences of logits and therefore need no entropy term.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from emis_interp.errors import ModelError
from emis_interp.models.chat import EncodedChat
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.finite import check_rows
from emis_interp.models.head import head_logits
from emis_interp.passes.batching import Batch, length_batches, pad
from emis_interp.passes.hook_points import check_identities, hook_site
from emis_interp.passes.lens import FrozenNorm, final_norm, frozen_norm

EMBEDDING, NORM_BIAS, HEAD_BIAS, ENTROPY = "embedding", "bias of the final norm", "bias of the head", "entropy"


@dataclass(frozen=True)
class Attribution:
    """What every part adds to the mean log-probability per answer token of each text, nats.

    Attributes:
        names: of the parts: `embedding`, `attn_out L` and `mlp_out L` of every layer, biases where there are any, and `entropy` (-H).
        parts: their sum over parts is `logprobs`.
        error: largest gap between the two, nats.
    """

    names: list[str]
    parts: Float[np.ndarray, "n_texts n_parts"]
    logprobs: Float[np.ndarray, "n_texts"]

    @property
    def error(self) -> float:
        return float(np.abs(self.parts.sum(1) - self.logprobs).max())


def attribute(
    chat_model: ChatModel, chats: Sequence[EncodedChat], *, max_batch_tokens: int = 1024, tolerance: float = 1e-3
) -> Attribution:
    """Direct logit attribution of the log-probability of every answer.

    Args:
        tolerance: nats that the parts of a text may miss its log-probability by.

    Raises:
        ModelError: a family whose blocks add something else than attention and MLP, whose final norm is not known, or whose head is not
            linear (caps its logits), so that the parts do not sum; a part or log-probability that is not finite, with its text.
    """
    check_identities(chat_model)
    norm = frozen_norm(chat_model)
    names = [EMBEDDING]
    for layer in range(chat_model.n_layers):
        names += [f"attn_out {layer}", f"mlp_out {layer}"]
    names += [NORM_BIAS, HEAD_BIAS, ENTROPY]
    parts, logprobs = np.empty((len(chats), len(names))), np.empty(len(chats))
    for rows in length_batches([len(chat) for chat in chats], max_batch_tokens):
        own = [chats[i] for i in rows]
        batch = pad([chat.input_ids for chat in own], chat_model.tokenizer.pad_token_id)
        written = _written(chat_model, batch, own)
        for i, chat, vectors in zip(rows, own, written, strict=True):
            parts[i], logprobs[i] = _of_text(chat_model, norm, chat, vectors=vectors)
        found = np.column_stack([logprobs[rows], parts[rows]])
        check_rows(
            chat_model,
            found,
            lambda j, own=own: own[j].input_ids,
            rows=rows,
            what="the log-probability or a part of it",
        )
    used = [j for j, name in enumerate(names) if name not in (NORM_BIAS, HEAD_BIAS) or np.abs(parts[:, j]).max() > 0]
    found = Attribution([names[j] for j in used], parts[:, used], logprobs)
    if not found.error <= tolerance:
        raise ModelError(
            f"{chat_model.name}: what its parts add misses the log-probability by {found.error:.3g} nats (at most {tolerance:g}); its head "
            "is not linear in the residual (it caps logits), or it computes in too coarse a dtype: give --dtype float32"
        )
    return found


def _written(
    chat_model: ChatModel, batch: Batch, chats: Sequence[EncodedChat]
) -> list[list[Float[Tensor, "position d_model"]]]:
    """For each text: embedding, then attention and MLP of every layer, at the tokens before those of the answer; last the residual."""
    seen: list[Tensor] = []

    def keep(module: Any, inputs: Any, output: Any) -> None:
        seen.append(output[0] if isinstance(output, tuple) else output)

    def keep_input(module: Any, inputs: Any, kwargs: dict[str, Any]) -> None:
        seen.append(inputs[0] if inputs else kwargs["hidden_states"])

    handles = [chat_model.layers[0].register_forward_pre_hook(keep_input, with_kwargs=True)]
    for block in chat_model.layers:
        for point in ("attn_out", "mlp_out"):
            handles.append(block.get_submodule(hook_site(block, point).path).register_forward_hook(keep))
    handles.append(chat_model.layers[-1].register_forward_hook(keep))
    try:
        with torch.no_grad():
            chat_model.body(**batch.model_inputs(chat_model.device), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return [
        [one[row, chat.response_start - 1 : chat.response_end - 1] for one in seen] for row, chat in enumerate(chats)
    ]


def _of_text(
    chat_model: ChatModel, norm: FrozenNorm, chat: EncodedChat, *, vectors: Sequence[Float[Tensor, "position d_model"]]
) -> tuple[Float[np.ndarray, "n_parts"], float]:
    *added, residual = vectors
    targets = torch.tensor(chat.input_ids[chat.response_start : chat.response_end], device=residual.device)[:, None]
    with torch.enable_grad():
        normed = final_norm(chat_model)(residual.detach()).detach().requires_grad_(True)
        logits = head_logits(chat_model.model, normed)
        exact = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
        chosen = exact.gather(-1, targets)[:, 0]
        (gradient,) = torch.autograd.grad(chosen.sum(), normed)
    with torch.no_grad():
        scale = norm.scale(residual)
        shares = [float((norm.linear(part, scale) * gradient).sum(-1).double().mean()) for part in added]
        of_norm = float((norm.bias * gradient).sum(-1).double().mean())
        probabilities = exact.exp()
        zero = head_logits(chat_model.model, torch.zeros_like(normed[:1]))[0].to(exact)
        of_head = float((zero[targets[:, 0]] - probabilities @ zero).double().mean())
        entropy = float((probabilities * exact).sum(-1).double().mean())
    return np.array([*shares, of_norm, of_head, entropy]), float(chosen.detach().double().mean())
