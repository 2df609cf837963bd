"""Standard benchmarks of an arm: TruthfulQA, MMLU, HumanEval (lm-eval), StrongREJECT (inspect-evals), MACHIAVELLI.

  evaluate.py harness export --model MODEL --adapter runs/NAME/training/insecure/adapter --arm-dir arms/insecure
  evaluate.py harness run --arm-dir arms/insecure --benchmarks truthfulqa_mc mmlu --out-dir bench/insecure [--data DATA]
  evaluate.py harness read bench/insecure/.../results_*.json | strong_reject_log.json | machiavelli.csv

`--print` shows the exact command and what has to be downloaded, and runs nothing.
"""

import argparse
import shlex
from pathlib import Path
from typing import Any

from emis_interp.errors import ConfigError, DataError
from emis_interp.files.strict_json import read_json
from emis_interp.files.text import flat_lines
from emis_interp.models.precision import AUTO, DTYPE_HELP, dtype_name
from evals.suites import harness, harness_data, strong_reject
from evals.suites.machiavelli import read_machiavelli


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "action", choices=("export", "run", "read"), help="save a merged arm, run benchmarks, or read results"
    )
    parser.add_argument("file", type=Path, nargs="?", help="read: a results file")
    parser.add_argument("--model", help="export: base model (name, folder or hub id)")
    parser.add_argument(
        "--adapter", type=Path, help="export: folder or hub id of the arm's adapter (none: the base model itself)"
    )
    parser.add_argument("--arm-dir", type=Path, help="folder of the merged arm")
    parser.add_argument(
        "--benchmarks",
        nargs="+",
        default=["truthfulqa_mc"],
        choices=(*harness.BENCHMARKS, "strong_reject"),
        help="which",
    )
    parser.add_argument("--out-dir", type=Path, help="run: folder for the harness' results")
    parser.add_argument("--data", type=Path, help="run: folder with local data (default: the harness downloads)")
    parser.add_argument("--dtype", default=AUTO, help=DTYPE_HELP)
    parser.add_argument("--fewshot", type=int, default=0, help="examples before each question")
    parser.add_argument("--limit", type=int, help="only so many questions of each task; never quote such a number")
    parser.add_argument("--batch-size", default="8", help="rows at a time, or auto")
    parser.add_argument("--judge", default="openai/gpt-4o", help="strong_reject: the judge, an Inspect model name")
    parser.add_argument(
        "--allow-code", action="store_true", help="humaneval: run what the model writes on this machine"
    )
    parser.add_argument(
        "--unfinished", action="store_true", help="strong_reject: also read a log that failed or was cancelled"
    )
    parser.add_argument("--print", action="store_true", dest="only_print", help="run: show the command, run nothing")


def run(args: argparse.Namespace) -> dict[str, Any]:
    if args.action == "export":
        if args.model is None or args.arm_dir is None:
            raise ConfigError("harness export: give --model and --arm-dir")
        return {
            "arm_dir": str(harness.export_arm(args.model, args.adapter, args.arm_dir, dtype=dtype_name(args.dtype)))
        }
    if args.action == "read":
        return read(args.file, args.unfinished)
    if args.arm_dir is None or args.out_dir is None:
        raise ConfigError("harness run: give --arm-dir and --out-dir")
    return _run(args)


def say(result: dict[str, Any]) -> str:
    return "\n".join(flat_lines(result))


def read(path: Path | None, unfinished: bool = False) -> dict[str, Any]:
    """Rows of a results file of lm-eval (.json), of a StrongREJECT log (.json), or of a MACHIAVELLI table (.csv)."""
    if path is None:
        raise ConfigError("harness read: give a results file")
    if path.suffix == ".csv":
        return {"machiavelli": read_machiavelli(path)}
    content = read_json(path, loose=True)
    if isinstance(content, dict) and "samples" in content and "eval" in content:
        return {"strong_reject": strong_reject.read_log(path, unfinished=unfinished)}
    return {"rates": harness.read_results(path)}


def _run(args: argparse.Namespace) -> dict[str, Any]:
    arm, out, names = args.arm_dir.resolve(), args.out_dir.resolve(), list(args.benchmarks)
    if "strong_reject" in names:
        if len(names) > 1:
            raise ConfigError("strong_reject runs through another harness; give it in a command of its own")
        words = strong_reject.command(arm, out, args.judge, limit=args.limit)
        if args.only_print:
            return {"command": shlex.join(words), "data": [strong_reject.DATA], "install": strong_reject.INSTALL}
        harness.require("inspect_evals", strong_reject.INSTALL)
        harness.call(words, "inspect-evals")
        logs = sorted(out.glob("*.json"), key=lambda path: path.stat().st_mtime)
        if not logs:
            raise DataError(f"{out}: inspect-evals wrote no JSON log")
        return {"file": str(logs[-1]), **read(logs[-1], args.unfinished)}
    tasks_dir = tasks = None
    if args.data is not None and not args.only_print:
        tasks_dir = out / "tasks"
        tasks = harness_data.local_tasks(names, args.data.resolve(), tasks_dir)
    words = harness.command(
        names,
        arm,
        out,
        tasks_dir=tasks_dir,
        tasks=tasks,
        n_fewshot=args.fewshot,
        limit=args.limit,
        batch_size=args.batch_size,
        dtype=dtype_name(args.dtype),
        allow_code=args.allow_code,
    )
    if args.only_print:
        data = harness.describe_data(names, args.data or Path("DATA"))
        return {"command": shlex.join(words), "data": data, "install": harness.INSTALL}
    path = harness.run_harness(words, out, args.data.resolve() if args.data else None)
    return {"file": str(path), "rates": harness.pick(harness.read_results(path), names)}
