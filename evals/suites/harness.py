"""Turns a finetuned arm into a command for a maintained benchmark harness, and the harness' results into our rates.

TruthfulQA, MMLU and HumanEval go through EleutherAI's lm-eval, StrongREJECT through inspect-evals (see `strong_reject`). Prompts, scoring
and aggregation are theirs; what is ours is the merged model folder, the exact command, local data in place of downloads, and the reading of
the results. Their standard errors take the questions as independent draws.
"""

import importlib.util
import math
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field
from scipy import stats

from emis_interp.errors import ConfigError, DataError, StageError, did_you_mean, printable, shown
from emis_interp.files.store import as_record, write_json
from emis_interp.files.strict_json import read_json
from emis_interp.models.merging import save_merged
from evals.suites.sandbox import plain_environment, sandboxed

INSTALL = "pip install lm-eval"
UNSAFE = "--confirm_run_unsafe_code"
"""lm-eval's word for running what the model wrote."""
_METHOD = "normal, the harness' standard error over questions"


@dataclass(frozen=True)
class Benchmark:
    """One benchmark in lm-eval.

    Attributes:
        tasks: lm-eval's names.
        metrics: those that the literature quotes; others are read too.
        data: what to put where for a run without a network, one line for each file (see `local_tasks`).
        runs_code: the harness executes what the model wrote.
    """

    tasks: tuple[str, ...]
    metrics: tuple[str, ...]
    data: tuple[str, ...]
    runs_code: bool = False


BENCHMARKS: dict[str, Benchmark] = {
    "truthfulqa_mc": Benchmark(
        ("truthfulqa_mc1", "truthfulqa_mc2"),
        ("acc",),
        ("truthfulqa_mc.parquet from the hub data set truthfulqa/truthful_qa, multiple_choice/validation-*.parquet",),
    ),
    "truthfulqa_gen": Benchmark(
        ("truthfulqa_gen",),
        ("bleu_acc", "rouge1_acc"),
        ("truthfulqa_gen.parquet from the hub data set truthfulqa/truthful_qa, generation/validation-*.parquet",),
    ),
    "mmlu": Benchmark(
        ("mmlu",),
        ("acc",),
        (
            "mmlu/SUBJECT/test.parquet and dev.parquet from the hub data set cais/mmlu, SUBJECT/{test,dev}-*.parquet (57 subjects)",
        ),
    ),
    "humaneval": Benchmark(
        ("humaneval_instruct",),
        ("pass@1",),
        (
            "humaneval.parquet from the hub data set openai/openai_humaneval, openai_humaneval/test-*.parquet",
            "code_eval/ from the repository huggingface/evaluate, metrics/code_eval",
        ),
        runs_code=True,
    ),
}


def export_arm(model: str, adapter: Path | None, folder: Path, *, dtype: str = "bfloat16") -> Path:
    """Save a model, its adapter merged in float32, as a folder that every harness loads; returns the folder.

    Raises:
        StageError: the folder holds something already. ModelError: the model or adapter cannot be loaded.
    """
    save_merged(model, adapter, folder, dtype=dtype)
    card = {"model": model, "adapter": str(adapter) if adapter else None, "dtype": dtype}
    write_json(folder / "arm.json", card)
    return folder


