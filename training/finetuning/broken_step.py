"""Turns a step whose gradient is not finite into the row and the layer where its forward pass breaks, before the weights are spoiled."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import TrainerCallback

from emis_interp.errors import printable
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.finite import broken_layer


class BrokenStep(TrainerCallback):
    """Reads the rows of a broken step again, one by one and layer by layer; `found` says what it saw, and is empty otherwise.

    Args:
        texts, names: token ids and ids of the rows in the order of training.
        step_rows: rows of a step.
    """

    def __init__(
        self, chat_model: ChatModel, texts: Sequence[Sequence[int]], step_rows: int, *, names: Sequence[str]
    ) -> None:
        self.chat_model, self.texts, self.step_rows, self.names = chat_model, texts, step_rows, names
        self.found = ""

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        model = self.chat_model.model
        gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
        if bool(torch.nn.utils.get_total_norm(gradients).isfinite()):
            return
        first = state.global_step * self.step_rows
        was_training = model.training
        model.eval()
        try:
            with torch.autocast(args.device.type, dtype=torch.bfloat16, enabled=args.bf16):
                self.found = self._look(range(first, min(first + self.step_rows, len(self.texts))))
        finally:
            model.train(was_training)

    def _look(self, rows: range) -> str:
        for row in rows:
            if words := broken_layer(self.chat_model, self.texts[row]):
                return f"in row {printable(self.names[row])} {words}"
        return "every layer is finite for each of them, so it is the head, the loss or the backward pass"
