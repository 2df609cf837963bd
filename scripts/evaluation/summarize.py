"""States every rate of a result file or a run folder with its name and interval, one line per run.

Intervals are over questions and answers of that one model, not over finetuning seeds. Answers without a number, and the labels CODE
and REFUSAL, are counted beside the rates; which of them a rate leaves out is in its definition (docs/evaluation.md).

Examples:
  python scripts/evaluate.py summarize result.csv --variant plain
  python scripts/evaluate.py summarize scores.parquet --runs '*insecure*' --estimand em_of_all --json
  python scripts/evaluate.py summarize runs/laptop --to laptop.eval
  python scripts/evaluate.py summarize theirs.csv --columns answer=response aligned=100-evil coherent=coherence --by condition
"""

import argparse
from pathlib import Path
from typing import Any, get_args

import numpy as np

import cli
from evals.rates import estimands, uncertainty
from evals.rates.confidence import Population
from evals.results.result_files import read_results, write_results
from evals.results.result_table import METRICS, VARIANTS, Results
from log_flags import add_log_flags, log_choice
from table_flags import add_table_flags, reading_of

WEIGHTINGS = ("pooled", "macro")


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="CSV, JSON lines or Parquet table, Inspect log, or run folder")
    parser.add_argument("--variant", choices=(*VARIANTS, "all"), default="all", help="variant of the questions")
    parser.add_argument("--runs", default="*", help="only runs that match this pattern")
    parser.add_argument(
        "--estimand", action="append", choices=sorted(estimands.ESTIMANDS), help="only this one; may be repeated"
    )
    parser.add_argument("--sensitivity", action="store_true", help="also every preset, threshold and boundary side")
    parser.add_argument(
        "--to", type=Path, metavar="OUT", help="also write the answers to a .csv, .jsonl, .parquet or .eval file"
    )
    parser.add_argument(
        "--interval",
        choices=get_args(uncertainty.Method),
        default="limits",
        help="limits covers with few questions too; bootstrap is the percentile interval, too narrow then",
    )
    parser.add_argument(
        "--population",
        choices=get_args(Population),
        default="questions",
        help="speak of all questions that might have been asked, or of this suite's alone (limits only)",
    )
    parser.add_argument("--n-bootstrap", type=int, default=10_000, help="resamples of each bootstrap interval")
    parser.add_argument("--seed", type=int, default=0, help="of the resampling")
    add_log_flags(parser)
    add_table_flags(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Rates in [0, 1]; `value`, `low` and `high` are None where the data give none, and `methods` says why."""
    results = read_results(args.file, reading_of(args), log=log_choice(args)).select(args.variant, args.runs)
    names = args.estimand or list(estimands.ESTIMANDS)
    found: dict[str, Any] = {"file": str(args.file), "variant": args.variant}
    found |= {"runs": {}, "methods": {}, "counts": {}}
    with cli.progress_bar("summarize", len(results.run_names)) as advance:
        for name in results.run_names:
            answers = results.judged(name)
            intervals = {
                estimand: {
                    weighting: uncertainty.rate_interval(
                        answers,
                        estimands.ESTIMANDS[estimand],
                        weighting,
                        method=args.interval,
                        population=args.population,
                        n_bootstrap=args.n_bootstrap,
                        seed=args.seed,
                    )
                    for weighting in WEIGHTINGS
                }
                for estimand in names
            }
            found["runs"][name] = _each(intervals, lambda i: {"value": i.value, "low": i.low, "high": i.high, "n": i.n})
            found["methods"][name] = _each(intervals, lambda i: i.method)
            found["counts"][name] = counts(results, name)
            advance()
    if args.sensitivity:
        found["sensitivity"] = {name: estimands.sensitivity_table(results.judged(name)) for name in results.run_names}
    if args.to is not None:
        write_results(results, args.to)
        found["written"] = str(args.to)
    return found


def counts(results: Results, run: str) -> dict[str, Any]:
    """Answers and questions of a run, and per metric those without number and label, with the reasons that are known."""
    rows = np.flatnonzero(results.runs == run)
    found: dict[str, Any] = {
        "n_answers": len(rows),
        "n_questions": len(set(results.question_ids[rows].tolist())),
        "n_code": int((results.labels["aligned"][rows] == "CODE").sum()),
        "n_refusal": int((results.labels["aligned"][rows] == "REFUSAL").sum()),
        "n_unscored": {},
        "reasons": {},
    }
    for metric in METRICS:
        lacking = [i for i in rows if np.isnan(results.scores[metric][i]) and not results.labels[metric][i]]
        found["n_unscored"][metric] = len(lacking)
        for i in lacking:
            reason = f"{metric}: {results.reasons[i].get(metric, 'the file gives no reason')}"
            found["reasons"][reason] = found["reasons"].get(reason, 0) + 1
    return found


def say(result: dict[str, Any]) -> str:
    rates = next(iter(result["runs"].values()))
    columns = [(estimand, weighting) for estimand in rates for weighting in rates[estimand]]
    head = ["run", "answers", "CODE", "REFUSAL", "no aligned", "no coherent"]
    lines = [head + [f"{estimand} {weighting}" for estimand, weighting in columns]]
    for name, rates in result["runs"].items():
        count = result["counts"][name]
        numbers = [count["n_answers"], count["n_code"], count["n_refusal"], *count["n_unscored"].values()]
        lines.append(
            [name, *map(str, numbers), *(percent(rates[estimand][weighting]) for estimand, weighting in columns)]
        )
    parts = [
        f"{result['file']}, questions: {result['variant']}; percent misaligned [95 % interval over questions and answers]",
        aligned(lines),
    ]
    for name, rows in result.get("sensitivity", {}).items():
        table = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
        parts.append(f"{name}: every definition\n{aligned(table)}")
    if "written" in result:
        parts.append(f"written: {result['written']}")
    return "\n\n".join(parts)


def percent(rate: dict[str, Any]) -> str:
    """`5.0 [2.1, 9.9]` in percent."""
    if rate["value"] is None:
        return "none"
    bounds = "no interval" if rate["low"] is None else f"{100 * rate['low']:.1f}, {100 * rate['high']:.1f}"
    return f"{100 * rate['value']:.1f} [{bounds}]"


def aligned(lines: list[list[str]]) -> str:
    """Rows as text: the first column to the left, the others to the right."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        )
        for line in lines
    )


def _each(intervals: dict[str, dict[str, Any]], read: Any) -> dict[str, dict[str, Any]]:
    return {name: {weighting: read(interval) for weighting, interval in row.items()} for name, row in intervals.items()}


def _cell(value: Any) -> str:
    return "none" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
