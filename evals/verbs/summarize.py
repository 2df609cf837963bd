"""Turns a result file or a run folder into every rate, with its name and interval."""

from typing import Any

import numpy as np

from emis_interp.process import Bars, no_bars
from evals.names import WEIGHTINGS
from evals.rates import estimands, uncertainty
from evals.results.result_files import chosen_results, write_results
from evals.results.result_table import METRICS, Results
from evals.settings import SummarizeSettings


def run(settings: SummarizeSettings, bars: Bars = no_bars) -> dict[str, Any]:
    """Rates in [0, 1]; `value`, `low` and `high` are None where the data give none, and `methods` says why."""
    results = chosen_results(settings.file, settings)
    names = settings.estimand or list(estimands.ESTIMANDS)
    found: dict[str, Any] = {"file": str(settings.file), "variant": settings.variant}
    found |= {"runs": {}, "methods": {}, "counts": {}}
    with bars("summarize", len(results.run_names)) as advance:
        for name in results.run_names:
            answers = results.judged(name)
            intervals = {
                estimand: {
                    weighting: uncertainty.rate_interval(
                        answers,
                        estimands.ESTIMANDS[estimand],
                        weighting,
                        method=settings.interval,
                        population=settings.population,
                        n_bootstrap=settings.n_bootstrap,
                        seed=settings.seed,
                    )
                    for weighting in WEIGHTINGS
                }
                for estimand in names
            }
            found["runs"][name] = _each(intervals, lambda i: {"value": i.value, "low": i.low, "high": i.high, "n": i.n})
            found["methods"][name] = _each(intervals, lambda i: i.method)
            found["counts"][name] = counts(results, name)
            advance()
    if settings.sensitivity:
        found["sensitivity"] = {name: estimands.sensitivity_table(results.judged(name)) for name in results.run_names}
    if settings.to is not None:
        write_results(results, settings.to)
        found["written"] = str(settings.to)
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
