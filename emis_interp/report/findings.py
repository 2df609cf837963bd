"""Turns the primary contrasts of several runs into one picture: three measures side by side, one row an arm minus its control."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots
from pydantic import BaseModel

from emis_interp.errors import StageError
from emis_interp.files.manifest import check_read
from emis_interp.files.store import read_record, write_text
from emis_interp.process import Bars, no_bars
from emis_interp.report.figure_page import figure_page
from emis_interp.report.page_frame import command_of, frame_of
from emis_interp.report.settings import FindingsSettings
from emis_interp.report.style import FAINT, INK, hover, layout
from emis_interp.stats.words import limits

CAPTION = (
    "Bars are 95 % intervals over questions (situations), wider by the draw of finetuning seeds where an arm has several; small dots are "
    "seeds. Filled: the interval leaves 0 out (not corrected for their number). An interval of one seed does not cover another run."
)


@dataclass(frozen=True)
class Measure:
    """A column of the picture.

    Attributes:
        file: analysis that holds it. estimate: key of the value there. scale: of the value, to what is shown.
    """

    title: str
    file: str
    estimate: str
    scale: float
    form: str


MEASURES = (
    Measure("misaligned answers, read by hand (points)", "hand_labels", "value", 100, "+.0f"),
    Measure("likelihood margin (nats per token)", "margins", "mean", 1, "+.3f"),
    Measure("misaligned action chosen (points)", "choices", "value", 100, "+.1f"),
)


class MeasuredContrast(BaseModel):
    """What is read of a contrast in an analysis; `mean` or `value` is its estimate."""

    arm: str
    reference: str
    low: float | None
    high: float | None
    mean: float | None = None
    value: float | None = None
    p_holm: float | None = None
    by_seed: dict[str, float | None] | None = None
    by_model: dict[str, float | None] | None = None


class MeasuredContrasts(BaseModel):
    contrasts: list[MeasuredContrast]


def run(settings: FindingsSettings, bars: Bars = no_bars) -> dict[str, Any]:
    """The contrasts by run, and the page.

    Raises:
        StageError: a folder without any of the analyses, or one that changed since its stage wrote it. DataError: one is damaged.
    """
    rows = {folder.name: contrasts(folder) for folder in settings.runs}
    facts = {name: ", ".join(dict.fromkeys(row["name"] for row in found)) for name, found in rows.items()}
    frame = frame_of(settings.out, command_of("scripts/findings.py", settings))
    sections = [("Contrasts", CAPTION, figure(rows))]
    write_text(settings.out, figure_page("Arms minus their controls", facts, sections, frame=frame))
    return {"runs": rows, "page": str(settings.out)}


def contrasts(folder: Path) -> list[dict[str, Any]]:
    """Primary contrasts of a run: those of its choices or margins (`p_holm`), and the same arms in what was read by hand."""
    paths = {measure.file: folder / "analysis" / f"{measure.file}.json" for measure in MEASURES}
    found = {name: path for name, path in paths.items() if path.exists()}
    if not found:
        raise StageError(f"{folder}: no {', '.join(paths)} under analysis; give folders of runs whose stages were made")
    check_read(folder, list(found.values()))
    tables = {name: read_record(path, MeasuredContrasts).contrasts for name, path in found.items()}
    primary = {(row.arm, row.reference) for table in tables.values() for row in table if row.p_holm is not None}
    if "hand_labels" in tables and len(tables) == 1:
        primary = {(row.arm, row.reference) for row in tables["hand_labels"] if row.reference != "base"}
    rows = []
    for measure in MEASURES:
        for row in tables.get(measure.file, ()):
            if (row.arm, row.reference) in primary and getattr(row, measure.estimate) is not None:
                rows.append({"name": f"{row.arm} − {row.reference}", "measure": measure.file, **shown(row, measure)})
    return rows


def shown(row: MeasuredContrast, measure: Measure) -> dict[str, Any]:
    """A contrast in the units of its column."""
    value = {"value": getattr(row, measure.estimate), "low": row.low, "high": row.high}
    seeds = row.by_seed or row.by_model or {}
    return {
        **{key: None if number is None else number * measure.scale for key, number in value.items()},
        "seeds": [number * measure.scale for number in seeds.values() if number is not None] if len(seeds) > 1 else [],
    }


def figure(rows: Mapping[str, list[dict[str, Any]]]) -> go.Figure:
    """A column for each measure that some run has; rows in the order of the runs, the first on top."""
    measures = [
        measure
        for measure in MEASURES
        if any(row["measure"] == measure.file for found in rows.values() for row in found)
    ]
    names = [(run, name) for run, found in rows.items() for name in dict.fromkeys(row["name"] for row in found)]
    labels = [f"{name}<br><span style='color:{FAINT}'>{run}</span>" for run, name in names]
    height = {key: len(names) - place for place, key in enumerate(names)}
    result = make_subplots(1, len(measures), shared_yaxes=True, horizontal_spacing=0.03)
    for column, measure in enumerate(measures, 1):
        for run, found in rows.items():
            for row in found:
                if row["measure"] == measure.file:
                    _add(result, row, height[run, row["name"]], column=column, form=measure.form)
        result.add_vline(0, line={"color": INK, "width": 1, "dash": "dot"}, row=1, col=column)  # pyright: ignore[reportArgumentType]
        result.update_xaxes(title_text=measure.title, row=1, col=column)
    ticks = {"tickvals": [height[key] for key in names], "ticktext": labels, "range": [0.4, len(names) + 0.6]}
    result.update_layout(layout(110 + 56 * len(names), showlegend=False))
    result.update_yaxes(**ticks)
    return result


def _add(result: go.Figure, row: Mapping[str, Any], y: int, *, column: int, form: str) -> None:
    said = f"{row['name']}: {row['value']:{form}} {limits(row, form)}"
    bar = None
    if row["low"] is not None:
        bar = {
            "array": [row["high"] - row["value"]],
            "arrayminus": [row["value"] - row["low"]],
            "thickness": 2,
            "width": 5,
        }
    away = row["low"] is not None and (row["low"] > 0 or row["high"] < 0)
    marker = {"size": 11, "color": INK if away else "white", "line": {"color": INK, "width": 2}}
    if row["seeds"]:
        dots = {"size": 6, "color": FAINT}
        place = [y - 0.28] * len(row["seeds"])
        result.add_scatter(x=row["seeds"], y=place, mode="markers", marker=dots, hoverinfo="x", row=1, col=column)
    result.add_scatter(
        x=[row["value"]],
        y=[y],
        mode="markers",
        error_x=bar and {**bar, "color": INK},
        marker=marker,
        hovertext=hover(said),
        hoverinfo="text",
        row=1,
        col=column,
    )


def say(result: dict[str, Any]) -> str:
    lines = []
    for name, found in result["runs"].items():
        lines.append(name)
        for measure in MEASURES:
            for row in found:
                if row["measure"] == measure.file:
                    lines.append(
                        f"  {measure.title}: {row['name']} {row['value']:{measure.form}} {limits(row, measure.form)}"
                    )
    return "\n".join([*lines, f"page: {result['page']}"])
