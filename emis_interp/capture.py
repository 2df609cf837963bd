"""Turns texts into residual-stream activations through nnsight: one vector per text and layer, or one per token.

Pooling happens inside the trace, the pass stops after the last layer asked for, and the language-model head never runs.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import nnsight
import torch
from jaxtyping import Float
from torch import Tensor

from emis_interp.batching import Batch, PaddingSide, length_batches, pad
from emis_interp.chat import EncodedChat
from emis_interp.errors import DataError
from emis_interp.hook_points import Site, find_site
from emis_interp.models import ChatModel
from emis_interp.positions import Position, pooling_weights, token_sets

Progress = Callable[[int], None]


@dataclass(frozen=True)
class OutputEdit:
    """A forward hook of a decoder block (or a part of it) that replaces the residual leaving it.

    nnsight hands out what a module's `forward` returned, before PyTorch runs its hooks; capture therefore applies these edits itself,
    so that it reports the residual that the model reads next.
    """

    edit: Callable[[Tensor], Tensor]

    def __call__(self, module: torch.nn.Module, inputs: Any, output: Any) -> Any:
        if isinstance(output, tuple):  # attention modules, and blocks of older transformers, return (hidden, ...)
            return (self.edit(output[0]), *output[1:])
        return self.edit(output)


def capture_residuals(
    chat_model: ChatModel,
    chats: Sequence[EncodedChat],
    layers: Sequence[int] | None = None,
    position: Position = "response_mean",
    max_batch_tokens: int = 1024,
    padding_side: PaddingSide = "right",
    progress: Progress | None = None,
    hook_point: str = "resid_post",
) -> Float[Tensor, "n_texts n_layers d_model"]:
    """The residuals of `capture_with_norms`, without the norms."""
    wanted = _checked(chat_model, chats, layers)
    sets = token_sets(chats, position)
    pooled = torch.empty(len(chats), len(wanted), chat_model.d_model)
    for trace, rows in _batches(chat_model, chats, wanted, hook_point, max_batch_tokens, padding_side, progress):
        pooled[rows] = trace.run(_mean(pooling_weights([sets[i] for i in rows], trace.batch)))
    return pooled


def capture_with_norms(
    chat_model: ChatModel,
    chats: Sequence[EncodedChat],
    layers: Sequence[int] | None = None,
    position: Position = "response_mean",
    max_batch_tokens: int = 1024,
    padding_side: PaddingSide = "right",
    progress: Progress | None = None,
    hook_point: str = "resid_post",
) -> tuple[Float[Tensor, "n_texts n_layers d_model"], Float[Tensor, "n_texts n_layers"]]:
    """The residual of each text at a hook point, pooled over positions.

    Args:
        layers: 0-based decoder blocks, in the order of the result; None for all.
        position: `response_mean` (mean over the answer's tokens; every text then has the same weight in later means, i.e.
            sample-weighted; `running_means` has the token-weighted kind), `last_prompt` (the last token before the answer),
            `response_last` (the answer's last token), `all` (mean over the whole text), or the indices of each text's tokens.
        progress: called with the number of texts just finished.
        hook_point: one of `hook_points.HOOK_POINTS`; `resid_post` is the output of the block, HF `hidden_states[layer + 1]`.

    Returns:
        The pooled residuals, and the norms of the single tokens' residuals pooled in the same way (a mean of tokens is shorter than its
        tokens); float32 on the CPU, in units of the residual stream, in the order of `chats`.

    Raises:
        ModelError: a layer or a hook point that the model does not have.
        DataError: no texts, or positions that are unknown or outside a text.
    """
    wanted = _checked(chat_model, chats, layers)
    sets = token_sets(chats, position)
    pooled = torch.empty(len(chats), len(wanted), chat_model.d_model)
    norms = torch.empty(len(chats), len(wanted))
    for trace, rows in _batches(chat_model, chats, wanted, hook_point, max_batch_tokens, padding_side, progress):
        both = trace.run(_mean_and_norm(pooling_weights([sets[i] for i in rows], trace.batch)))
        pooled[rows], norms[rows] = both[..., :-1], both[..., -1]
    return pooled, norms


def capture_response_tokens(
    chat_model: ChatModel,
    chats: Sequence[EncodedChat],
    layer: int,
    max_batch_tokens: int = 1024,
    progress: Progress | None = None,
) -> list[Float[Tensor, "n_response_tokens d_model"]]:
    """`resid_post` of one layer at every token of each answer, in the model's dtype on the CPU, in the order of `chats`."""
    tokens: dict[int, Tensor] = {}
    for i, residuals in stream_tokens(chat_model, chats, [layer], max_batch_tokens=max_batch_tokens):
        tokens[i] = residuals[:, 0]
        if progress:
            progress(1)
    return [tokens[i] for i in range(len(chats))]


