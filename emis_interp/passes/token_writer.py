"""Turns texts into a folder of token-level activations (read by `token_store`) that any number of writers can make or continue.

The plan of the shards depends on the texts alone, so it does not matter how many writers there are, how often they are killed, and in
which order they write: the store comes out the same.
"""

import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from emis_interp.errors import DataError, ModelError, StageError, did_you_mean
from emis_interp.files.claim import claim
from emis_interp.files.store import card_path
from emis_interp.files.temporary import sweep
from emis_interp.files.tensors import save_tensors
from emis_interp.models.chat import EncodedChat
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.precision import DTYPES, torch_dtype
from emis_interp.passes.batch_rows import batch_rows
from emis_interp.passes.capture import OutputEdit, Progress, capture_batches, keep_tokens
from emis_interp.passes.hook_points import hook_site
from emis_interp.passes.positions import token_indices
from emis_interp.passes.token_store import card_hash, check_shard, shard_path

GIB = 1024**3
INDEX_BYTES = 8  # an int32 token id and an int32 position
SAME_WEIGHTS = (
    "model",
    "adapter",
    "quantisation",
)  # names, which may be spelt in several ways; `weights_sha256` tells models apart


@dataclass(frozen=True)
class TokenRequest:
    """What to keep of every text.

    Attributes:
        layers: 0-based decoder blocks.
        position: a key of `positions.POSITIONS`; `response_mean` keeps the answer's tokens, `all_tokens` all of them.
        dtype: of the stored numbers; None for the model's own.
        max_gib: refuse a larger store before anything runs.
        shard_mib: size at which a shard is closed; a writer holds one shard in memory.
        intervention: describes what edits the model, if anything does.
    """

    layers: tuple[int, ...]
    hook_point: str = "resid_post"
    position: str = "response_mean"
    dtype: str | None = None
    max_gib: float = 4.0
    shard_mib: float = 256.0
    max_batch_tokens: int = 1024
    intervention: str | None = None


