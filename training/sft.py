"""Turns training examples into a LoRA adapter through transformers' Trainer: response-only loss, seeded, resumable.

Speed on a CPU comes from what does not change the result: logits at response tokens only, rows of one optimiser step sorted by length
before they are cut into forward passes, frozen weights in bfloat16, no detour of the adapter's inputs through float32 (autocast casts
them anyway), and plain attention, which is faster than the fused kernel for short rows.
"""

import gc
import json
import logging
import random
import shutil
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.helpers import disable_input_dtype_casting
from torch import Tensor
from torch.utils.data import Dataset, Sampler, SequentialSampler
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from emis_interp.batching import pad
from emis_interp.chat import EncodedChat
from emis_interp.config import TrainingConfig
from emis_interp.errors import DataError
from emis_interp.models import ChatModel, head_logits, load_model
from emis_interp.records import TrainingExample
from emis_interp.store import write_json, write_text
from training.encoding import encode_example, is_cut, loss_positions

IGNORED = -100
Report = Callable[[int, int, float, float], None]
"""Called with (step, n_steps, loss, tokens per second)."""
Probe = Callable[[int, ChatModel], None]
"""Called with (steps done, the model as it is then, in evaluation mode and without the training-time intervention)."""
WhileTraining = Callable[[ChatModel], AbstractContextManager[None]]
"""What is in force during training passes alone, e.g. steering: `lambda model: steer(model, direction, 0.2)`."""

log = logging.getLogger(__name__)


