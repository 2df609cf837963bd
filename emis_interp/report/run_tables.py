"""Turns the analyses of a finished run into Markdown tables, and the sentences that belong under them."""

from collections.abc import Iterable, Sequence
from typing import Any

from emis_interp.files.manifest import check_read
from emis_interp.files.store import as_record, read_object
from emis_interp.process import Bars, no_bars
from emis_interp.report.settings import RunTablesSettings
from emis_interp.report.summary import draw_words
from emis_interp.results import ArmRates, Draws, Rates
from emis_interp.stats.words import length_words, limits, report_words

PRIMARY = (
    "Primary: an arm minus the control that its configuration names, with p-values that are corrected for the number of these contrasts. "
    "All other rows are exploratory, and no interval is corrected for their number. A shift against base is a finding only beyond "
    "flattening (next table)."
)
ONE_DRAW = (
    "Rows called random: one draw of a direction, whose interval is over questions and not over draws; many draws stand in the table of "
    "control directions."
)
ONE_RUN = "Arms without seeds are one finetuning run each; intervals do not cover what another run of the same recipe would change."


def run(settings: RunTablesSettings, bars: Bars = no_bars) -> dict[str, Any]:
    """The cells of every table, by what it shows.

    Raises:
        StageError: an analysis changed since its stage wrote it. DataError: one is missing or cannot be read.
    """
    folder = settings.run_dir
    names = ("margins", "rates", "direction", "interventions")
    paths = [folder / "analysis" / f"{name}.json" for name in names] + [folder / "manifest.json"]
    check_read(folder, paths)
    margins, raw_rates, direction, interventions, manifest = map(read_object, paths)
    checks = folder / "analysis" / "organisms.json"
    organisms = read_object(checks)["organisms"] if checks.exists() else []
    rates = as_record(raw_rates, Rates, str(paths[1])).shown()
    stages, base = manifest["stages"], list(margins["arms"]["base"].values())
    return {
        "margins": [[contrast(row), shift(row), positive(row), corrected_p(row)] for row in margins["contrasts"]],
        "base_negative": f"{sum(value < 0 for value in base)} of {len(base)}",
        "flattening": [
            [contrast(row), *flattened(row["flattening"])] for row in margins["contrasts"] if row.get("flattening")
        ],
        "strata": [
            [
                contrast(row),
                *(
                    f"{shift(one)} (base {one['base_low']:+.2f} to {one['base_high']:+.2f})"
                    for one in row["by_base_margin"]
                ),
            ]
            for row in margins["contrasts"]
            if row.get("by_base_margin")
        ],
        "groups": [
            [contrast(row), *(shift(group) for group in row["by_group"].values())]
            for row in margins["contrasts"]
            if row["reference"] != "base"
        ],
        "group_names": list(next(iter(margins["contrasts"]))["by_group"]),
        "organisms": [
            [
                one["arm"],
                bounded(one["learned"]["specific"])
                if one["learned"].get("specific")
                else f"– ({one['learned']['reason']})",
                bounded(one["cost"]["kl"], ".2f"),
                f"{one['cost']['entropy']:.2f} (base {one['cost']['base_entropy']:.2f})",
                f"{100 * one['cost']['capability']['value']:+.1f} points",
            ]
            for one in organisms
        ],
        "rates": [
            [arm.arm + seeds(arm.rates[0].model_dump()), *(rate(arm, name) for name in ("em_of_coherent", "em_of_all"))]
            for arm in rates.arms
        ],
        "direction": {"layer": direction["chosen_layer"], **direction["report"]},
        "cells": [
            [row["cell"], shift(row["margin_shift"]), positive(row["margin_shift"]), f"{row['kl_neutral']:.3f}"]
            for row in interventions["cells"]
        ],
        "draws": [
            [row["cell"], f"{row['draws']['own']:+.3f}", draw_words(Draws.model_validate(row["draws"]))]
            for row in interventions["cells"]
            if row.get("draws")
        ],
        "interactions": [
            [contrast(row), bounded(row)] for row in interventions.get("interactions", []) if row["value"] is not None
        ],
        "seconds": {name: stage["seconds"] for name, stage in stages.items()},
        "peak_rss_gib": max(stage["peak_rss_gib"] for stage in stages.values()),
    }


