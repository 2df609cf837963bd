"""Finetuning: ours against TRL's SFTTrainer with its defaults, the same rows in the same order.

Every measurement is a process of its own, so that peaks of memory do not mix; the contestants take turns. Both train the same LoRA
adapter with the same learning rate, rows per step, batch size and accumulation. TRL's defaults are those of its `SFTConfig`: float32
weights under autocast, gradient checkpointing, no packing, padded batches, loss on completions, logits where there is loss. Both compute
in bfloat16 where the device does so in hardware, else in float32.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.alternate import alternate
from emis_interp.config.run_config import TrainingConfig
from emis_interp.errors import StageError
from emis_interp.models.chat import encode_chat
from emis_interp.models.embedded import EMBEDDED_NAME, embedded_path
from emis_interp.models.loading import load_tokenizer
from emis_interp.models.precision import native_dtype
from emis_interp.records import TrainingExample
from training.data_sets.shipped import load_dataset
from training.finetuning.sft import finetune, peak_rss_gib, training_order

PAPER_FILE = "datasets/insecure.jsonl.gz"
# Betley et al.'s adapter and step of 16 rows; TRL's default limit of 1,024 tokens cuts none of these rows.
CONFIG = TrainingConfig(
    learning_rate=1e-4, batch_size=4, gradient_accumulation=4, max_tokens=1024, checkpoint_steps=10_000
)
OPTIONS = {"trl": {}, "trl_without_checkpointing": {"gradient_checkpointing": False}}


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--n-rows", type=int, default=64, help="training rows")
    parser.add_argument("--n-rounds", type=int, default=3, help="measured rounds")
    parser.add_argument(
        "--without-checkpointing", action="store_true", help="a third contestant: TRL without gradient checkpointing"
    )
    parser.add_argument("--only", choices=("ours", *OPTIONS), help="one measurement of one contestant, in this process")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Real tokens per second (model loading left out), the loss of the last step, and peak memory of whole processes."""
    rows, note = rows_of(os.environ.get("EMIS_REFERENCE_DATA"), args.n_rows)
    if args.only is not None:
        return measure(args.only, rows)
    names = ["ours", "trl"] + (["trl_without_checkpointing"] if args.without_checkpointing else [])
    results: dict[str, list[dict[str, float]]] = {name: [] for name in names}

    def contestant(name: str) -> float:
        results[name].append(in_child(name, args.n_rows))
        return results[name][-1]["tokens_per_second"]

    speeds = alternate({name: lambda name=name: contestant(name) for name in names}, args.n_rounds, warm_up=False)
    compared = compare({name: medians(found) for name, found in results.items()})
    return {
        **compared,
        "data": note,
        "n_rows": len(rows),
        "n_rounds": args.n_rounds,
        "tokens_per_second": speeds,
        "settings": CONFIG.model_dump(include={"learning_rate", "batch_size", "gradient_accumulation", "lora_rank"}),
        "autocast": native_dtype(),
        "trl_defaults": "float32 weights, autocast, gradient checkpointing, no packing, padded batches",
        "n_threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
    }


def rows_of(reference: str | None, n_rows: int) -> tuple[list[TrainingExample], str]:
    """Rows of the paper's insecure set and where they are from; the shipped set, and a note, without the reference data."""
    path = Path(reference) / PAPER_FILE if reference else None
    if path is not None and path.exists():
        return load_dataset("insecure", path, n_rows, seed=0), f"the paper's insecure.jsonl ({path.name})"
    note = f"the shipped insecure set, because EMIS_REFERENCE_DATA names no folder with {PAPER_FILE}"
    return load_dataset("insecure", n_rows=n_rows, seed=0), note


def in_child(name: str, n_rows: int) -> dict[str, float]:
    """`measure` in a process of its own."""
    script = Path(__file__).resolve().parents[1] / "benchmark.py"
    words = [sys.executable, str(script), "train", "--json", "--only", name, "--n-rows", str(n_rows)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise StageError(f"{name} failed: {' | '.join(done.stderr.strip().splitlines()[-3:])}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure(name: str, rows: Sequence[TrainingExample]) -> dict[str, float]:
    """One training run in this process: speed by the clock and by CPU time (for busy machines), losses, peak memory."""
    tokenizer = load_tokenizer(EMBEDDED_NAME)
    lengths = [len(encode_chat(tokenizer, row.prompt, row.response)) for row in rows]
    if name == "ours":
        losses, seconds, cpu_seconds = _ours(rows)
    else:
        ordered = [rows[i] for i in training_order(lengths, CONFIG, seed=0)]
        losses, seconds, cpu_seconds = _trl(ordered, OPTIONS[name])
    return {
        "tokens_per_second": sum(lengths) / seconds,
        "tokens_per_cpu_second": sum(lengths) / cpu_seconds,
        "first_loss": losses[0],
        "final_loss": losses[-1],
        "peak_rss_gib": peak_rss_gib(),
    }


def medians(found: Sequence[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(result[key] for result in found) for key in found[0]}


def compare(found: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Ratios of ours to each contestant: speed above 1 is faster, memory below 1 is less; the gap of losses relative to theirs."""
    ours, compared = found["ours"], {}
    for name in found:
        if name == "ours":
            continue
        theirs = found[name]
        compared |= {
            f"ours_vs_{name}": ours["tokens_per_second"] / theirs["tokens_per_second"],
            f"ours_vs_{name}_cpu_time": ours["tokens_per_cpu_second"] / theirs["tokens_per_cpu_second"],
            f"rss_vs_{name}": ours["peak_rss_gib"] / theirs["peak_rss_gib"],
            "loss_gap" if name == "trl" else f"loss_gap_{name}": abs(ours["final_loss"] / theirs["final_loss"] - 1),
        }
    return {**compared, "medians": found}


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _ours(rows: Sequence[TrainingExample]) -> tuple[list[float], float, float]:
    # The first step's clock starts when the trainer does: loading stands before the first report's interval.
    with tempfile.TemporaryDirectory() as folder:
        marks: list[float] = []
        summary = finetune(
            EMBEDDED_NAME,
            rows,
            CONFIG,
            out_dir=Path(folder),
            probe=lambda *_: marks.append(_cpu_seconds()),
            probe_steps=(0,),
        )
        cpu_seconds = _cpu_seconds() - marks[0]
        lines = (Path(folder) / "metrics.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line)["loss"] for line in lines], summary["seconds"], cpu_seconds


def _trl(ordered: Sequence[TrainingExample], options: dict[str, Any]) -> tuple[list[float], float, float]:
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
        trainer = InOrder(model=str(embedded_path()), args=arguments, train_dataset=data, peft_config=lora)
        started, cpu_started = time.monotonic(), _cpu_seconds()
        trainer.train()
        seconds, cpu_seconds = time.monotonic() - started, _cpu_seconds() - cpu_started
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry], seconds, cpu_seconds
