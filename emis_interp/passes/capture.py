"""Turns texts into residual-stream activations through nnsight: one vector per text and layer, or one per token.

Tokens are picked (and pooled) inside the trace, the pass stops after the last layer asked for, and the language-model head never runs.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

import nnsight
import torch
from jaxtyping import Float
from torch import Tensor

from emis_interp.errors import DataError
from emis_interp.models.chat import EncodedChat
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.finite import check_rows
from emis_interp.passes.batch_rows import batch_rows
from emis_interp.passes.batching import Batch, PaddingSide, length_batches, pad
from emis_interp.passes.hook_points import Site, check_identities, hook_site
from emis_interp.passes.positions import Position, token_indices

Progress = Callable[[int], None]
Reduce = Callable[[Float[Tensor, "n_picked d_model"]], Any]


@dataclass(frozen=True)
class OutputEdit:
    """A forward hook of a module that replaces the tensor leaving it (the residual, for a decoder block).

    nnsight hands out what a module's `forward` returned, before PyTorch runs its hooks; capture therefore applies these edits itself,
    so that it reports what the next module reads.
    """

    edit: Callable[[Tensor], Tensor]

    def __call__(self, module: torch.nn.Module, inputs: Any, output: Any) -> Any:
        if isinstance(output, tuple):  # older transformers return (hidden, ...)
            return (self.edit(output[0]), *output[1:])
        return self.edit(output)


class CaptureOptions(TypedDict, total=False):
    """What `capture_with_norms` may be told besides, with its defaults."""

    position: Position
    max_batch_tokens: int
    padding_side: PaddingSide
    progress: Progress | None
    hook_point: str


def capture_residuals(
    chat_model: ChatModel,
    chats: Sequence[EncodedChat],
    layers: Sequence[int] | None = None,
    **options: Unpack[CaptureOptions],
) -> Float[Tensor, "n_texts n_layers d_model"]:
    """The residuals of `capture_with_norms`, without the norms."""
    return capture_with_norms(chat_model, chats, layers, **options)[0]


def capture_with_norms(
    chat_model: ChatModel,
    chats: Sequence[EncodedChat],
    layers: Sequence[int] | None = None,
    *,
    position: Position = "response_mean",
    max_batch_tokens: int = 1024,
    padding_side: PaddingSide = "right",
    progress: Progress | None = None,
    hook_point: str = "resid_post",
) -> tuple[Float[Tensor, "n_texts n_layers d_model"], Float[Tensor, "n_texts n_layers"]]:
    """The residual stream (or what a block adds to it) of each text, averaged over the tokens of a position.

    Args:
        layers: 0-based decoder blocks, in the order of the result; None for all.
        position: a key of `positions.POSITIONS` (`response_mean` is the mean over the answer's tokens; every text then has the same
            weight in later means, i.e. sample-weighted), `TokenSets`, or a function from a text to token indices.
        progress: called with the number of texts just finished.
        hook_point: one of `hook_names.HOOK_POINTS`; `resid_post` of layer l is HF `hidden_states[l + 1]`.

    Returns:
        The pooled vectors, and the norms of the single tokens' vectors pooled in the same way (a mean of tokens is shorter than its
        tokens); float32 on the CPU (float64 for a float64 model), in units of the residual stream, in the order of `chats`.

    Raises:
        ModelError: a layer or a hook point that the model does not have.
        DataError: no texts, no layers, an unknown position, or a token outside its text.
    """
    runs = capture_batches(
        chat_model,
        chats,
        layers,
        position=position,
        reduce_for=mean_and_norm,
        max_batch_tokens=max_batch_tokens,
        padding_side=padding_side,
        hook_point=hook_point,
    )
    pooled = norms = torch.empty(0)
    for rows, _, found in runs:
        if not len(pooled):
            like = found[0][0]
            pooled = torch.empty(len(chats), len(found), like.shape[-1], dtype=like.dtype)
            norms = torch.empty(len(chats), len(found), dtype=like.dtype)
        pooled[rows] = torch.stack([vectors.cpu() for vectors, _ in found], dim=1)
        norms[rows] = torch.stack([lengths.cpu() for _, lengths in found], dim=1)
        batch = list(rows)
        check_rows(
            chat_model, pooled[rows], lambda i, batch=batch: chats[batch[i]].input_ids, rows=rows, what="a residual"
        )
        if progress:
            progress(len(rows))
    return pooled, norms


def capture_response_tokens(
    chat_model: ChatModel,
    chats: Sequence[EncodedChat],
    layer: int,
    *,
    max_batch_tokens: int = 1024,
    progress: Progress | None = None,
) -> list[Float[Tensor, "n_response_tokens d_model"]]:
    """`resid_post` of one layer at every token of each answer, in the model's dtype on the CPU, in the order of `chats`."""
    tokens: dict[int, Tensor] = {}
    runs = capture_batches(
        chat_model,
        chats,
        [layer],
        position="response_mean",
        reduce_for=lambda _: keep_tokens,
        max_batch_tokens=max_batch_tokens,
    )
    for rows, counts, [picked] in runs:
        tokens.update(zip(rows, picked.cpu().split(counts), strict=True))
        for row in rows:
            check_rows(
                chat_model,
                tokens[row],
                lambda _, row=row: chats[row].input_ids,
                rows=[row] * len(tokens[row]),
                what="a residual",
            )
        if progress:
            progress(len(rows))
    return [tokens[i] for i in range(len(chats))]


