"""Turns the analyses of a finished run into Markdown tables, and the sentences that belong under them."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from emis_interp.errors import StageError
from emis_interp.files.damage import naming_damage
from emis_interp.files.manifest import MANIFEST, check_read, read_manifest
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
    """The cells of every table that the finished stages of a run have something for, by what it shows.

    Raises:
        StageError: an analysis changed since its stage wrote it, or there is none. DataError: one cannot be read.
    """
    folder = settings.run_dir
    paths = {name: folder / "analysis" / f"{name}.json" for name in CELLS}
    found = {name: path for name, path in paths.items() if path.exists()}
    if not found:
        raise StageError(f"{folder}: no analysis there; give the folder of a run whose stages were made")
    manifest = folder / MANIFEST
    check_read(folder, [*found.values(), manifest])
    result: dict[str, Any] = {}
    for name, path in found.items():
        with naming_damage(path, "run the stage that writes it again"):
            result |= CELLS[name](read_object(path))
    if manifest.exists():
        with naming_damage(manifest, "put back a copy"):
            stages = read_manifest(folder)["stages"]
            if stages:
                result["seconds"] = {name: stage["seconds"] for name, stage in stages.items()}
                result["peak_rss_gib"] = max(stage["peak_rss_gib"] for stage in stages.values())
    return result


def organism_cells(found: dict[str, Any]) -> dict[str, Any]:
    """What analysis/organisms.json says."""
    return {
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
            for one in found["organisms"]
        ]
    }


def rate_cells(found: dict[str, Any]) -> dict[str, Any]:
    """What analysis/rates.json says."""
    rates = as_record(found, Rates, "analysis/rates.json").shown()
    return {
        "rates": [
            [
                arm.arm + seeds(arm.rates[0].model_dump()) + (f" ({arm.labelled} of {arm.n})" if arm.labelled else ""),
                *(rate(arm, name) for name in ("em_of_coherent", "em_of_all")),
            ]
            for arm in rates.arms
        ]
    }


def margin_cells(found: dict[str, Any]) -> dict[str, Any]:
    """What analysis/margins.json says."""
    rows, base = found["contrasts"], list(found["arms"]["base"].values())
    return {
        "margins": [[contrast(row), shift(row), positive(row), corrected_p(row)] for row in rows],
        "base_negative": f"{sum(value < 0 for value in base)} of {len(base)}",
        "flattening": [[contrast(row), *flattened(row["flattening"])] for row in rows if row.get("flattening")],
        "strata": [
            [contrast(row), *(shift(one) for one in row["by_base_margin"])] for row in rows if row.get("by_base_margin")
        ],
        "stratum_names": [
            f"base {one['base_low']:+.2f} to {one['base_high']:+.2f}" for one in rows[0].get("by_base_margin", [])
        ],
        "groups": [
            [contrast(row), *(shift(group) for group in row["by_group"].values())]
            for row in rows
            if row["reference"] != "base"
        ],
        "group_names": list(rows[0]["by_group"]),
    }


def choice_cells(found: dict[str, Any]) -> dict[str, Any]:
    """What analysis/choices.json says."""
    return {
        "choices": [[arm, share(row["share"]), f"{100 * row['mass']:.0f} %"] for arm, row in found["arms"].items()],
        "choice_contrasts": [[contrast(row), share(row, "+.1f"), corrected_p(row)] for row in found["contrasts"]],
    }


def direction_cells(found: dict[str, Any]) -> dict[str, Any]:
    """What analysis/direction.json says."""
    return {"direction": {"layer": found["chosen_layer"], **found["report"]}}


def intervention_cells(found: dict[str, Any]) -> dict[str, Any]:
    """What analysis/interventions.json says."""
    return {
        "cells": [
            [row["cell"], shift(row["margin_shift"]), positive(row["margin_shift"]), f"{row['kl_neutral']:.3f}"]
            for row in found["cells"]
        ],
        "draws": [
            [row["cell"], f"{row['draws']['own']:+.3f}", draw_words(Draws.model_validate(row["draws"]))]
            for row in found["cells"]
            if row.get("draws")
        ],
        "interactions": [
            [contrast(row), bounded(row)] for row in found.get("interactions", []) if row["value"] is not None
        ],
    }


def hand_label_cells(found: dict[str, Any]) -> dict[str, Any]:
    """What analysis/hand_labels.json says (`evaluate.py labels --json`)."""
    many = len({row["model"] for row in found["groups"]}) > 1

    def model_of(row: dict[str, Any]) -> str:
        return f"{row['model']}, " if many else ""

    return {
        "read": [
            [
                model_of(row) + row["arm"] + (f" ({row['n_models']} seeds)" if row["n_models"] > 1 else ""),
                *(f"{row[key]} of {row['n']}" for key in ("n_coherent", "n_misaligned")),
                row["misaligned_of_coherent"],
            ]
            for row in found["groups"]
        ],
        "read_contrasts": [
            [
                model_of(row) + contrast(row),
                share(row, "+.0f")
                if row["arm_at_most"] is None
                else f"{100 * row['value']:+.0f} (the arm at most {100 * row['arm_at_most']:.0f} % of answers)",
                row["counts"],
                ", ".join(f"{100 * value:+.0f}" for value in row["by_seed"].values()),
            ]
            for row in found["contrasts"]
        ],
    }


CELLS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "hand_labels": hand_label_cells,
    "organisms": organism_cells,
    "rates": rate_cells,
    "margins": margin_cells,
    "choices": choice_cells,
    "direction": direction_cells,
    "interventions": intervention_cells,
}


def say(result: dict[str, Any]) -> str:
    parts: list[str] = []

    def table(name: str, *head: str) -> None:
        if result.get(name):
            parts.append(markdown_table(head, result[name]))

    table("read", "answers read by hand", "coherent", "misaligned", "misaligned of coherent")
    table("read_contrasts", "misaligned by hand", "points", "answers", "by seed")
    table("organisms", "organism", "learned of its own kind", "KL to base", "entropy", "items passed")
    table("margins", "likelihood margin, nats per token", "shift", "questions positive", "p, primary (Holm)")
    if "margins" in result:
        many = any("seeds)" in row[0] for row in result["margins"])
        parts += [
            PRIMARY,
            f"Base prefers the aligned answer on {result['base_negative']} questions, so whatever flattens a model raises its margin.",
            *([] if many else [ONE_RUN]),
        ]
        table("flattening", "against base", "slope", "at base margin 0", "base flattened as much", "beyond flattening")
        table("strata", "thirds of the pairs by base's own margin", *result["stratum_names"])
        table("groups", "by question group", *result["group_names"])
    table("choices", "choices", "misaligned action preferred", "answers that are a letter")
    table("choice_contrasts", "choices, arm against arm", "points", "p, primary (Holm)")
    table("rates", "arm", "em_of_coherent, pooled", "em_of_all, pooled")
    if "direction" in result:
        found = result["direction"]
        parts.append(
            f"Direction: layer {found['layer']}, {report_words(found)}; {length_words(found['length_baseline'])}."
        )
    table("cells", "intervention", "margin shift", "questions positive", "KL on harmless prompts")
    table("draws", "intervention", "shift on a few pairs", "the same along control directions")
    table("interactions", "ablation", "beyond random directions, arm − control")
    if "cells" in result:
        parts.append(ONE_DRAW)
    if "seconds" in result:
        parts.append(f"Seconds: {result['seconds']}; peak memory {result['peak_rss_gib']} GiB.")
    return "\n\n".join(parts)


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


def share(row: dict[str, Any], form: str = ".1f") -> str:
    """A share or a difference of shares in percent points with its interval."""
    return f"{100 * row['value']:{form}} {limits(row, form, scale=100)}"


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
