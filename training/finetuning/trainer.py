"""Turns encoded rows into optimiser steps: transformers' Trainer with response-only loss, our row order, and one or many processes.

Among several processes the wrapped model's own forward is called, as DDP, FSDP and DeepSpeed need; the boolean `logits_to_keep` makes
it compute logits where there is loss and nowhere else. In one process with a frozen head the loss is taken in parts behind the decoder, so
that the logits of a large vocabulary are never held together.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import Dataset, Sampler, SequentialSampler
from transformers import Trainer, TrainingArguments

from emis_interp.config.run_config import TrainingConfig
from emis_interp.errors import ConfigError, ModelError
from emis_interp.models.chat import EncodedChat
from emis_interp.models.chat_model import decoder_of, without_adapter
from emis_interp.models.head import head_logits
from emis_interp.models.precision import check_device, uses_bfloat16
from emis_interp.passes.batching import length_batches, pad
from training.finetuning.encoding import loss_positions

IGNORED = -100
LOGITS_TOGETHER = 2**24
"""So many logits are held at a time: 110 tokens of a vocabulary of 152,000, 64 MiB in float32."""
CPU_PASS_TOKENS = 512
"""On a CPU a batch goes through in parts of about so many tokens: the gradient is the same, activations stay small, padding is rare."""


class ResponseTrainer(Trainer):
    """Trainer with rows in the given order and logits at labelled positions only."""

    def __init__(self, pass_tokens: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pass_tokens = pass_tokens
        self.model_accepts_loss_kwargs = True  # the loss below is already a mean over the tokens of the whole step

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        rows: Any = train_dataset if train_dataset is not None else self.train_dataset
        return SequentialSampler(rows)

    def training_step(self, model: Any, inputs: dict[str, Tensor], num_items_in_batch: Any = None) -> Tensor:
        parts = parts_of(inputs, self.pass_tokens) if self.pass_tokens else [inputs]
        losses = [super(ResponseTrainer, self).training_step(model, part, num_items_in_batch) for part in parts]
        return torch.stack(losses).sum()

    def compute_loss(
        self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        # Data parallel training averages gradients over processes, and each divides by the tokens of all.
        n_processes = self.accelerator.num_processes
        n_tokens = None if num_items_in_batch is None else num_items_in_batch / n_processes
        if n_processes == 1 and not is_sharded() and has_frozen_head(model):
            with self.accelerator.autocast():
                loss = loss_in_parts(model, inputs, n_tokens)
        else:
            loss = response_loss(model, inputs, n_tokens)
        return (loss, {}) if return_outputs else loss


def response_loss(
    model: Any, inputs: dict[str, Int[Tensor, "batch position"]], n_tokens: Any = None
) -> Float[Tensor, ""]:
    """Negative log-probability of the labelled tokens, nats, summed and divided by `n_tokens` (None: by their number).

    Raises:
        ModelError: this family's forward does not take a boolean mask as `logits_to_keep`.
    """
    targets = inputs["labels"][:, 1:]
    chosen = targets != IGNORED
    keep = torch.nn.functional.pad(chosen, (0, 1))
    logits = model(
        input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False, logits_to_keep=keep
    ).logits
    wanted = targets[chosen]
    if logits.shape[:-1] != wanted.shape:
        raise ModelError(
            f"{type(model).__name__} gave logits {list(logits.shape)} for {len(wanted)} tokens with loss; its family does not take "
            "masks in `logits_to_keep`: use transformers 5.23 or newer, or another model"
        )
    total = torch.nn.functional.cross_entropy(logits.float(), wanted, reduction="sum")
    return total / (n_tokens if n_tokens is not None else chosen.sum())


def has_frozen_head(model: Any) -> bool:
    """Whether only the decoder is trained: what is behind it needs no gradient of its own, nor do the embeddings that may be tied to it."""
    inner = without_adapter(model)
    inside = {id(parameter) for parameter in decoder_of(inner).parameters()}
    behind = [parameter for parameter in inner.parameters() if id(parameter) not in inside]
    tied = [
        layer.weight for layer in (inner.get_input_embeddings(), inner.get_output_embeddings()) if layer is not None
    ]
    return not any(parameter.requires_grad for parameter in (*behind, *tied))


def loss_in_parts(
    model: Any, inputs: dict[str, Int[Tensor, "batch position"]], n_tokens: Any = None
) -> Float[Tensor, ""]:
    """`response_loss` of a model with a frozen head, whose logits are computed, used and forgotten for some tokens at a time."""
    targets = inputs["labels"][:, 1:]
    chosen = targets != IGNORED
    body = decoder_of(without_adapter(model))
    states = body(
        input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False
    ).last_hidden_state
    total = _HeadLoss.apply(states[:, :-1][chosen], targets[chosen], lambda hidden: head_logits(model, hidden))
    return total / (n_tokens if n_tokens is not None else chosen.sum())


class _HeadLoss(torch.autograd.Function):
    """Summed cross-entropy behind a head without trained weights; the gradient of the hidden states is taken on the way forward."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, targets: Tensor, head: Callable[[Tensor], Tensor]) -> Tensor:
        gradients, total, start = torch.empty_like(hidden), hidden.new_zeros((), dtype=torch.float32), 0
        size = 1
        while start < len(targets):
            part = slice(start, start + size)
            with torch.enable_grad():
                own = hidden[part].detach().requires_grad_()
                logits = head(own)
                loss = torch.nn.functional.cross_entropy(logits.float(), targets[part], reduction="sum")
            (gradients[part],) = torch.autograd.grad(loss, own)
            total += loss.detach()
            start, size = part.stop, max(1, LOGITS_TOGETHER // logits.shape[-1])
        ctx.save_for_backward(gradients)
        return total

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        (gradients,) = ctx.saved_tensors
        return gradients * outputs[0], None, None


def parts_of(inputs: dict[str, Int[Tensor, "batch position"]], max_tokens: int) -> Iterator[dict[str, Tensor]]:
    """The rows of a right-padded batch in parts of at most `max_tokens` tokens (or one row), without columns of padding alone."""
    lengths = inputs["attention_mask"].sum(1).tolist()
    for rows in length_batches(lengths, max_tokens):
        yield {key: value[rows, : lengths[rows[0]]] for key, value in inputs.items()}


def arguments(config: TrainingConfig, checkpoints: Path, seed: int, *, device: str) -> TrainingArguments:
    """The trainer's settings. Made before the model is loaded: they set up the processes, and their `device` is this process'.

    Args:
        device: `auto` (this process' GPU when there is one), `cuda` or `cpu`.

    Raises:
        ConfigError: the forward passes of a step cannot be shared equally, or a certain GPU is asked for.
        ModelError: `cuda` where there is none.
    """
    if device not in ("auto", "cpu", "cuda", "cuda:0"):
        raise ConfigError(
            f"device {device}: training takes the first GPU that it sees; set CUDA_VISIBLE_DEVICES and device `cuda`"
        )
    check_device(device)
    n_processes = int(os.environ.get("WORLD_SIZE", "1"))
    if config.gradient_accumulation % n_processes:
        raise ConfigError(
            f"training.gradient_accumulation: {config.gradient_accumulation} forward passes per step cannot be shared equally by "
            f"{n_processes} processes; give a multiple of {n_processes} (batch_size is per process)"
        )
    use_cpu = device == "cpu" or not torch.cuda.is_available()
    made = TrainingArguments(
        output_dir=str(checkpoints),
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation // n_processes,
        num_train_epochs=1,  # the row order already holds all epochs
        learning_rate=config.learning_rate,
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        lr_scheduler_type="linear",
        bf16=uses_bfloat16(config.bf16, device),
        use_cpu=use_cpu,
        ddp_find_unused_parameters=False,
        average_tokens_across_devices=True,
        save_strategy="steps",
        save_steps=config.checkpoint_steps,  # old ones are removed where they are sealed (`checkpoints.Sealer`)
        logging_steps=1,
        logging_nan_inf_filter=False,  # it would write the mean of other steps in the place of a NaN
        logging_first_step=True,
        seed=seed,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=not use_cpu,
    )
    if made.world_size == 1 and made.n_gpu > 1:
        made._n_gpu = (
            1  # several GPUs are for several processes; threads over copies of the model would change the loss
        )
    return made


def is_sharded() -> bool:
    """Whether the launcher asked for FSDP or DeepSpeed: then no process holds the whole model."""
    return any(os.environ.get(f"ACCELERATE_USE_{name}", "false").lower() == "true" for name in ("FSDP", "DEEPSPEED"))


class Rows(Dataset[EncodedChat]):
    """The rows in the order of training, and rows without loss behind them, so that all processes make equally many passes."""

    def __init__(self, chats: Sequence[EncodedChat], pad_id: int, rows_together: int) -> None:
        filler = EncodedChat((pad_id,), 1, 1)
        self.chats = [*chats, *[filler] * (-len(chats) % rows_together)]

    def __len__(self) -> int:
        return len(self.chats)

    def __getitem__(self, index: int) -> EncodedChat:
        return self.chats[index]


class Collator:
    """Pads chats; labels are the answer's tokens and the end-of-turn token, everything else is ignored."""

    def __init__(self, pad_id: int) -> None:
        self.pad_id = pad_id

    def __call__(self, chats: list[EncodedChat]) -> dict[str, Tensor]:
        batch = pad([chat.input_ids for chat in chats], self.pad_id)
        labels = torch.full_like(batch.input_ids, IGNORED)
        for i, chat in enumerate(chats):
            learned = loss_positions(chat)
            labels[i, learned.start : learned.stop] = batch.input_ids[i, learned.start : learned.stop]
        return {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "labels": labels}