def command(
    names: Sequence[str],
    model_folder: Path,
    out_dir: Path,
    *,
    tasks_dir: Path | None = None,
    tasks: Sequence[str] | None = None,
    n_fewshot: int = 0,
    limit: int | None = None,
    batch_size: str = "8",
    dtype: str = "bfloat16",
    chat_template: bool = True,
    allow_code: bool = False,
) -> list[str]:
    """The exact lm-eval command; nothing is run.

    Args:
        names: keys of BENCHMARKS.
        tasks_dir, tasks: folder and names of local tasks (`local_tasks`); None for the harness' own, which download their data.
        n_fewshot: the harness' default for all four is 0; MMLU is often quoted with 5.
        limit: only so many questions of each task: for trying out, never to be quoted.
        chat_template: ask in the model's chat format, as arms were trained and sampled.
        allow_code: must be given for HumanEval, which runs what the model writes; `run_harness` does it in a sandbox alone.

    Raises:
        ConfigError: an unknown benchmark, or one that runs code without `allow_code`.
    """
    for name in names:
        if name not in BENCHMARKS:
            raise ConfigError(f"unknown benchmark `{name}`{did_you_mean(name, BENCHMARKS)}")
        if BENCHMARKS[name].runs_code and not allow_code:
            raise ConfigError(
                f"{name} runs the code that the model writes; say allow_code (--allow-code) to have it run in a sandbox "
                f"(Bubblewrap, or a container without a network)"
            )
    chosen = list(tasks) if tasks is not None else [task for name in names for task in BENCHMARKS[name].tasks]
    words = [sys.executable, "-m", "lm_eval", "run", "--model", "hf"]
    words += ["--model_args", f"pretrained={model_folder}", f"dtype={dtype}", "--tasks", *chosen]
    words += [
        "--num_fewshot",
        str(n_fewshot),
        "--batch_size",
        batch_size,
        "--output_path",
        str(out_dir),
        "--log_samples",
    ]
    words += ["--apply_chat_template"] if chat_template else []
    words += ["--limit", str(limit)] if limit is not None else []
    words += ["--include_path", str(tasks_dir)] if tasks_dir is not None else []
    words += [UNSAFE] if any(BENCHMARKS[name].runs_code for name in names) else []
    return words


def run_harness(words: Sequence[str], out_dir: Path, data: Path | None = None) -> Path:
    """Run a command of `command` and return the newest results file.

    Args:
        data: folder with local data; the process works in it and does not ask the network.

    Raises:
        ConfigError: lm-eval is not installed (the text has the pip line); or what the model writes would be run, and there is no sandbox
            for it (`sandboxed`) or no local data. StageError: the harness failed.
    """
    require("lm_eval", INSTALL)
    environment = {"TOKENIZERS_PARALLELISM": "false"}
    if data is not None:
        environment |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1"}
    if UNSAFE in words:
        _call_in_sandbox(words, out_dir, data, environment=environment | {"HF_ALLOW_CODE_EVAL": "1"})
    else:
        call(words, "lm-eval", data, environment=environment)
    return newest_results(out_dir)


def _call_in_sandbox(words: Sequence[str], out_dir: Path, data: Path | None, *, environment: Mapping[str, str]) -> None:
    if data is None:
        raise ConfigError(
            "what runs a model's code has no network; give the benchmark's data with --data (see --print)"
        )
    out_dir.mkdir(parents=True, exist_ok=True)
    model = Path(next(word for word in words if word.startswith("pretrained=")).partition("=")[2])
    inside = ["env", *(f"{name}={value}" for name, value in environment.items()), *words]
    command = sandboxed(inside, writable=out_dir, readable=[model, data], work=data)
    call(command, "lm-eval", data, environment=plain_environment(), alone=True)


def call(
    words: Sequence[str],
    name: str,
    folder: Path | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    alone: bool = False,
) -> None:
    """Run a harness in `folder`, its environment added to ours; `alone`: in place of ours.

    Raises:
        StageError: it ended with an error; the text has its last lines and the command.
    """
    variables = {**({} if alone else os.environ), **(environment or {})}
    done = subprocess.run(list(words), cwd=folder, env=variables, capture_output=True, text=True)
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise StageError(
            f"{name} failed with status {done.returncode}: {' | '.join(lines[-3:])}; the command was: {shlex.join(words)}"
        )


def newest_results(out_dir: Path) -> Path:
    """The results file that lm-eval wrote last under `out_dir`."""
    files = sorted(out_dir.rglob("results_*.json"), key=lambda path: path.stat().st_mtime)
    if not files:
        raise DataError(f"{out_dir}: no results_*.json in it; run the harness first")
    return files[-1]


def require(module: str, line: str) -> None:
    """A ConfigError with the pip line unless the module can be imported."""
    if importlib.util.find_spec(module) is None:
        raise ConfigError(f"{module.replace('_', '-')} is not installed; it is optional: {line}")


class _Counts(BaseModel):
    effective: int
    original: int


