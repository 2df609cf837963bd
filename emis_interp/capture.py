"""Turns texts into residual-stream activations through nnsight: one vector per text and layer.

Pooling happens inside the trace, the pass stops after the last layer asked for, and the language-model head never runs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import nnsight
import torch
from jaxtyping import Float
from torch import Tensor

from emis_interp.batching import Batch, PaddingSide, length_batches, pad
from emis_interp.chat import EncodedChat
from emis_interp.errors import DataError, did_you_mean
from emis_interp.models import ChatModel

Progress = Callable[[int], None]


@dataclass(frozen=True)
class OutputEdit:
    """A forward hook of a decoder block that replaces the residual leaving it.

    nnsight hands out what a block's `forward` returned, before PyTorch runs its hooks; capture therefore applies these edits itself,
    so that it reports the residual that the next block reads.
    """

    edit: Callable[[Tensor], Tensor]

    def __call__(self, module: torch.nn.Module, inputs: Any, output: Any) -> Any:
        if isinstance(output, tuple):  # older transformers return (hidden, ...)
            return (self.edit(output[0]), *output[1:])
        return self.edit(output)


def capture_residuals(
    chat_model: ChatModel,
    chats: Sequence[EncodedChat],
    layers: Sequence[int] | None = None,
    position: str = "response_mean",
    max_batch_tokens: int = 1024,
    padding_side: PaddingSide = "right",
    progress: Progress | None = None,
) -> Float[Tensor, "n_texts n_layers d_model"]:
    """The residuals of `capture_with_norms`, without the norms."""
    return capture_with_norms(chat_model, chats, layers, position, max_batch_tokens, padding_side, progress)[0]


def capture_with_norms(
    chat_model: ChatModel,
    chats: Sequence[EncodedChat],
    layers: Sequence[int] | None = None,
    position: str = "response_mean",
    max_batch_tokens: int = 1024,
    padding_side: PaddingSide = "right",
    progress: Progress | None = None,
) -> tuple[Float[Tensor, "n_texts n_layers d_model"], Float[Tensor, "n_texts n_layers"]]:
    """`resid_post` (output of the decoder block, HF `hidden_states[layer + 1]`) of each text, pooled over positions.

    Args:
        layers: 0-based decoder blocks, in the order of the result; None for all.
        position: a key of `POSITIONS`: `response_mean` (mean over the answer's tokens; every text then has the same weight in later
            means, i.e. sample-weighted), or `last_prompt` (the last token before the answer).
        progress: called with the number of texts just finished.

    Returns:
        The pooled residuals, and the norms of the single tokens' residuals pooled in the same way (a mean of tokens is shorter than its
        tokens); float32 on the CPU, in units of the residual stream, in the order of `chats`.

    Raises:
        ModelError: a layer that the model does not have.
        DataError: no texts, or an unknown position.
    """
    if not chats:
        raise DataError("no texts to capture; give at least one question with an answer")
    if position not in POSITIONS:
        raise DataError(f"unknown position `{position}`{did_you_mean(position, POSITIONS)}")
    wanted = chat_model.check_layers(list(range(chat_model.n_layers)) if layers is None else list(layers))
    traced: Any = nnsight.NNsight(chat_model.body)
    pooled = torch.empty(len(chats), len(wanted), chat_model.d_model)
    norms = torch.empty(len(chats), len(wanted))
    for rows in length_batches([len(chat) for chat in chats], max_batch_tokens):
        members = [chats[i] for i in rows]
        batch = pad([chat.input_ids for chat in members], chat_model.tokenizer.pad_token_id, padding_side)
        weights = POSITIONS[position](members, batch)
        pooled[rows], norms[rows] = _pooled(chat_model, traced, batch, weights, wanted)
        if progress:
            progress(len(rows))
    return pooled, norms


def capture_response_tokens(
    chat_model: ChatModel,
    chats: Sequence[EncodedChat],
    layer: int,
    max_batch_tokens: int = 1024,
    progress: Progress | None = None,
) -> list[Float[Tensor, "n_response_tokens d_model"]]:
    """`resid_post` of one layer at every token of each answer, in the model's dtype on the CPU, in the order of `chats`."""
    chat_model.check_layers([layer])
    traced: Any = nnsight.NNsight(chat_model.body)
    edits = [hook for hook in chat_model.layers[layer]._forward_hooks.values() if isinstance(hook, OutputEdit)]
    tokens: dict[int, Tensor] = {}
    for rows in length_batches([len(chat) for chat in chats], max_batch_tokens):
        batch = pad([chats[i].input_ids for i in rows], chat_model.tokenizer.pad_token_id)
        inputs = batch.model_inputs(chat_model.device)
        blocks = getattr(traced, chat_model.layers_name)
        with torch.no_grad():
            with traced.trace(**inputs, use_cache=False) as tracer:
                collected = nnsight.save([])
                output = blocks[layer].output
                collected.append(output[0] if isinstance(output, tuple) else output)
                tracer.stop()
        residual = collected[0]
        for hook in edits:
            residual = hook.edit(residual)
        for j, i in enumerate(rows):
            tokens[i] = residual[j, chats[i].response_start : chats[i].response_end].cpu()
        if progress:
            progress(len(rows))
    return [tokens[i] for i in range(len(chats))]


def _pooled(
    chat_model: ChatModel,
    traced: Any,
    batch: Batch,
    weights: Float[Tensor, "batch position"],
    layers: list[int],
) -> tuple[Float[Tensor, "batch n_layers d_model"], Float[Tensor, "batch n_layers"]]:
    inputs = batch.model_inputs(chat_model.device)
    pooling = weights.to(chat_model.device)
    blocks = getattr(traced, chat_model.layers_name)
    ascending = sorted(set(layers))
    hooks = {layer: chat_model.layers[layer]._forward_hooks.values() for layer in ascending}
    with torch.no_grad():
        with traced.trace(**inputs, use_cache=False) as tracer:
            collected = nnsight.save([])
            for layer in ascending:
                output = blocks[layer].output
                residual = output[0] if isinstance(output, tuple) else output
                for hook in hooks[layer]:
                    residual = hook.edit(residual) if isinstance(hook, OutputEdit) else residual
                tokens = residual.float()
                collected.append(torch.einsum("bpd,bp->bd", tokens, pooling))
                collected.append((tokens.norm(dim=-1) * pooling).sum(1))
            tracer.stop()
    values = list(collected)
    vectors, norms = (dict(zip(ascending, values[start::2], strict=True)) for start in (0, 1))
    return (
        torch.stack([vectors[layer] for layer in layers], dim=1).cpu(),
        torch.stack([norms[layer] for layer in layers], dim=1).cpu(),
    )


def _response_mean(chats: Sequence[EncodedChat], batch: Batch) -> Float[Tensor, "batch position"]:
    weights = torch.zeros(batch.input_ids.shape)
    for i, chat in enumerate(chats):
        start, end = chat.response_start + batch.offset[i], chat.response_end + batch.offset[i]
        weights[i, start:end] = 1 / (end - start)
    return weights


def _last_prompt(chats: Sequence[EncodedChat], batch: Batch) -> Float[Tensor, "batch position"]:
    weights = torch.zeros(batch.input_ids.shape)
    for i, chat in enumerate(chats):
        weights[i, chat.response_start - 1 + batch.offset[i]] = 1
    return weights


POSITIONS: dict[str, Callable[[Sequence[EncodedChat], Batch], Tensor]] = {
    "response_mean": _response_mean,
    "last_prompt": _last_prompt,
}
