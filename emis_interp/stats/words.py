"""How commands say numbers: estimates with their intervals, AUROCs beside what length alone gives, p-values that know their floor."""

from collections.abc import Mapping
from typing import Any

from emis_interp.stats.permutation import NullP


def limits(row: Mapping[str, Any], form: str = ".3f", *, scale: float = 1.0, none: str = "no interval") -> str:
    """`[0.812, 0.931]`, as tables and pages say an interval; `none` where there is none."""
    if row.get("low") is None or row.get("high") is None:
        return none
    return f"[{format(scale * row['low'], form)}, {format(scale * row['high'], form)}]"


def bounds(row: Mapping[str, Any], form: str = ".3f", *, scale: float = 1.0, none: str = "") -> str:
    """` (0.812 to 0.931)`, as sentences say an interval; `none` where there is none."""
    if row.get("low") is None or row.get("high") is None:
        return none
    return f" ({format(scale * row['low'], form)} to {format(scale * row['high'], form)})"


def estimate(row: Mapping[str, Any], form: str = ".3f") -> str:
    """`0.863 (0.796 to 0.931)`; `none` without a value."""
    return "none" if row["value"] is None else f"{format(row['value'], form)}{bounds(row, form)}"


def spread(row: Mapping[str, float]) -> str:
    """Mean of draws with their 95 % range."""
    return f"{row['mean']:.3f} ({row['low']:.3f} to {row['high']:.3f})"


def length_alone(row: Mapping[str, Any]) -> str:
    """AUROC of the number of tokens, taken the way in which it separates: `0.679 (misaligned answers are shorter)`."""
    side = "longer" if row["value"] > 0.5 else "shorter" if row["value"] < 0.5 else "as long"
    return f"{max(row['value'], 1 - row['value']):.3f} (misaligned answers are {side})"


def length_words(row: Mapping[str, Any]) -> str:
    """What `length_baseline` found, in one line that stands under every AUROC of texts."""
    length, matched = row["length"], row["matched"]
    pairs = f"{matched['n_pairs']} pairs of equal length"
    if matched["value"] is not None:
        pairs = f"{pairs} {estimate(matched)}"
        if matched["n_questions"] < length["n_questions"]:
            pairs += f" in {matched['n_questions']} of {length['n_questions']} questions"
    return f"length alone {length_alone(length)}, length regressed out {estimate(row['regressed'])}, {pairs}"


def p_of(row: Mapping[str, Any], prefix: str, drawn: str = "permutations") -> str:
    """The p-value of a row with the keys of `NullP.as_json` behind `prefix`."""
    return NullP(row[f"{prefix}p"], row[f"{prefix}p_n"]).words(drawn)


def report_words(row: Mapping[str, Any]) -> str:
    """The primary AUROC of a fit beside its control, with the verdict."""
    value = {"value": row["auroc"], "low": row["low"], "high": row["high"]}
    return f"AUROC {estimate(value)}; {control_words(row)}"


def control_words(row: Mapping[str, Any]) -> str:
    """What directions of shuffled labels reach on the same texts, and the verdict that this gives."""
    return (
        f"shuffled labels {row['shuffled_auroc']:.3f}, up to {row['shuffled_high']:.3f} (97.5th percentile), "
        f"{p_of(row, 'shuffled_')}: {row['verdict']}"
    )
