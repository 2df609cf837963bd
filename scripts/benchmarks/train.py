"""Times finetuning: ours against TRL's trainer, each in a process of its own."""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.alternate import alternate
from benchmarks.settings import TrainBenchmarkSettings
from benchmarks.train_contestants import CONFIG, measure
from emis_interp.errors import StageError
from emis_interp.models.precision import native_dtype
from emis_interp.process import Bars, no_bars
from emis_interp.records import TrainingExample
from training.data_sets.shipped import load_dataset

PAPER_FILE = "datasets/insecure.jsonl.gz"


def run(settings: TrainBenchmarkSettings, bars: Bars = no_bars) -> dict[str, Any]:
    """Real tokens per second (model loading left out), the loss of the last step, and peak memory of whole processes."""
    rows, note = rows_of(os.environ.get("EMIS_REFERENCE_DATA"), settings.n_rows)
    if settings.only is not None:
        return measure(settings.only, rows, settings.model)
    names = ["ours", "trl"] + (["trl_without_checkpointing"] if settings.without_checkpointing else [])
    results: dict[str, list[dict[str, float]]] = {name: [] for name in names}

    def contestant(name: str) -> float:
        results[name].append(in_child(name, settings.n_rows, settings.model))
        return results[name][-1]["tokens_per_second"]

    speeds = alternate({name: lambda name=name: contestant(name) for name in names}, settings.n_rounds, warm_up=False)
    compared = compare({name: medians(found) for name, found in results.items()})
    return {
        **compared,
        "model": settings.model,
        "data": note,
        "n_rows": len(rows),
        "n_rounds": settings.n_rounds,
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


def in_child(name: str, n_rows: int, model: str) -> dict[str, float]:
    """`measure` in a process of its own."""
    script = Path(__file__).resolve().parents[1] / "benchmark.py"
    words = [sys.executable, str(script), "train", "--json", "--only", name, "--n-rows", str(n_rows), "--model", model]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise StageError(f"{name} failed: {' | '.join(done.stderr.strip().splitlines()[-3:])}")
    return json.loads(done.stdout.strip().splitlines()[-1])


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
            **(
                {f"gpu_memory_vs_{name}": ours["peak_gpu_gib"] / theirs["peak_gpu_gib"]}
                if "peak_gpu_gib" in ours
                else {}
            ),
            "loss_gap" if name == "trl" else f"loss_gap_{name}": abs(ours["final_loss"] / theirs["final_loss"] - 1),
        }
    return {**compared, "medians": found}