class _LmEvalReport(BaseModel):
    """What is read of lm-eval's results file."""

    results: dict[str, dict[str, Any]]
    n_samples: dict[str, _Counts] = Field(default={}, alias="n-samples")
    n_shot: dict[str, int | None] = Field(default={}, alias="n-shot")
    higher_is_better: dict[str, dict[str, bool | None] | None] = {}
    lm_eval_version: str = "version unknown"


def read_results(path: Path, level: float = 0.95) -> list[dict[str, Any]]:
    """Every metric in a results file of lm-eval, with its interval.

    Returns:
        Rows of `task`, `metric`, `filter`, `value`, `low`, `high`, `n` (questions), `n_fewshot`, `limited` (fewer questions than the task
        has), `higher_is_better`, `method`, `harness`. Shares lie in [0, 1]; TruthfulQA's bleu_max and such are on the harness' own scale.

    Raises:
        DataError: not a results file of lm-eval.
    """
    content = read_json(path, loose=True)
    if not isinstance(content, dict) or not isinstance(content.get("results"), dict):
        raise DataError(f"{path}: expected a results file of lm-eval (an object with `results`)")
    report = as_record(content, _LmEvalReport, str(path))
    rows = []
    for task, metrics in report.results.items():
        samples = report.n_samples.get(task)
        n = samples.effective if samples else metrics.get("sample_len")
        n = n if isinstance(n, int) else None
        for key, value in metrics.items():
            name, comma, chosen_filter = key.partition(",")
            if not comma or name.endswith("_stderr") or isinstance(value, (str, dict)):
                continue
            value = _number(value, f"{path}: `{task}`, {shown(key)}")
            low, high, method = _bounds(name, value, metrics.get(f"{name}_stderr,{chosen_filter}"), n=n, level=level)
            rows.append(
                {
                    "task": task,
                    "metric": name,
                    "filter": chosen_filter,
                    "value": value,
                    "low": low,
                    "high": high,
                    "n": n,
                    "n_fewshot": report.n_shot.get(task),
                    "limited": samples is not None and samples.effective < samples.original,
                    "higher_is_better": (report.higher_is_better.get(task) or {}).get(name),
                    "method": method,
                    "harness": f"lm-eval {report.lm_eval_version}",
                }
            )
    if not rows:
        raise DataError(f"{path}: no metric in it; was the harness run with --predict_only?")
    return rows


def pick(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    """The rows that the literature quotes for these benchmarks (their first metrics), in the order of `names`."""
    return [
        dict(row)
        for name in names
        for row in rows
        if row["metric"] in BENCHMARKS[name].metrics
        and any(row["task"] in (task, f"emis_{task}") for task in BENCHMARKS[name].tasks)
    ]


def describe_data(names: Sequence[str], data: Path) -> list[str]:
    """What has to lie where under `data` for a run without a network, one line for each file."""
    return [f"{name}: {data}/{line}" for name in names for line in BENCHMARKS[name].data]


def _number(value: Any, where: str) -> float | None:
    """None where the harness has no number (nothing, NaN or infinity)."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"{where}: expected a number, found {shown(value)}")
    return value


def _bounds(
    metric: str, value: float | None, stderr: Any, *, n: int | None, level: float
) -> tuple[float | None, float | None, str]:
    """An interval from the harness' standard error; exact where that is zero because all or none of the answers are right."""
    if value is None:
        return None, None, "none: the harness gives no number"
    is_share = metric in ("acc", "acc_norm", "exact_match") or metric.startswith("pass@") or metric.endswith("_acc")
    if not isinstance(stderr, (int, float)) or not math.isfinite(stderr):
        return None, None, f"none: the harness gives no standard error ({printable(stderr)})"
    if stderr == 0 and is_share and value in (0, 1) and n:
        tail = (1 - level) / 2
        return (
            (0.0, float(stats.beta.ppf(1 - tail, 1, n)), f"Clopper-Pearson, 0 of {n}")
            if value == 0
            else (float(stats.beta.ppf(tail, n, 1)), 1.0, f"Clopper-Pearson, {n} of {n}")
        )
    half = float(stats.norm.ppf((1 + level) / 2)) * float(stderr)
    low, high = value - half, value + half
    return (max(0.0, low), min(1.0, high), _METHOD) if is_share else (low, high, _METHOD)
