"""Compare two judges on the same answers: agreement in both scores, and every rate under each judge.

Give two scored files with the same rows in the same order, or one file and --columns with the two judges' columns.

Examples:
  python scripts/evaluate.py agree by_gpt.csv by_offline.csv
  python scripts/evaluate.py agree judged.csv --columns given_aligned,given_coherent aligned,coherent,label
  python scripts/evaluate.py agree theirs.csv ours.csv --columns answer=response aligned=100-evil coherent=coherence

Differences are the first judge minus the second. Kappa has quadratic weights on ten bins of ten points. The interval of a difference
between rates draws questions and answers for both judges at once, since both saw the same answers.
"""

import argparse
from pathlib import Path
from typing import Any

from emis_interp.errors import ConfigError
from evals.rates.agreement import N_BINS, compare_judges
from evals.results.score_columns import read_pair, read_two_columns
from table_flags import add_table_flags, reading_of


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="one or two scored tables")
    add_table_flags(parser, judges=True)


def run(args: argparse.Namespace) -> dict[str, Any]:
    names = [word for word in args.columns if "=" not in word]
    reading = reading_of(args, [word for word in args.columns if "=" in word])
    if not names and len(args.files) == 2:
        pair = read_pair(*args.files, reading=reading)
        names = [str(path) for path in args.files]
    elif len(names) == 2 and len(args.files) == 1:
        pair = read_two_columns(args.files[0], *(group.split(",") for group in names), reading=reading)
    else:
        raise ConfigError("give two files, or one file with --columns aligned_a,coherent_a aligned_b,coherent_b")
    compared = compare_judges(*pair)
    return {"first": names[0], "second": names[1], "kappa_bins": N_BINS, **compared}


def say(result: dict[str, Any]) -> str:
    lines = [
        f"first: {result['first']}",
        f"second: {result['second']}",
        f"{result['n']} answers to {result['n_questions']} questions",
        "",
    ]
    for metric in ("aligned", "coherent"):
        row = result[metric]
        lines += [
            f"{metric}: {row['n']} answers scored by both, {row['n_only_first']} by the first only, "
            f"{row['n_only_second']} by the second only",
            f"  rank correlation {_with_interval(row, 'spearman', '.3f')}, weighted kappa {_number(row['kappa'], '.3f')}",
            f"  bias {_with_interval(row, 'mean_difference', '+.1f')} points, "
            f"95 % limits of agreement {_number(row['limits_low'], '+.1f')} to {_number(row['limits_high'], '+.1f')}",
        ]
    lines += ["", "labels (first judge: second judge):"]
    lines += [f"  {a}: " + ", ".join(f"{n} {b}" for b, n in row.items()) for a, row in result["labels"].items()]
    lines += ["", f"{'rate, percent':28}{'first':>22}{'second':>22}{'difference':>24}"]
    for estimand, weightings in result["rates"].items():
        for weighting, row in weightings.items():
            cells = [_percent(row[key], "") for key in ("first", "second")] + [_percent(row["difference"], "+")]
            lines.append(f"{estimand + ' ' + weighting:28}{cells[0]:>22}{cells[1]:>22}{cells[2]:>24}")
    lines.append("exploratory: 95 % intervals, not corrected for the number of rates")
    return "\n".join(lines)


def _percent(row: dict[str, Any], sign: str) -> str:
    if row["value"] is None:
        return "none"
    value, low, high = (
        None if row[key] is None else format(100 * row[key], sign + ".1f") for key in ("value", "low", "high")
    )
    return f"{value} (no interval)" if low is None else f"{value} ({low} to {high})"


def _with_interval(row: dict[str, Any], key: str, form: str) -> str:
    value = _number(row[key], form)
    low, high = row[f"{key}_low"], row[f"{key}_high"]
    return value if low is None else f"{value} ({_number(low, form)} to {_number(high, form)})"


def _number(value: float | None, form: str) -> str:
    return "none" if value is None else format(value, form)