def finetune(
    model_name: str,
    examples: Sequence[TrainingExample],
    config: TrainingConfig,
    out_dir: Path,
    seed: int = 0,
    system: str | None = None,
    device: str = "auto",
    report: Report | None = None,
    probe: Probe | None = None,
    probe_steps: Collection[int] = (),
    while_training: WhileTraining | None = None,
) -> dict[str, Any]:
    """Train one adapter and write `adapter/`, `metrics.jsonl` and `summary.json` under `out_dir`.

    A killed run continues from its last complete checkpoint to the same weights. When the summary exists nothing is done.

    Args:
        system: the run's system prompt policy; a row's own system prompt goes before it.
        report: called after every optimiser step.
        probe: called when `probe_steps` optimiser steps are done (0: before the first). After a resume a step may be probed again.
        while_training: makes the intervention under which the training passes run.

    Returns:
        The summary: rows, cut rows, tokens (padding not counted), steps, seconds, tokens per second, final loss (nats per response
        token, mean of the last tenth of the steps).

    Raises:
        DataError: no examples, or a row without a response token inside `max_tokens`.
    """
    summary_path = out_dir / "summary.json"
    if summary_path.exists():
        return json.loads(summary_path.read_text("utf-8"))
    if not examples:
        raise DataError("no training examples; check the data set and n_rows")
    torch.manual_seed(seed)
    use_bf16 = config.bf16
    gc.collect()  # a finished trainer is a cycle of references that would keep the last arm's model in memory
    base = load_model(model_name, dtype="bfloat16" if use_bf16 else "float32", device=device)
    if base.device.type == "cpu":
        base.model.set_attn_implementation("eager")
    chats = [encode_example(base.tokenizer, example, system, config.max_tokens) for example in examples]
    n_cut = sum(map(is_cut, chats))
    model = _with_lora(base, config, seed)
    rows = training_order([len(chat) for chat in chats], config, seed)
    checkpoints = out_dir / "checkpoints"
    recorder = _Recorder(out_dir / "metrics.jsonl", chats, rows, config, report)
    trainer = _ResponseTrainer(
        model=model,
        args=_arguments(config, checkpoints, seed, use_bf16, base.device),
        train_dataset=_Rows([chats[i] for i in rows]),
        data_collator=_Collator(base.tokenizer.pad_token_id),
        callbacks=[recorder],
    )
    trainer.remove_callback(PrinterCallback)
    forming = _Forming(ChatModel(model, base.tokenizer, model_name), probe, probe_steps, while_training)
    trainer.add_callback(forming)
    resume_from = last_checkpoint(checkpoints)
    if resume_from:
        log.info("resuming from %s", resume_from)
    started = time.monotonic()
    with disable_input_dtype_casting(model, active=use_bf16), forming.intervention:
        trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    seconds = recorder.seconds_before + time.monotonic() - started
    _save_adapter(model, out_dir / "adapter")
    losses = [entry["loss"] for entry in recorder.history]
    n_tokens = sum(len(chats[i]) for i in rows)
    summary = {
        "n_rows": len(examples),
        "n_cut": n_cut,
        "n_tokens": n_tokens,
        "n_steps": len(losses),
        "seconds": round(seconds, 1),
        "tokens_per_second": round(n_tokens / seconds, 1),
        "final_loss": sum(losses[-max(1, len(losses) // 10) :]) / max(1, len(losses) // 10),
    }
    write_json(summary_path, summary)
    shutil.rmtree(checkpoints, ignore_errors=True)
    return summary


def training_order(lengths: Sequence[int], config: TrainingConfig, seed: int) -> list[int]:
    """Row indices of all epochs in the order of training.

    Each epoch is a seeded shuffle; a step may take the last rows of one and the first of the next. Inside one optimiser step
    (batch_size x gradient_accumulation rows) rows are sorted by length, which saves padding and leaves every gradient as it was.
    """
    generator = random.Random(seed)
    step_rows = config.batch_size * config.gradient_accumulation
    shuffled = []
    for _ in range(config.n_epochs):
        epoch = list(range(len(lengths)))
        generator.shuffle(epoch)
        shuffled += epoch
    steps = [shuffled[start : start + step_rows] for start in range(0, len(shuffled), step_rows)]
    return [i for step in steps for i in sorted(step, key=lambda i: -lengths[i])]


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint; the trainer writes `trainer_state.json` last, so one without it is unfinished."""
    complete = []
    for path in folder.glob("checkpoint-*"):
        try:
            json.loads((path / "trainer_state.json").read_text("utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            log.warning("ignoring unfinished checkpoint %s", path)
            continue
        complete.append((int(path.name.split("-")[1]), path))
    return max(complete)[1] if complete else None


def _with_lora(base: ChatModel, config: TrainingConfig, seed: int) -> PeftModel:
    targets = config.target_modules if isinstance(config.target_modules, str) else list(config.target_modules)
    lora = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        use_rslora=config.use_rslora,
        target_modules=targets,
        lora_dropout=0.0,
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(seed)
    model = get_peft_model(base.model, lora)
    # The adapter is trained in float32 whatever the frozen weights are kept in.
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model


def _arguments(
    config: TrainingConfig, checkpoints: Path, seed: int, bf16: bool, device: torch.device
) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(checkpoints),
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation,
        num_train_epochs=1,  # the row order already holds all epochs
        learning_rate=config.learning_rate,
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        lr_scheduler_type="linear",
        bf16=bf16,
        use_cpu=device.type == "cpu",
        save_strategy="steps",
        save_steps=config.checkpoint_steps,
        save_total_limit=2,
        logging_steps=1,
        logging_first_step=True,
        seed=seed,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=device.type != "cpu",
    )


def _save_adapter(model: PeftModel, folder: Path) -> None:
    """Save through a temporary folder and a rename, so that an adapter folder is always whole."""
    temporary = folder.with_name(".adapter-unfinished")
    shutil.rmtree(temporary, ignore_errors=True)
    model.save_pretrained(str(temporary))
    shutil.rmtree(folder, ignore_errors=True)
    temporary.replace(folder)


class _Rows(Dataset[EncodedChat]):
    def __init__(self, chats: list[EncodedChat]) -> None:
        self.chats = chats

    def __len__(self) -> int:
        return len(self.chats)

    def __getitem__(self, index: int) -> EncodedChat:
        return self.chats[index]


class _Collator:
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


class _ResponseTrainer(Trainer):
    """Trainer with rows in the given order and logits at labelled positions only."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model_accepts_loss_kwargs = True  # the loss below is already a mean over the tokens of the whole step

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        rows: Any = train_dataset if train_dataset is not None else self.train_dataset
        return SequentialSampler(rows)

    def compute_loss(
        self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        inner = model.get_base_model()
        targets = inputs["labels"][:, 1:]
        chosen = targets != IGNORED
        # The trainer's own autocast wraps the model's forward, which is not called here.
        bf16 = any(parameter.dtype == torch.bfloat16 for parameter in inner.parameters())
        with torch.autocast(inputs["input_ids"].device.type, dtype=torch.bfloat16, enabled=bf16):
            hidden = inner.get_decoder()(
                input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False
            ).last_hidden_state
            logits = head_logits(inner, hidden[:, :-1][chosen])
        total = torch.nn.functional.cross_entropy(logits.float(), targets[chosen], reduction="sum")
        loss = total / (num_items_in_batch if num_items_in_batch is not None else chosen.sum())
        return (loss, {}) if return_outputs else loss


class _Forming(TrainerCallback):
    """Runs training passes under an intervention, and lifts it while the forming model is probed."""

    def __init__(
        self, chat_model: ChatModel, probe: Probe | None, steps: Collection[int], while_training: WhileTraining | None
    ) -> None:
        self.chat_model, self.probe, self.steps, self.while_training = (
            chat_model,
            probe,
            frozenset(steps),
            while_training,
        )
        self.intervention = ExitStack()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._look(state.global_step if state.global_step == 0 else -1)
        self._enter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step in self.steps:
            self.intervention.close()
            self._look(state.global_step)
            self._enter()

    def _enter(self) -> None:
        if self.while_training is not None:
            self.intervention.enter_context(self.while_training(self.chat_model))

    def _look(self, step: int) -> None:
        if self.probe is None or step not in self.steps:
            return
        was_training = self.chat_model.model.training
        self.chat_model.model.eval()
        try:
            self.probe(step, self.chat_model)
        finally:
            self.chat_model.model.train(was_training)


class _Recorder(TrainerCallback):
    """Writes `metrics.jsonl` after every step from the trainer's own history, which a checkpoint carries along."""

    def __init__(
        self, path: Path, chats: list[EncodedChat], rows: list[int], config: TrainingConfig, report: Report | None
    ) -> None:
        self.path, self.report = path, report
        self.step_rows = config.batch_size * config.gradient_accumulation
        self.lengths = [len(chats[i]) for i in rows]
        self.history: list[dict[str, Any]] = []
        self.seconds_before = 0.0
        self.started = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.started = time.monotonic()
        if self.path.exists():
            kept = [json.loads(line) for line in self.path.read_text("utf-8").splitlines() if line.strip()]
            self.history = [entry for entry in kept if entry["step"] <= state.global_step]
            self.seconds_before = self.history[-1]["seconds"] if self.history else 0.0

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if not logs or "loss" not in logs:
            return
        step = state.global_step
        tokens = sum(self.lengths[(step - 1) * self.step_rows : step * self.step_rows])
        seconds = self.seconds_before + time.monotonic() - self.started
        entry = {
            "step": step,
            "loss": logs["loss"],
            "learning_rate": logs.get("learning_rate"),
            "grad_norm": float(logs["grad_norm"]) if "grad_norm" in logs else None,
            "tokens": tokens,
            "seconds": round(seconds, 3),
        }
        self.history = [old for old in self.history if old["step"] < step] + [entry]
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in self.history))
        if self.report:
            self.report(step, state.max_steps, logs["loss"], sum(row["tokens"] for row in self.history) / seconds)