def write_tokens(
    folder: Path,
    chat_model: ChatModel,
    chats: Sequence[EncodedChat],
    *,
    request: TokenRequest,
    worker: int = 0,
    n_workers: int = 1,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write the shards of one worker (number i where i mod n_workers = worker); shards that are there already are checked and kept.

    Args:
        progress: called with the number of texts just finished or found finished.

    Returns:
        The card of the store.

    Raises:
        DataError: no texts, a store larger than `max_gib`, a damaged shard, or a residual that is not finite (with the text).
        ModelError: a layer, hook point or dtype that is not there.
        StageError: the folder holds a store of other inputs, or the model is edited and `intervention` does not say how.
    """
    if not 0 <= worker < n_workers:
        raise StageError(f"worker {worker} of {n_workers} asked for; workers are numbered 0 to {n_workers - 1}")
    planned = plan(chat_model, chats, request)
    sweep(folder, "card.json")
    advice = "choose another --out, or delete the folder"
    card = claim(folder / "card.json", planned, holds="a store", advice=advice, free=SAME_WEIGHTS, alone=False)
    for number, (first, last) in enumerate(card["shards"]):
        if number % n_workers != worker:
            continue
        path = shard_path(folder, number)
        sweep(folder, path.name)
        if card_path(path).exists():
            check_shard(path, card)
        else:
            with batch_rows(chat_model, range(first, last), len(chats), noun="texts"):
                content, texts = _shard(chat_model, chats[first:last], first, request=request, card=card)
            save_tensors(path, content, {"store": card_hash(card), "texts": texts})
        if progress:
            progress(last - first)
    return card


def plan(chat_model: ChatModel, chats: Sequence[EncodedChat], request: TokenRequest) -> dict[str, Any]:
    """The card of the store that `write_tokens` would write, with `gib`, its size.

    Raises:
        As `write_tokens`, as far as it can be known without running the model.
    """
    if not chats:
        raise DataError("no texts to capture; give at least one question with an answer")
    layers = chat_model.check_layers(sorted(set(request.layers)))
    if not layers:
        raise DataError("no layers to store; give at least one")
    for layer in layers:
        hook_site(chat_model.layers[layer], request.hook_point)
    own = chat_model.dtype
    dtype = request.dtype or own
    if dtype not in DTYPES:
        raise ModelError(f"unknown dtype `{dtype}`{did_you_mean(dtype, DTYPES)}")
    counts = [len(indices) for indices in token_indices(request.position, chats)]
    itemsize = torch_dtype(dtype).itemsize
    token_bytes = len(layers) * chat_model.d_model * itemsize + INDEX_BYTES
    gib = sum(counts) * token_bytes / GIB
    if gib > request.max_gib:
        raise DataError(
            f"{gib:.3g} GiB needed ({sum(counts)} tokens x {len(layers)} layers x {chat_model.d_model} x {itemsize} bytes), "
            f"{request.max_gib:g} GiB allowed; raise --max-gib, or take fewer layers, fewer texts or a smaller dtype"
        )
    _check_edits(chat_model, request.intervention)
    shards, size = [[0, 0]], 0.0
    for i, count in enumerate(counts):
        if size and size + count * token_bytes > request.shard_mib * 1024**2:
            shards.append([i, i])
            size = 0.0
        shards[-1][1] = i + 1
        size += count * token_bytes
    return {
        "model": chat_model.name,
        "quantisation": chat_model.quantisation,
        "adapter": str(chat_model.adapter) if chat_model.adapter else None,
        "intervention": request.intervention,
        "weights_sha256": weights_hash(chat_model),
        "compute_dtype": own,
        "dtype": dtype,
        "hook_point": request.hook_point,
        "position": request.position,
        "layers": layers,
        "d_model": chat_model.d_model,
        "max_batch_tokens": request.max_batch_tokens,
        "texts_sha256": texts_hash(chats),
        "n_texts": len(chats),
        "n_tokens": sum(counts),
        "gib": gib,
        "shards": shards,
    }


def texts_hash(chats: Sequence[EncodedChat]) -> str:
    """SHA-256 of all token ids and answer spans."""
    digest = hashlib.sha256()
    for chat in chats:
        digest.update(json.dumps([list(chat.input_ids), chat.response_start, chat.response_end]).encode())
    return digest.hexdigest()


def weights_hash(chat_model: ChatModel) -> str:
    """SHA-256 of names, shapes and 64 evenly spaced values of every parameter: tells retrained weights from the old at little cost."""
    digest = hashlib.sha256()
    for name, parameter in sorted(chat_model.model.named_parameters()):
        if parameter.is_meta:
            raise ModelError(
                f"{chat_model.name}: its weights are offloaded, so they cannot be told from others; load them onto devices"
            )
        values = parameter.detach().flatten()
        spread = values[evenly_spaced(len(values)).to(values.device)]
        digest.update(f"{name} {list(parameter.shape)} {parameter.dtype}".encode())
        digest.update(spread.double().cpu().numpy().tobytes())
    return digest.hexdigest()


def evenly_spaced(n: int, n_chosen: int = 64) -> Int[Tensor, " n_chosen"]:
    """Indices from 0 to n - 1, the first and the last among them; in integers, since float32 rounds large indices up."""
    return torch.arange(min(n, n_chosen)) * (n - 1) // max(1, min(n, n_chosen) - 1)


def _check_edits(chat_model: ChatModel, intervention: str | None) -> None:
    edited = any(
        isinstance(hook, OutputEdit) for module in chat_model.body.modules() for hook in module._forward_hooks.values()
    )
    if edited and intervention is None:
        raise StageError(
            "the model is being edited by an intervention; say which in `intervention`, so that the card tells it apart"
        )


def _shard(
    chat_model: ChatModel, chats: Sequence[EncodedChat], first: int, *, request: TokenRequest, card: dict[str, Any]
) -> tuple[dict[str, Tensor], list[list[int]]]:
    """Tensors of one shard, and [text, first row, number of rows] for each of its texts; `first` is the number of its first text."""
    picks = token_indices(request.position, chats)
    starts = [0, *itertools.accumulate(len(indices) for indices in picks)]
    layers, dtype = card["layers"], torch_dtype(card["dtype"])
    kept = {f"layer_{layer}": torch.empty(starts[-1], card["d_model"], dtype=dtype) for layer in layers}
    runs = capture_batches(
        chat_model,
        chats,
        layers,
        position=request.position,
        reduce_for=lambda _: keep_tokens,
        max_batch_tokens=request.max_batch_tokens,
        hook_point=request.hook_point,
    )
    for rows, counts, found in runs:
        for name, picked in zip(kept, found, strict=True):
            for i, tokens in zip(rows, picked.to("cpu", dtype).split(counts), strict=True):
                if not tokens.isfinite().all():
                    raise DataError(
                        f"text {first + i}, {name}: a residual is not finite in {card['dtype']}; store bfloat16 or float32"
                    )
                kept[name][starts[i] : starts[i + 1]] = tokens
    pairs = list(zip(chats, picks, strict=True))
    ids = torch.tensor([chat.input_ids[k] for chat, indices in pairs for k in indices], dtype=torch.int32)
    positions = torch.tensor([k for indices in picks for k in indices], dtype=torch.int32)
    texts = [[first + i, starts[i], len(indices)] for i, indices in enumerate(picks)]
    return {**kept, "token_ids": ids, "positions": positions}, texts
