"""Turns a folder of local data files into lm-eval tasks that read them, so that a benchmark runs without a network.

Each local task includes the harness' own task file and overrides where the data come from, nothing else: prompts, few-shot rules, filters
and metrics stay the harness'. `BENCHMARKS[name].data` of `harness` says what to put where.
"""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from emis_interp.errors import ConfigError, DataError, did_you_mean
from emis_interp.files.store import write_text
from evals.suites.harness import BENCHMARKS, INSTALL, require

PREFIX = "emis_"
_FILES = {
    # local task -> (task file of the harness, data file without its ending, split that the task reads)
    "truthfulqa_mc": (
        ("truthfulqa_mc1", "truthfulqa/truthfulqa_mc1.yaml", "truthfulqa_mc", "validation"),
        ("truthfulqa_mc2", "truthfulqa/truthfulqa_mc2.yaml", "truthfulqa_mc", "validation"),
    ),
    "truthfulqa_gen": (("truthfulqa_gen", "truthfulqa/truthfulqa_gen.yaml", "truthfulqa_gen", "validation"),),
    "humaneval": (("humaneval_instruct", "humaneval/humaneval_instruct.yaml", "humaneval", "test"),),
}
_READERS = {".parquet": "parquet", ".jsonl": "json", ".json": "json"}


def local_tasks(names: Sequence[str], data: Path, tasks_dir: Path) -> list[str]:
    """Write task files for local data into `tasks_dir` (lm-eval's --include_path) and return the names of the tasks to run.

    Data files are Parquet or JSONL with the columns of the hub data sets.

    Raises:
        ConfigError: unknown benchmark, or lm-eval is not installed. DataError: a data file is missing (the text says what goes where).
    """
    require("lm_eval", INSTALL)
    home = _harness_tasks()
    chosen = []
    for name in names:
        if name not in BENCHMARKS:
            raise ConfigError(f"unknown benchmark `{name}`{did_you_mean(name, BENCHMARKS)}")
        if name == "mmlu":
            chosen.append(_mmlu(home, data, tasks_dir))
            continue
        for task, file, stem, split in _FILES[name]:
            found = _data_file(data / stem, name)
            _write(tasks_dir, PREFIX + task, home / file, files={split: found})
            chosen.append(PREFIX + task)
    return chosen


def _mmlu(home: Path, data: Path, tasks_dir: Path) -> str:
    """One task for each subject folder, and the group that pools them by size, as the harness' own group does."""
    known = {path.stem.removeprefix("mmlu_"): path for path in (home / "mmlu" / "default").glob("mmlu_*.yaml")}
    subjects = sorted(path.name for path in (data / "mmlu").glob("*") if path.is_dir())
    if not subjects:
        raise DataError(f"{data}/mmlu: no subject folders there; put {BENCHMARKS['mmlu'].data[0]}")
    for subject in subjects:
        if subject not in known:
            raise DataError(f"{data}/mmlu/{subject}: no such subject in MMLU{did_you_mean(subject, known)}")
        files = {split: _data_file(data / "mmlu" / subject / split, "mmlu") for split in ("test", "dev")}
        _write(tasks_dir, f"{PREFIX}mmlu_{subject}", known[subject], files=files, tag=f"{PREFIX}mmlu_tasks")
    group = {
        "group": f"{PREFIX}mmlu",
        "task": [f"{PREFIX}mmlu_{subject}" for subject in subjects],
        "aggregate_metric_list": [{"metric": "acc", "weight_by_size": True}],
        "metadata": {"version": 1},
    }
    write_text(tasks_dir / f"{PREFIX}mmlu.yaml", yaml.safe_dump(group, sort_keys=False))
    return f"{PREFIX}mmlu"


def _write(tasks_dir: Path, task: str, include: Path, *, files: dict[str, Path], tag: str | None = None) -> None:
    entry: dict[str, Any] = {
        "include": str(include),
        "task": task,
        "tag": tag or f"{PREFIX}tasks",
        "dataset_path": _READERS[next(iter(files.values())).suffix],
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {split: str(path) for split, path in files.items()}},
    }
    write_text(tasks_dir / f"{task}.yaml", yaml.safe_dump(entry, sort_keys=False))


def _data_file(stem: Path, name: str) -> Path:
    for ending in _READERS:
        path = stem.with_name(stem.name + ending)
        if path.is_file():
            return path.resolve()
    wanted = "; ".join(BENCHMARKS[name].data)
    raise DataError(f"{stem}.parquet (or .jsonl): no such file; {name} needs {wanted}")


def _harness_tasks() -> Path:
    """The folder of task files inside the installed harness, found without importing it."""
    spec = importlib.util.find_spec("lm_eval")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"lm-eval is not installed; it is optional: {INSTALL}")
    return Path(next(iter(spec.submodule_search_locations))) / "tasks"