def say(result: dict[str, Any]) -> str:
    found = result["direction"]
    return "\n\n".join(
        [
            markdown_table(
                ["likelihood margin, nats per token", "shift", "questions positive", "p, primary (Holm)"],
                result["margins"],
            ),
            PRIMARY,
            f"Base prefers the aligned answer on {result['base_negative']} questions, so whatever flattens a model raises its margin.",
            *([] if any("seeds)" in row[0] for row in result["margins"]) else [ONE_RUN]),
            markdown_table(
                ["against base", "slope", "at base margin 0", "base flattened as much", "beyond flattening"],
                result["flattening"],
            ),
            markdown_table(["by base's own margin", "lowest third", "middle", "highest third"], result["strata"]),
            markdown_table(["by question group", *result["group_names"]], result["groups"]),
            *(
                [
                    markdown_table(
                        ["organism", "learned of its own kind", "KL to base", "entropy", "items passed"],
                        result["organisms"],
                    )
                ]
                if result["organisms"]
                else []
            ),
            markdown_table(["arm", "em_of_coherent, pooled", "em_of_all, pooled"], result["rates"]),
            f"Direction: layer {found['layer']}, {report_words(found)}; {length_words(found['length_baseline'])}.",
            markdown_table(
                ["intervention", "margin shift", "questions positive", "KL on harmless prompts"], result["cells"]
            ),
            markdown_table(
                ["intervention", "shift on a few pairs", "the same along control directions"], result["draws"]
            ),
            markdown_table(["ablation", "beyond random directions, arm − control"], result["interactions"]),
            ONE_DRAW,
            f"Seconds: {result['seconds']}; peak memory {result['peak_rss_gib']} GiB.",
        ]
    )


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """One line for the head, one for the rule and one for each row."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def contrast(row: dict[str, Any]) -> str:
    return f"{row['arm']} − {row['reference']}{seeds(row)}"


def seeds(row: dict[str, Any]) -> str:
    """How many models a figure is the mean of; empty for one."""
    n = len(row.get("by_model", {}))
    return f" ({n} seeds)" if n > 1 else ""


def shift(row: dict[str, Any]) -> str:
    """`+0.075 [+0.050, +0.100]`, nats per token."""
    return f"{row['mean']:+.3f} {limits(row, '+.3f')}"


def flattened(row: dict[str, Any]) -> list[str]:
    """Slope and intercept on base's margins, base at the matched temperature, and what is beyond it."""
    line = [bounded(row["slope"], ".2f"), bounded(row["intercept"])]
    if row["temperature"] is None:
        return [*line, "none", "–"]
    return [*line, f"{row['matched_shift']:+.3f} (temperature {row['temperature']:.2f})", bounded(row["beyond"])]


def bounded(row: dict[str, Any], form: str = "+.3f") -> str:
    return f"{row['value']:{form}} {limits(row, form)}"


def corrected_p(row: dict[str, Any]) -> str:
    """Holm's p of a primary contrast; a dash for exploratory ones."""
    return "–" if row.get("p_holm") is None else f"{row['p_holm']:.2g}"


def positive(row: dict[str, Any]) -> str:
    return f"{row['n_positive']} of {row['n_questions']}"


def rate(arm: ArmRates, estimand: str) -> str:
    """`9.8 % [4.6 %, 24.9 %], 4 of 41`, or why there is none."""
    row = next(r for r in arm.rates if r.estimand == estimand and r.weighting == "pooled")
    if row.value is None:
        return f"– ({arm.too_incoherent})" if arm.too_incoherent else "–"
    return f"{row.value:.1%} {limits(row.model_dump(), '.1%')}, {row.n_positive} of {row.n}"
