"""One training run of one contestant in this process: ours, or TRL's trainer on the same rows in the same order."""

import json
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from emis_interp.config.run_config import TrainingConfig
from emis_interp.models.chat import encode_chat
from emis_interp.models.checkpoint import resolve_with_weights
from emis_interp.models.loading import load_tokenizer
from emis_interp.models.precision import native_dtype
from emis_interp.records import TrainingExample
from training.finetuning.sft import finetune, peak_rss_gib, training_order

# Betley et al.'s adapter and step of 16 rows; TRL's default limit of 1,024 tokens cuts none of these rows.
CONFIG = TrainingConfig(
    learning_rate=1e-4, batch_size=4, gradient_accumulation=4, max_tokens=1024, checkpoint_steps=10_000
)
OPTIONS = {"trl": {}, "trl_without_checkpointing": {"gradient_checkpointing": False}}


def measure(name: str, rows: Sequence[TrainingExample], model: str) -> dict[str, float]:
    """One training run in this process: speed by the clock and by CPU time (for busy machines), losses, peak memory."""
    tokenizer = load_tokenizer(model)
    lengths = [len(encode_chat(tokenizer, row.prompt, row.response)) for row in rows]
    if name == "ours":
        losses, seconds, cpu_seconds = _ours(rows, model)
    else:
        ordered = [rows[i] for i in training_order(lengths, CONFIG, seed=0)]
        losses, seconds, cpu_seconds = _trl(ordered, OPTIONS[name], model)
    return {
        "tokens_per_second": sum(lengths) / seconds,
        "tokens_per_cpu_second": sum(lengths) / cpu_seconds,
        "first_loss": losses[0],
        "final_loss": losses[-1],
        "peak_rss_gib": peak_rss_gib(),
        **({"peak_gpu_gib": torch.cuda.max_memory_allocated() / 2**30} if torch.cuda.is_available() else {}),
    }


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _ours(rows: Sequence[TrainingExample], model: str) -> tuple[list[float], float, float]:
    # The first step's clock starts when the trainer does: loading stands before the first report's interval.
    with tempfile.TemporaryDirectory() as folder:
        marks: list[float] = []
        summary = finetune(
            model,
            rows,
            CONFIG,
            out_dir=Path(folder),
            probe=lambda *_: marks.append(_cpu_seconds()),
            probe_steps=(0,),
        )
        cpu_seconds = _cpu_seconds() - marks[0]
        lines = (Path(folder) / "metrics.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line)["loss"] for line in lines], summary["seconds"], cpu_seconds


def _trl(ordered: Sequence[TrainingExample], options: dict[str, Any], model: str) -> tuple[list[float], float, float]:
    from datasets import Dataset
    from peft import LoraConfig
    from torch.utils.data import SequentialSampler
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    class InOrder(SFTTrainer):
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            rows: Any = train_dataset if train_dataset is not None else self.train_dataset
            return SequentialSampler(rows)

    data = Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": row.prompt}],
                "completion": [{"role": "assistant", "content": row.response}],
            }
            for row in ordered
        ]
    )
    lora = LoraConfig(
        r=CONFIG.lora_rank,
        lora_alpha=CONFIG.lora_alpha,
        use_rslora=CONFIG.use_rslora,
        target_modules="all-linear",
        lora_dropout=0.0,
    )
    with tempfile.TemporaryDirectory() as folder:
        arguments = SFTConfig(
            output_dir=folder,
            per_device_train_batch_size=CONFIG.batch_size,
            gradient_accumulation_steps=CONFIG.gradient_accumulation,
            num_train_epochs=1,
            learning_rate=CONFIG.learning_rate,
            warmup_steps=CONFIG.warmup_steps,
            weight_decay=CONFIG.weight_decay,
            use_cpu=not torch.cuda.is_available(),
            bf16=native_dtype() == "bfloat16",
            save_strategy="no",
            logging_steps=1,
            report_to=[],
            disable_tqdm=True,
            **options,
        )
        trainer = InOrder(model=str(resolve_with_weights(model)), args=arguments, train_dataset=data, peft_config=lora)
        started, cpu_started = time.monotonic(), _cpu_seconds()
        trainer.train()
        seconds, cpu_seconds = time.monotonic() - started, _cpu_seconds() - cpu_started
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry], seconds, cpu_seconds
