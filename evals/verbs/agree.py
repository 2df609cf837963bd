"""Turns two judges' scores of the same answers into their agreement, and every rate under each of them."""

from typing import Any

from emis_interp.errors import ConfigError
from emis_interp.process import Bars, no_bars
from evals.rates.agreement import N_BINS, compare_judges
from evals.results.score_columns import read_pair, read_two_columns
from evals.settings import AgreeSettings


def run(settings: AgreeSettings, bars: Bars = no_bars) -> dict[str, Any]:
    """Agreement of two files, or of two sets of columns of one."""
    names = [word for word in settings.columns if "=" not in word]
    reading, files = settings.reading([word for word in settings.columns if "=" in word]), settings.files
    if not names and len(files) == 2:
        pair = read_pair(*files, reading=reading)
        names = [str(path) for path in files]
    elif len(names) == 2 and len(files) == 1:
        pair = read_two_columns(files[0], *(group.split(",") for group in names), reading=reading)
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
