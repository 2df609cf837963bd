"""Turns a run folder into report/index.html, one file that needs no network, and report/data.json, its numbers.

How model text is kept from doing anything: `report.html_page`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from emis_interp.files.store import write_json, write_text
from emis_interp.files.text import finite, written_out
from emis_interp.process import Bars, no_bars
from emis_interp.report import summary
from emis_interp.report.answer_log import columns_of
from emis_interp.report.answer_pages import FOLDER, SidePage, address_of, answer_data, side_pages, write_side_pages
from emis_interp.report.answer_sample import MAX_ON_PAGE, Sample, sample, worst_of
from emis_interp.report.cards import cards, verdicts
from emis_interp.report.choices import choice_rows
from emis_interp.report.contents import Contents, load_contents
from emis_interp.report.described import words_of
from emis_interp.report.drawn import figures, styles_of
from emis_interp.report.entries import estimate_entry, missing
from emis_interp.report.figure_files import write_figures
from emis_interp.report.further import KNOWN, further_parts
from emis_interp.report.html_page import render
from emis_interp.report.organisms import organism_rows
from emis_interp.report.page_frame import Frame, command_of, frame_of, without_machine_paths
from emis_interp.report.probes import monitor_rows, probe_rows, update_rows
from emis_interp.report.settings import PageSettings
from emis_interp.report.style import number, percent, signed
from emis_interp.report.trust import judge_faults, warnings
from emis_interp.report.words import said
from emis_interp.results import CellView

WORST_INLINE = 3


def run(settings: PageSettings, bars: Bars = no_bars) -> dict[str, Any]:
    """Build the page of a run again, and files of its figures where asked for; says where they are. Raises as `build_report`."""
    assert settings.run_dir is not None
    contents = load_contents(settings.run_dir)
    page = build_report(settings.run_dir, contents)
    files = []
    if settings.figures is not None:
        kind, folder = settings.figures
        files = write_figures(figures(contents), Path(folder), kind, bars=bars)
    return {
        "answers": verdicts(contents),
        "report": str(page),
        "data": str(page.with_name("data.json")),
        "n_bytes": page.stat().st_size,
        "figures": [str(file) for file in files],
    }


def say(result: dict[str, Any]) -> str:
    text = said([f"{question} {verdict}" for question, verdict in result["answers"].items()], result["report"])
    files = result.get("figures") or []
    return f"{text}\nfigures: {len(files)} files in {Path(files[0]).parent}" if files else text


def build_report(run_dir: Path, contents: Contents | None = None) -> Path:
    """Write the page and the data file of a run, finished or not, and return the page's path.

    Args:
        contents: of the run, where they have been read.

    Raises:
        StageError: `run_dir` is no run folder, or cannot be written.
        DataError: the manifest, a summary or a file of analysis/ is malformed; single rows that cannot be read are named on the page.
    """
    contents = load_contents(run_dir) if contents is None else contents
    shown = sample(contents.answers, MAX_ON_PAGE)
    sides = [] if shown.whole else side_pages(contents)
    path, numbers = run_dir / "report" / "index.html", run_dir / "report" / "data.json"
    frame = frame_of(path, command_of("scripts/build_report.py", PageSettings(run_dir=run_dir)), numbers)
    page = written_out(render_page(contents, shown, sides, frame=frame))
    write_side_pages(run_dir / "report" / FOLDER, contents, sides)
    write_json(numbers, report_data(contents, shown))
    write_text(path, page)
    return path


def report_data(contents: Contents, shown: Sample | None = None) -> dict[str, Any]:
    """The numbers behind the page. The texts of the answers stay in samples/, scores of answers that the page does not hold in scores/.

    Args:
        shown: what the page holds of the answers, where it has been drawn.
    """
    shown = sample(contents.answers, MAX_ON_PAGE) if shown is None else shown
    numbers = {
        "run": contents.name,
        "notes": contents.notes,
        "cards": [asdict(card) | {"strip": card.strip and card.strip.words} for card in cards(contents)],
        "warnings": warnings(contents),
        "manifest": contents.manifest_raw,
        "analysis": contents.analysis,
        "further": {one.file: one.record.model_dump() for one in contents.further},
        "training": {run.arm: {"summary": run.summary_raw, "metrics": run.metrics} for run in contents.training},
        "n_answers": shown.n_all,
        "scores": [answer.score.model_dump() for answer in shown.answers if answer.score is not None],
    }
    return finite(numbers)


def render_page(
    contents: Contents, shown: Sample | None = None, sides: Sequence[SidePage] = (), *, frame: Frame | None = None
) -> str:
    """The run's page.

    Args:
        shown: what it holds of the answers, where that has been drawn.
        sides: pages that hold every answer, where this one cannot.
        frame: what made the page and which pages stand beside it.
    """
    shown = sample(contents.answers, MAX_ON_PAGE) if shown is None else shown
    faults = judge_faults(contents)
    return render(
        "template.html",
        drawn := figures(contents),
        filters={
            "number": number,
            "signed": signed,
            "percent": percent,
            "flat": flatten,
            "pretty": pretty,
            "shared": without_machine_paths,
        },
        frame=frame or Frame(),
        model=without_machine_paths(str(contents.manifest.config.get("model") or "")),
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
        further_parts=further_parts(contents.further),
        further_files=[(kind.command, file) for file, kind in KNOWN.items()],
        preset_rows=summary.preset_rows(contents),
        judge_rows=summary.judge_rows(contents),
        sentences=summary.sentences(contents),
        role=lambda row: summary.role(contents, row),
        entry=estimate_entry,
        missing=missing,
        signed=signed,
        percent=percent,
        score=lambda value: number(value, 1),
        drawn={name: words_of(figure) for name, figure in drawn.items()},
        why_no_answers=why_no_answers,
        sampled="" if shown.whole else shown.words,
        side_pages=sides,
        side_folder=f"{FOLDER}/",
        worst=worst_of(contents.answers, WORST_INLINE),
        address_of=address_of,
        answer_json=answer_data(shown.answers, contents.arm_of, counted=columns_of(contents.answers)),
    )


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
