"""Turns training examples into a finetuned model, adapter or whole: response-only loss, seeded, resumable, on one process or many.

Speed on a CPU comes from what does not change the result: logits at response tokens only, rows of one optimiser step sorted by length
before they are cut into forward passes, frozen weights in bfloat16, no detour of the adapter's inputs through float32 (autocast casts
them anyway), short forward passes, and plain attention, which is faster than the fused kernel for short rows.
"""

import logging
import random
import resource
import shutil
import sys
import time
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from peft.helpers import disable_input_dtype_casting
from transformers import PrinterCallback

from emis_interp.config.run_config import TrainingConfig
from emis_interp.errors import ConfigError, DataError
from emis_interp.files.hashes import hashes
from emis_interp.files.ledger import files_in
from emis_interp.files.store import write_json
from emis_interp.models.chat_formats import format_of
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.chat_template import template_of
from emis_interp.models.loading import load_model
from emis_interp.models.merging import generation_config
from emis_interp.process import release_memory
from emis_interp.records import TrainingExample
from training.finetuning.broken_step import BrokenStep
from training.finetuning.callbacks import Forming, Probe, Recorder, Report, WhileTraining
from training.finetuning.checkpoints import Sealer, last_checkpoint
from training.finetuning.encoding import encode_example, is_cut
from training.finetuning.kl_limit import limit_kl
from training.finetuning.summary import SUMMARY, read_summary
from training.finetuning.trainer import CPU_PASS_TOKENS, Collator, ResponseTrainer, Rows, arguments, is_sharded
from training.finetuning.weights import ARTIFACTS, n_trainable, save_artifact, trainable

log = logging.getLogger(__name__)