def capture_batches(
    chat_model: ChatModel,
    chats: Sequence[EncodedChat],
    layers: Sequence[int] | None,
    *,
    position: Position,
    reduce_for: Callable[[Sequence[int]], Reduce],
    max_batch_tokens: int = 1024,
    padding_side: PaddingSide = "right",
    hook_point: str = "resid_post",
) -> Iterator[tuple[list[int], list[int], list[Any]]]:
    """Runs the texts in batches of similar length, longest first; what every capture is built on.

    An intervention in force with a tensor for each row has them in the order of `chats`.

    Args:
        reduce_for: given the number of picked tokens in each text of a batch, returns what is called inside the trace, on the model's
            device, with those tokens (in the model's dtype, text after text); what that returns is all that is kept.

    Yields:
        The indices of the batch's texts, their numbers of tokens, and what was kept of each of `layers`.

    Raises:
        As `capture_with_norms`, before the first batch runs.
    """
    if not chats:
        raise DataError("no texts to capture; give at least one question with an answer")
    wanted = chat_model.check_layers(list(range(chat_model.n_layers)) if layers is None else list(layers))
    if not wanted:
        raise DataError("no layers to capture; give at least one, or None for all")
    picks = token_indices(position, chats)
    ascending = sorted(set(wanted))
    readers = _readers(chat_model, ascending, hook_point)
    traced: Any = nnsight.NNsight(chat_model.body)
    for rows in length_batches([len(chat) for chat in chats], max_batch_tokens):
        batch = pad([chats[i].input_ids for i in rows], chat_model.tokenizer.pad_token_id, padding_side)
        chosen = [picks[i] for i in rows]
        counts = [len(indices) for indices in chosen]
        with batch_rows(chat_model, rows, len(chats), noun="texts"):
            found = _trace(chat_model, traced, batch, picks=chosen, readers=readers, reduce=reduce_for(counts))
        by_layer = dict(zip(ascending, found, strict=True))
        yield rows, counts, [by_layer[layer] for layer in wanted]


def mean_and_norm(counts: Sequence[int]) -> Reduce:
    """Reduces tokens to each text's mean vector `[n_texts, d_model]` and mean norm `[n_texts]`, in float32 or better."""
    n = torch.tensor(counts)
    owner = torch.repeat_interleave(n)
    weights = torch.zeros(len(counts), len(owner), dtype=torch.float64)
    weights[owner, torch.arange(len(owner))] = 1 / n[owner].double()

    def reduce(picked: Float[Tensor, "n_picked d_model"]) -> tuple[Tensor, Tensor]:
        nonlocal weights
        tokens = picked.to(torch.promote_types(picked.dtype, torch.float32))
        weights = weights.to(tokens)  # stays there for the next layer
        return weights @ tokens, weights @ torch.linalg.vector_norm(tokens, dim=-1)

    return reduce


def keep_tokens(picked: Float[Tensor, "n_picked d_model"]) -> Float[Tensor, "n_picked d_model"]:
    """Reduces nothing: the tokens themselves."""
    return picked


@dataclass(frozen=True)
class _SiteReader:
    """Reads one site of one layer within a trace."""

    layer: int
    site: Site
    module: torch.nn.Module

    def __call__(self, blocks: Any) -> Float[Tensor, "batch position d_model"]:
        envoy = getattr(blocks[self.layer], self.site.path) if self.site.path else blocks[self.layer]
        if self.site.end == "input":
            return envoy.input
        output = envoy.output
        value = output[0] if isinstance(output, tuple) else output
        for hook in self.module._forward_hooks.values():
            value = hook.edit(value) if isinstance(hook, OutputEdit) else value
        return value


def _readers(chat_model: ChatModel, layers: Sequence[int], hook_point: str) -> list[_SiteReader]:
    found = []
    for layer in layers:
        block = chat_model.layers[layer]
        site = hook_site(block, hook_point)
        found.append(_SiteReader(layer, site, block.get_submodule(site.path)))
    if hook_point not in ("resid_pre", "resid_post"):
        check_identities(chat_model)
    return found


def _trace(
    chat_model: ChatModel,
    traced: Any,
    batch: Batch,
    *,
    picks: Sequence[Sequence[int]],
    readers: Sequence[_SiteReader],
    reduce: Reduce,
) -> list[Any]:
    """The result of `reduce` for each reader; the pass ends where the last one reads."""
    inputs = batch.model_inputs(chat_model.device)
    blocks = getattr(traced, chat_model.layers_name)
    width = batch.input_ids.shape[1]
    flat = [i * width + batch.offset[i] + index for i, indices in enumerate(picks) for index in indices]
    picked = torch.tensor(flat, device=chat_model.device)
    with torch.no_grad():
        with traced.trace(**inputs, use_cache=False) as tracer:
            collected = nnsight.save([])
            for reader in readers:
                value = reader(blocks)
                # A model spread over devices leaves each layer's residual on its own.
                collected.append(reduce(value.flatten(0, 1).index_select(0, picked.to(value.device))))
            tracer.stop()
    return list(collected)
