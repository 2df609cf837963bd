"""Turns two models that read the same texts into what moves when activations of one are put into the other, exactly and by attribution.

A cell is a layer, a hook point and a group of positions. The giver's values replace the reader's at the cell's tokens, and the reader goes
on from there. Attribution patching (Nanda 2023; Syed et al. 2023) estimates all cells from one backward pass: the gradient of the answer's
log-probability in the reader, times giver minus reader, summed over the cell's tokens. It is the first order of the exact patch.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from emis_interp.models.chat import EncodedChat
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.finite import check_rows
from emis_interp.models.head import head_logits
from emis_interp.passes.batching import Batch, length_batches, pad
from emis_interp.passes.capture import OutputEdit, Progress
from emis_interp.passes.edits import before
from emis_interp.passes.hook_points import check_identities, hook_site
from emis_interp.passes.low_rank import adding

Place = tuple[int, str]
"""A layer and a hook point."""


@dataclass(frozen=True)
class PatchCell:
    """What is replaced: a hook point of a layer at a group of positions (`settings.POSITION_GROUPS`)."""

    layer: int
    hook_point: str
    positions: str

    @property
    def place(self) -> Place:
        return self.layer, self.hook_point


@dataclass(frozen=True)
class Patched:
    """Mean log-probability per answer token of each text, nats.

    Attributes:
        reader, giver: of the two models as they are.
        exact: of the reader under each cell; None where nothing was patched.
        estimated: first-order change of the reader under each cell.
    """

    cells: list[PatchCell]
    reader: Float[np.ndarray, "n_texts"]
    giver: Float[np.ndarray, "n_texts"]
    exact: Float[np.ndarray, "n_cells n_texts"] | None
    estimated: Float[np.ndarray, "n_cells n_texts"]


def patched(
    chat_model: ChatModel,
    chats: Sequence[EncodedChat],
    cells: Sequence[PatchCell],
    *,
    reader: Sequence[Any],
    giver: Sequence[Any],
    exactly: bool = True,
    max_batch_tokens: int = 1024,
    progress: Progress | None = None,
) -> Patched:
    """Every cell on every text.

    Args:
        chat_model: the base model. reader, giver: the updates (`lora_updates`) that make each of the two models of it, none for base.
        progress: called with the number of texts just finished in all cells.

    Raises:
        ModelError: a layer or hook point that the model does not have; a log-probability or an estimate that is not finite, with its text.
    """
    chat_model.check_layers([cell.layer for cell in cells])
    places = list(dict.fromkeys(cell.place for cell in cells))
    if any(point not in ("resid_pre", "resid_post") for _, point in places):
        check_identities(chat_model)
    values = {name: np.empty(len(chats)) for name in ("reader", "giver")}
    exact, estimated = np.empty((len(cells), len(chats))), np.empty((len(cells), len(chats)))
    for rows in length_batches([len(chat) for chat in chats], max_batch_tokens):
        own = [chats[i] for i in rows]
        batch = pad([chat.input_ids for chat in own], chat_model.tokenizer.pad_token_id)
        with adding(chat_model, giver), torch.no_grad(), _read(chat_model, places) as given:
            values["giver"][rows] = _logprobs(chat_model, batch, own).cpu().numpy()
            _check_finite(chat_model, values["giver"][rows], own, rows=rows, what="the giver's log-probability")
        with adding(chat_model, reader):
            plain, gradients, read = _gradients(chat_model, batch, own, places=places)
            values["reader"][rows] = plain
            _check_finite(chat_model, plain, own, rows=rows, what="the reader's log-probability")
            for i, cell in enumerate(cells):
                mask = _mask(batch, own, cell.positions).to(chat_model.device)
                change = (gradients[cell.place] * (given[cell.place] - read[cell.place])).sum(-1)
                estimated[i, rows] = (change * mask).sum(-1).double().cpu().numpy()
                _check_finite(
                    chat_model, estimated[i, rows], own, rows=rows, what=f"the estimated change by {_words(cell)}"
                )
                if exactly:
                    with torch.no_grad(), _replaced(chat_model, cell.place, given[cell.place], mask=mask):
                        exact[i, rows] = _logprobs(chat_model, batch, own).cpu().numpy()
                    _check_finite(
                        chat_model, exact[i, rows], own, rows=rows, what=f"the log-probability under {_words(cell)}"
                    )
        if progress:
            progress(len(rows))
    return Patched(list(cells), values["reader"], values["giver"], exact if exactly else None, estimated)


def _words(cell: PatchCell) -> str:
    return f"the patch of layer {cell.layer}, {cell.hook_point}, {cell.positions}"


def _check_finite(
    chat_model: ChatModel, values: np.ndarray, chats: Sequence[EncodedChat], *, rows: Sequence[int], what: str
) -> None:
    check_rows(chat_model, values, lambda i: chats[i].input_ids, rows=rows, what=what)


def _logprobs(chat_model: ChatModel, batch: Batch, chats: Sequence[EncodedChat]) -> Float[Tensor, "batch"]:
    """Mean log-probability per answer token of each row."""
    states = chat_model.body(**batch.model_inputs(chat_model.device), use_cache=False).last_hidden_state
    found = []
    for row, chat in enumerate(chats):
        logits = head_logits(chat_model.model, states[row, chat.response_start - 1 : chat.response_end - 1])
        targets = torch.tensor(chat.input_ids[chat.response_start : chat.response_end], device=logits.device)
        exact = logits.to(torch.promote_types(logits.dtype, torch.float32))
        found.append(-torch.nn.functional.cross_entropy(exact, targets))
    return torch.stack(found)


def _gradients(
    chat_model: ChatModel, batch: Batch, chats: Sequence[EncodedChat], *, places: Sequence[Place]
) -> tuple[np.ndarray, dict[Place, Tensor], dict[Place, Tensor]]:
    """Log-probabilities, their gradients at every place (row by row, since a row depends on itself alone), and the values there."""

    def begin(residual: Tensor) -> Tensor:
        return residual.detach().requires_grad_(True)

    handle = chat_model.layers[0].register_forward_pre_hook(before(begin), with_kwargs=True)
    try:
        with torch.enable_grad(), _read(chat_model, places) as read:
            found = _logprobs(chat_model, batch, chats)
            gradients = torch.autograd.grad(found.sum(), [read[place] for place in places])
    finally:
        handle.remove()
    values = {place: value.detach() for place, value in read.items()}
    return found.detach().double().cpu().numpy(), dict(zip(places, gradients, strict=True)), values


def _mask(batch: Batch, chats: Sequence[EncodedChat], group: str) -> Bool[Tensor, "batch position"]:
    """The tokens of a group: `prompt` before the last prompt token, `last_prompt`, `answer` (its tokens), `all` of these."""
    mask = torch.zeros(batch.input_ids.shape, dtype=torch.bool)
    for row, (chat, offset) in enumerate(zip(chats, batch.offset, strict=True)):
        start, end = chat.response_start, chat.response_end
        spans: Mapping[str, tuple[int, int]] = {
            "prompt": (0, start - 1),
            "last_prompt": (start - 1, start),
            "answer": (start, end),
            "all": (0, end),
        }
        begin, stop = spans[group]
        mask[row, offset + begin : offset + stop] = True
    return mask


@contextlib.contextmanager
def _read(chat_model: ChatModel, places: Sequence[Place]) -> Iterator[dict[Place, Tensor]]:
    """What leaves (or enters) each place while the block runs."""
    found: dict[Place, Tensor] = {}
    handles = []
    try:
        for place in places:
            module, is_input = _module(chat_model, place)

            def keep(value: Tensor, place: Place = place) -> Tensor:
                found[place] = value
                return value

            hook = before(keep) if is_input else OutputEdit(keep)
            handles.append(_register(module, hook, is_input))
        yield found
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def _replaced(
    chat_model: ChatModel,
    place: Place,
    given: Float[Tensor, "batch position d_model"],
    *,
    mask: Bool[Tensor, "batch position"],
) -> Iterator[None]:
    module, is_input = _module(chat_model, place)

    def edit(value: Tensor) -> Tensor:
        return torch.where(mask[..., None], given.to(value), value)

    handle = _register(module, before(edit) if is_input else OutputEdit(edit), is_input)
    try:
        yield
    finally:
        handle.remove()


def _module(chat_model: ChatModel, place: Place) -> tuple[torch.nn.Module, bool]:
    """The module of a place, and whether it is its input that is meant."""
    block = chat_model.layers[place[0]]
    site = hook_site(block, place[1])
    return block.get_submodule(site.path), site.end == "input"


def _register(module: torch.nn.Module, hook: Any, is_input: bool) -> Any:
    return module.register_forward_pre_hook(hook, with_kwargs=True) if is_input else module.register_forward_hook(hook)