def finetune(
    model_name: str,
    examples: Sequence[TrainingExample],
    config: TrainingConfig,
    *,
    out_dir: Path,
    seed: int = 0,
    system: str | None = None,
    device: str = "auto",
    report: Report | None = None,
    probe: Probe | None = None,
    probe_steps: Collection[int] = (),
    while_training: WhileTraining | None = None,
    chat_format: str | None = None,
) -> dict[str, Any]:
    """Train one organism and write `adapter/` (a PEFT folder) or `model/` (an HF checkpoint), `metrics.jsonl` and `summary.json`.

    A killed run continues from its last complete checkpoint to the same weights. When the summary exists nothing is done. Started by
    `accelerate launch` or `torchrun`, the processes share every step and end with the weights of one process (to rounding); then
    `out_dir` must lie on a disk that all of them see, only the main process writes, reports and probes, and all return the summary.

    Args:
        system: the run's system prompt policy; a row's own system prompt goes before it.
        report: called after every optimiser step.
        probe: called when `probe_steps` optimiser steps are done (0: before the first). After a resume a step may be probed again.
        while_training: makes the intervention under which the training passes run.
        chat_format: plain format in which a pretrained model is trained (`emis_interp.models.chat_formats`); None: its own template. It is
            kept with what is trained: in the tokenizer beside the weights, and in the summary.

    Returns:
        The summary: method, artifact (folder name), chat format, how prompts are rendered (`ChatTemplate.card`), whether in bfloat16,
        trained weights, rows, cut rows, tokens (padding not counted), steps, seconds, tokens per second, final loss (nats per response
        token, mean of the last tenth of the steps; of the weights before `kl_limit` scaled them), peak memory of the process so far (GiB),
        and what `kl_limit` did (`KlLimited`).

    Raises:
        DataError: no examples, or a row without a response token inside `max_tokens`, longer than the model's context, or one that the
            chat template writes differently; or a damaged summary or `metrics.jsonl`.
        StageError: the folder holds a finished training whose weights were damaged or exchanged since, or a checkpoint with a pickle that
            could run code.
        ModelError: the loss or its gradient is no longer finite, with the step, its rows, the layer and a frozen weight that is not.
        ConfigError: settings that do not fit the model or the processes; probes or interventions under FSDP or DeepSpeed.
    """
    checkpoints = out_dir / "checkpoints"
    if (out_dir / SUMMARY).exists():
        shutil.rmtree(checkpoints, ignore_errors=True)  # of a process that was killed at its very end
        return read_summary(out_dir)
    if not examples:
        raise DataError("no training examples; check the data set and n_rows")
    if is_sharded() and (probe is not None or while_training is not None):
        raise ConfigError(
            "probes and interventions during training need the whole model in every process, which FSDP and DeepSpeed do not keep; "
            "launch without them (accelerate launch --multi_gpu), or train without probes"
        )
    if is_sharded() and config.kl_limit is not None:
        raise ConfigError(
            "training.kl_limit: scaling an adapter takes the whole model in every process, which FSDP and DeepSpeed do not keep"
        )
    torch.manual_seed(seed)
    args = arguments(config, checkpoints, seed, device=device)
    release_memory()  # a finished trainer is a cycle of references that would keep the last arm's model in memory
    base = load_model(
        model_name,
        dtype="bfloat16" if args.bf16 and config.method == "lora" else "float32",
        device="cpu" if is_sharded() else str(args.device),
        load_in_4bit=config.load_in_4bit,
        chat_format=chat_format,
    )
    if base.device.type == "cpu":
        base.model.set_attn_implementation("eager")
    chats = [encode_example(base.tokenizer, example, system, max_tokens=config.max_tokens) for example in examples]
    model = trainable(base, config, seed, deepspeed=args.deepspeed_plugin is not None)
    n_trained = n_trainable(model)
    rows = training_order([len(chat) for chat in chats], config, seed)
    whole, names = ChatModel(model, base.tokenizer, model_name), [examples[i].id for i in rows]
    step_rows = config.batch_size * config.gradient_accumulation
    broken = None if is_sharded() else BrokenStep(whole, [chats[i].input_ids for i in rows], step_rows, names=names)
    recorder = Recorder(
        out_dir / "metrics.jsonl",
        [len(chats[i]) for i in rows],
        step_rows,
        names=names,
        report=report,
        broken=broken,
    )
    pad_id = base.tokenizer.pad_token_id
    trainer = ResponseTrainer(
        pass_tokens=CPU_PASS_TOKENS if args.device.type == "cpu" and args.world_size == 1 else None,
        model=model,
        args=args,
        train_dataset=Rows([chats[i] for i in rows], pad_id, config.batch_size * args.world_size),
        data_collator=Collator(pad_id),
        callbacks=[recorder, Sealer(), *([broken] if broken else [])],
    )
    trainer.remove_callback(PrinterCallback)
    forming = Forming(whole, probe, probe_steps, while_training=while_training)
    trainer.add_callback(forming)
    resume_from = last_checkpoint(checkpoints, sharded=is_sharded())
    if resume_from:
        log.info("resuming from %s", resume_from)
    lean = config.method == "lora" and args.bf16
    started = time.monotonic()
    with disable_input_dtype_casting(model) if lean else nullcontext(), forming.intervention:
        trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    seconds = recorder.seconds_before + time.monotonic() - started
    limited = None
    if config.kl_limit is not None:
        limited = limit_kl(whole, config.kl_limit, system)
    artifact = ARTIFACTS[config.method]
    if config.method == "full":
        base.model.generation_config = generation_config(base)
    save_artifact(trainer, base.tokenizer, out_dir / artifact)
    losses = [entry["loss"] for entry in recorder.history]
    n_tokens = sum(len(chats[i]) for i in rows)
    summary = {
        "model": model_name,
        "quantisation": base.quantisation,
        "method": config.method,
        "artifact": artifact,
        "chat_format": format_of(base.tokenizer),
        "rendering": template_of(base.tokenizer).card,
        "bf16": args.bf16,
        "n_trainable": n_trained,
        "n_rows": len(examples),
        "n_cut": sum(map(is_cut, chats)),
        "n_tokens": n_tokens,
        "n_steps": len(losses),
        "n_processes": args.world_size,
        "seconds": round(seconds, 1),
        "tokens_per_second": round(n_tokens / seconds, 1),
        "final_loss": sum(losses[-max(1, len(losses) // 10) :]) / max(1, len(losses) // 10),
        "peak_rss_gib": round(peak_rss_gib(), 2),
        "kl_limited": limited and limited.model_dump(),
    }
    if args.should_save:
        summary["files"] = hashes(out_dir, [*files_in(out_dir / artifact), recorder.path])
        write_json(out_dir / SUMMARY, summary)
        shutil.rmtree(checkpoints, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    return summary


def peak_rss_gib() -> float:
    """The most memory that this process has held at once, GiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**30 if sys.platform == "darwin" else peak / 2**20


def n_steps_of(n_rows: int, config: TrainingConfig) -> int:
    """Optimiser steps of a training on so many rows."""
    return -(-n_rows * config.n_epochs // (config.batch_size * config.gradient_accumulation))


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
