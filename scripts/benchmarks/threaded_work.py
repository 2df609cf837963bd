"""One measurement of `benchmark.py threads`: reads, writes or trains with the embedded model for some seconds, in this process."""

import sys
import time
from collections.abc import Callable

import torch

from emis_interp.config.run_config import TrainingConfig
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.embedded import EMBEDDED_NAME
from emis_interp.models.loading import load_model
from emis_interp.passes.generate import generate
from emis_interp.process import reuse_memory
from training.finetuning.trainer import loss_in_parts
from training.finetuning.weights import trainable


def main(work: str, seconds: float) -> None:
    """Writes tokens per second on standard output, without the first repetition."""
    reuse_memory()
    chat_model = load_model(EMBEDDED_NAME, dtype="auto", device="cpu")
    once = {"read": reading, "write": writing, "train": training}[work](chat_model)
    once()
    began, n = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        n += once()
    sys.stdout.write(f"{n / (time.monotonic() - began)}\n")


def reading(chat_model: ChatModel) -> Callable[[], int]:
    """Forward passes of eight rows of 96 tokens."""
    ids = random_ids(8, 96)

    def once() -> int:
        with torch.inference_mode():
            chat_model.body(input_ids=ids, use_cache=False)
        return ids.numel()

    return once


def writing(chat_model: ChatModel) -> Callable[[], int]:
    """A dozen steps of the token loop for 16 rows."""
    prompt, rows = random_ids(1, 24)[0].tolist(), 16
    return lambda: sum(len(one.tokens) for one in generate(chat_model, [prompt] * rows, list(range(rows)), 12, 1.0))


def training(chat_model: ChatModel) -> Callable[[], int]:
    """A forward and a backward pass of a LoRA adapter for one row of 400 tokens, two fifths of them the answer."""
    chat_model.model.set_attn_implementation("eager")
    model = trainable(chat_model, TrainingConfig(), seed=0)
    ids = random_ids(1, 400)
    labels = torch.where(torch.arange(400) >= 240, ids, -100)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}

    def once() -> int:
        loss_in_parts(model, inputs).backward()
        return ids.numel()

    return once


def random_ids(*shape: int) -> torch.Tensor:
    return torch.randint(100, 1000, shape, generator=torch.Generator().manual_seed(0))
