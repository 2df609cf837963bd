"""Turns a run folder into report/index.html, one file that needs no network, and report/data.json, its numbers.

How model text is kept from doing anything: `report.html_page`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from emis_interp.files.store import write_json, write_text
from emis_interp.files.text import finite, written_out
from emis_interp.process import Bars, no_bars
from emis_interp.report import summary
from emis_interp.report.answer_pages import FOLDER, SidePage, address_of, answer_data, side_pages, write_side_pages
from emis_interp.report.answer_sample import MAX_ON_PAGE, sample, worst_of
from emis_interp.report.cards import cards, verdicts
from emis_interp.report.choices import choice_rows
from emis_interp.report.contents import Contents, load_contents
from emis_interp.report.entries import estimate_entry, missing
from emis_interp.report.figures import loss_figure, margin_groups_figure, margins_figure
from emis_interp.report.figures_direction import cosines_figure, layers_figure, projections_figure
from emis_interp.report.figures_interventions import ablation_figure, steering_figure
from emis_interp.report.figures_rates import (
    ESTIMANDS,
    WEIGHTINGS,
    calibration_figure,
    rates_figure,
    thresholds_figure,
)
from emis_interp.report.html_page import render
from emis_interp.report.organisms import organism_rows
from emis_interp.report.probes import monitor_rows, probe_rows, update_rows
from emis_interp.report.settings import PageSettings
from emis_interp.report.style import ArmStyle, arm_styles, number, percent, signed
from emis_interp.report.trust import judge_faults, warnings
from emis_interp.report.words import said
from emis_interp.results import CellView

WORST_INLINE = 3


def run(settings: PageSettings, bars: Bars = no_bars) -> dict[str, Any]:
    """Build the page of a run again; says where it is. Raises as `build_report`."""
    contents = load_contents(settings.run_dir)
    page = build_report(settings.run_dir, contents)
    return {
        "answers": verdicts(contents),
        "report": str(page),
        "data": str(page.with_name("data.json")),
        "n_bytes": page.stat().st_size,
    }


def say(result: dict[str, Any]) -> str:
    return said([f"{question} {verdict}" for question, verdict in result["answers"].items()], result["report"])


def build_report(run_dir: Path, contents: Contents | None = None) -> Path:
    """Write the page and the data file of a run, finished or not, and return the page's path.

    Args:
        contents: of the run, where they have been read.

    Raises:
        StageError: `run_dir` is no run folder, or cannot be written.
        DataError: the manifest, a summary or a file of analysis/ is malformed; single rows that cannot be read are named on the page.
    """
    contents = load_contents(run_dir) if contents is None else contents
    sides = side_pages(contents) if len(contents.answers) > MAX_ON_PAGE else []
    page = written_out(render_page(contents, sides))
    write_side_pages(run_dir / "report" / FOLDER, contents, sides)
    write_json(run_dir / "report" / "data.json", report_data(contents))
    path = run_dir / "report" / "index.html"
    write_text(path, page)
    return path


def report_data(contents: Contents) -> dict[str, Any]:
    """The numbers behind the page. The texts of the answers stay in samples/."""
    numbers = {
        "run": contents.name,
        "notes": contents.notes,
        "cards": [asdict(card) | {"strip": card.strip and card.strip.words} for card in cards(contents)],
        "warnings": warnings(contents),
        "manifest": contents.manifest_raw,
        "analysis": contents.analysis,
        "training": {run.arm: {"summary": run.summary_raw, "metrics": run.metrics} for run in contents.training},
        "scores": [answer.score.model_dump() for answer in contents.answers if answer.score is not None],
    }
    return finite(numbers)


def render_page(contents: Contents, sides: Sequence[SidePage] = ()) -> str:
    """The run's page.

    Args:
        sides: pages that hold every answer, where this one cannot.
    """
    shown = sample(contents.answers, MAX_ON_PAGE)
    faults = judge_faults(contents)
    return render(
        "template.html",
        drawn := figures(contents),
        filters={"number": number, "signed": signed, "percent": percent, "flat": flatten, "pretty": pretty},
        contents=contents,
        styles=styles_of(contents),
        cards=cards(contents),
        warnings=warnings(contents),
        doubted=bool(faults),
        judge_faults=faults,
        arm_rows=summary.arm_rows(contents),
        organism_rows=organism_rows(contents.organisms),
        choice_rows=choice_rows(contents),
        probe_rows=probe_rows(contents.probes),
        monitor_rows=monitor_rows(contents.probes),
        update_rows=update_rows(contents.probes),
        preset_rows=summary.preset_rows(contents),
        judge_rows=summary.judge_rows(contents),
        sentences=summary.sentences(contents),
        role=lambda row: summary.role(contents, row),
        entry=estimate_entry,
        missing=missing,
        signed=signed,
        percent=percent,
        score=lambda value: number(value, 1),
        estimands=ESTIMANDS,
        weightings=WEIGHTINGS,
        drawn=drawn,
        why_no_answers=why_no_answers,
        sampled="" if shown.whole else shown.words,
        side_pages=sides,
        side_folder=f"{FOLDER}/",
        worst=worst_of(contents.answers, WORST_INLINE),
        address_of=address_of,
        answer_json=answer_data(shown.answers, contents.arm_of, counted=contents.answers),
    )


def styles_of(contents: Contents) -> dict[str, ArmStyle]:
    """The style of every arm, which the arm's models share."""
    styles = arm_styles(contents.arms)
    return styles | {model: styles[arm] for model, arm in contents.arm_of.items()}


def figures(contents: Contents) -> dict[str, go.Figure]:
    """The figures for which there are numbers, by name."""
    direction, styles = contents.direction, styles_of(contents)
    drawn = {
        "rates": rates_figure(contents.rates, styles) if contents.rates and contents.rates.arms else None,
        "thresholds": thresholds_figure(contents.rates, styles) if contents.rates else None,
        "calibration": calibration_figure(contents.rates.judge) if contents.rates else None,
        "margins": margins_figure(contents.margins, styles)
        if contents.margins and contents.margins.contrasts
        else None,
        "margin_groups": margin_groups_figure(contents.margins, styles) if contents.margins else None,
        "layers": layers_figure(direction) if direction else None,
        "cosines": cosines_figure(direction, styles) if direction else None,
        "projections": projections_figure(direction.projections, styles)
        if direction and direction.projections
        else None,
        "steering": steering_figure(contents, styles),
        "ablation": ablation_figure(contents.interventions, styles) if contents.interventions else None,
        "loss": loss_figure(contents.training, styles),
    }
    return {name: figure for name, figure in drawn.items() if figure is not None}


def flatten(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """A nested mapping as (dotted key, text) rows."""
    if isinstance(value, Mapping):
        return [
            row for key, inner in value.items() for row in flatten(inner, f"{prefix}.{key}" if prefix else str(key))
        ]
    if isinstance(value, list):
        return [(prefix, ", ".join(_plain(item) for item in value))]
    return [(prefix, _plain(value))]


def _plain(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def why_no_answers(cell: CellView) -> str:
    """Why an intervention cell has no score."""
    return (
        "likelihood only: no answers were sampled in this cell"
        if cell.n == 0
        else f"none of the {cell.n} answers got a score"
    )