def stream_tokens(
    chat_model: ChatModel,
    chats: Sequence[EncodedChat],
    layers: Sequence[int] | None = None,
    position: Position = "response_mean",
    max_batch_tokens: int = 1024,
    hook_point: str = "resid_post",
) -> Iterator[tuple[int, Float[Tensor, "n_tokens n_layers d_model"]]]:
    """Every token that `position` would average, text by text, longest texts first: (index in `chats`, residuals).

    One batch is held at a time. In the model's dtype on the CPU; errors as in `capture_with_norms`.
    """
    wanted = _checked(chat_model, chats, layers)
    sets = token_sets(chats, position)
    for trace, rows in _batches(chat_model, chats, wanted, hook_point, max_batch_tokens):
        offsets = trace.batch.offset
        row = torch.cat([torch.full((len(sets[i]),), j) for j, i in enumerate(rows)])
        column = torch.cat([torch.as_tensor(sets[i]) + offsets[j] for j, i in enumerate(rows)])
        picked = trace.run(lambda residual, row=row, column=column: residual[row, column])
        yield from zip(rows, picked.split([len(sets[i]) for i in rows]), strict=True)


@dataclass(frozen=True)
class Trace:
    """One batch, ready to be read at the given layers through `traced`."""

    chat_model: ChatModel
    traced: Any
    batch: Batch
    layers: list[int]
    site: Site

    def run(
        self, reduce: Callable[[Float[Tensor, "batch position d_model"]], Tensor]
    ) -> Float[Tensor, "n n_layers ..."]:
        """`reduce` of each layer's residual, applied while the model runs; layers stacked in axis 1, on the CPU."""
        ascending = sorted(set(self.layers))
        prefix = f"{self.chat_model.layers_name}.{{}}.{self.site.path}"
        paths = [prefix.format(layer).rstrip(".") for layer in ascending]
        envoys = [self.traced.get(path) for path in paths]
        edits = [_output_edits(self.chat_model.body.get_submodule(path)) for path in paths]
        inputs, reads_input = self.batch.model_inputs(self.chat_model.device), self.site.side == "input"
        with torch.no_grad():
            with self.traced.trace(**inputs, use_cache=False) as tracer:
                collected = nnsight.save([])
                for envoy, edit in zip(envoys, edits, strict=True):
                    value = envoy.input if reads_input else edit(envoy.output)
                    collected.append(reduce(value))
                tracer.stop()
        found = dict(zip(ascending, collected, strict=True))
        # Layers may lie on several devices.
        device = collected[0].device
        return torch.stack([found[layer].to(device) for layer in self.layers], dim=1).cpu()


def _output_edits(module: torch.nn.Module) -> Callable[[Any], Tensor]:
    """What the module's `OutputEdit` hooks make of the output of its forward, as one tensor."""
    hooks = [hook for hook in module._forward_hooks.values() if isinstance(hook, OutputEdit)]

    def apply(output: Any) -> Tensor:
        residual = output[0] if isinstance(output, tuple) else output
        for hook in hooks:
            residual = hook.edit(residual)
        return residual

    return apply


def _checked(chat_model: ChatModel, chats: Sequence[EncodedChat], layers: Sequence[int] | None) -> list[int]:
    if not chats:
        raise DataError("no texts to capture; give at least one question with an answer")
    wanted = chat_model.check_layers(list(range(chat_model.n_layers)) if layers is None else list(layers))
    if not wanted:
        raise DataError("no layers to capture; give at least one, or none at all for every layer")
    return wanted


def _batches(
    chat_model: ChatModel,
    chats: Sequence[EncodedChat],
    layers: list[int],
    hook_point: str,
    max_batch_tokens: int,
    padding_side: PaddingSide = "right",
    progress: Progress | None = None,
) -> Iterator[tuple[Trace, list[int]]]:
    """Batches of similar length with the indices of their texts; a batch counts as finished when the next is asked for."""
    site = find_site(chat_model, hook_point)
    traced = nnsight.NNsight(chat_model.body)
    for rows in length_batches([len(chat) for chat in chats], max_batch_tokens):
        batch = pad([chats[i].input_ids for i in rows], chat_model.tokenizer.pad_token_id, padding_side)
        yield Trace(chat_model, traced, batch, layers, site), rows
        if progress:
            progress(len(rows))


def _mean(weights: Float[Tensor, "batch position"]) -> Callable[[Tensor], Tensor]:
    """Weighted sums over positions, in float32: [batch, d_model]."""
    return lambda residual: torch.einsum("bpd,bp->bd", residual.float(), weights.to(residual.device))


def _mean_and_norm(weights: Float[Tensor, "batch position"]) -> Callable[[Tensor], Tensor]:
    """`_mean` with the weighted sum of the tokens' norms behind it: [batch, d_model + 1]."""

    def reduce(residual: Tensor) -> Tensor:
        tokens, pooling = residual.float(), weights.to(residual.device)
        norms = (tokens.norm(dim=-1) * pooling).sum(1)
        return torch.cat([torch.einsum("bpd,bp->bd", tokens, pooling), norms[:, None]], dim=1)

    return reduce
