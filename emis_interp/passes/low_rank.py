"""Turns updates of weights in factored form into what a model computes with them inside a `with` block; its weights stay as they are.

Every module adds (x A^T) B^T to its output, so that adapters, parts of them and sums of them can be compared on one base model without
loading, merging or forming a single weight matrix.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from emis_interp.errors import ModelError
from emis_interp.models.chat_model import ChatModel, without_adapter
from emis_interp.models.lora_updates import LoraUpdate


@contextlib.contextmanager
def adding(chat_model: ChatModel, updates: Sequence[LoraUpdate]) -> Iterator[None]:
    """Run the block with the updates added to the model's weights.

    Raises:
        ModelError: an update of a module that the model does not have, or that has another width there.
    """
    inner = without_adapter(chat_model.model)
    modules = dict(inner.named_modules())
    for update in updates:
        _check_place(chat_model.name, modules.get(update.path), update)
    handles = []
    try:
        for update in updates:
            module: Any = modules[update.path]
            handles.append(module.register_forward_hook(_adder(update, module)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def weight_norm(chat_model: ChatModel, path: str) -> float:
    """Frobenius norm of a module's own weights, which an update is set against.

    Raises:
        ModelError: no such module.
    """
    module: Any = dict(without_adapter(chat_model.model).named_modules()).get(path)
    if module is None or not isinstance(getattr(module, "weight", None), Tensor):
        raise ModelError(f"{chat_model.name} has no module {path}; give the base model that the adapter was trained on")
    return float(torch.linalg.vector_norm(module.weight.float()))


def _adder(update: LoraUpdate, module: Any) -> Callable[..., Tensor]:
    down, up = (matrix.to(module.weight) for matrix in (update.down, update.up))

    def hook(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + (inputs[0] @ down.T) @ up.T

    return hook


def _check_place(name: str, module: Any, update: LoraUpdate) -> None:
    if module is None or not isinstance(getattr(module, "weight", None), Tensor):
        raise ModelError(f"{name} has no module {update.path}; give the base model that the adapter was trained on")
    found, wanted = tuple(module.weight.shape), (update.up.shape[0], update.down.shape[1])
    if type(module).__name__ == "Conv1D":  # GPT-2 keeps [d_in, d_model]
        found = found[::-1]
    if found != wanted:
        raise ModelError(
            f"{update.path} is {list(wanted)} in the adapter, {list(found)} in {name}; give the base model that it was trained on"
        )
