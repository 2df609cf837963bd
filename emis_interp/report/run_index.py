"""Turns a folder of runs into its index.html: a line for each run with its verdicts and its main contrast, and what could not be read."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emis_interp.errors import EmisError, StageError
from emis_interp.files.store import write_text
from emis_interp.files.text import written_out
from emis_interp.report.cards import cards
from emis_interp.report.contents import Contents, load_contents
from emis_interp.report.html_page import render
from emis_interp.report.page_frame import (
    MANIFEST,
    PageLink,
    command_of,
    frame_of,
    link_to,
    minute,
    page_title,
    without_machine_paths,
)
from emis_interp.report.quantities import main_contrasts, model_name
from emis_interp.report.settings import PageSettings
from emis_interp.report.trust import judge_faults

LAST_STAGE = "report"
"""A run whose manifest has it is finished."""
_DEPTH = 3
_MOST_CONTRASTS = 3


@dataclass(frozen=True)
class ReadRuns:
    """What a folder holds: runs by their place in it, why others cannot be read, and folders that are no runs."""

    runs: dict[str, Contents]
    unread: dict[str, str]
    others: list[Path]


def build_index(settings: PageSettings) -> dict[str, Any]:
    """Write `index.html` into the folder; says the verdicts of its runs and where the page is.

    Raises:
        StageError: no such folder, or one that is itself a run, or that holds nothing to list.
    """
    folder = settings.index
    assert folder is not None
    if not folder.is_dir():
        raise StageError(f"{folder}: no such folder; --index takes a folder that holds runs, e.g. runs")
    if (folder / MANIFEST).exists():
        raise StageError(
            f"{folder}: is a run itself; --index takes the folder that it lies in: {folder.resolve().parent}"
        )
    found = read_runs(folder)
    if not found.runs and not found.unread:
        raise StageError(
            f"{folder}: no run folder here (one with a {MANIFEST}); --index takes a folder that holds runs"
        )
    page = folder / "index.html"
    write_text(page, written_out(index_page(folder, found, command_of("scripts/build_report.py", settings))))
    runs = {name: {card.question: card.verdict for card in cards(contents)} for name, contents in found.runs.items()}
    return {"runs": runs, "unread": found.unread, "report": str(page)}


def read_runs(folder: Path) -> ReadRuns:
    """Every run in a folder, the newest first; answers are not read, which verdicts and contrasts do not need."""
    runs, unread, others = dict[str, Contents](), dict[str, str](), list[Path]()
    for place, is_run in _folders(folder, _DEPTH):
        if not is_run:
            others.append(place)
            continue
        name = place.relative_to(folder).as_posix()
        try:
            runs[name] = load_contents(place, answers=False)
        except (EmisError, OSError) as error:
            unread[name] = without_machine_paths(str(error).replace(str(place), name))
    newest = sorted(runs, key=lambda name: runs[name].manifest.started or "", reverse=True)
    return ReadRuns({name: runs[name] for name in newest}, unread, others)


def _folders(folder: Path, depth: int) -> Iterator[tuple[Path, bool]]:
    """Run folders, and the topmost folders in which there is none, each with whether it is a run."""
    for place in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        if (place / MANIFEST).exists():
            yield place, True
            continue
        below = list(_folders(place, depth - 1)) if depth > 1 else []
        if any(is_run for _, is_run in below):
            yield from below
        else:
            yield place, False


def index_page(folder: Path, found: ReadRuns, command: str) -> str:
    """The page; text in it is escaped."""
    page = folder / "index.html"
    rows = [_row(folder, name, contents) for name, contents in found.runs.items()]
    questions = [question for question, _ in rows[0]["verdicts"]] if rows else []
    unfinished = sum(not row["finished"] for row in rows)
    facts = {
        "runs": f"{len(rows)}, {unfinished} of them unfinished"
        + (f"; {len(found.unread)} cannot be read" if found.unread else ""),
    }
    return render(
        "index.html",
        {},
        title=f"Runs in {folder.resolve().name}",
        facts=facts,
        frame=frame_of(page, command),
        rows=rows,
        questions=questions,
        unread=list(found.unread.items()),
        others=[{"name": other.relative_to(folder).as_posix(), "pages": _pages(other, page)} for other in found.others],
    )


def _row(folder: Path, name: str, contents: Contents) -> dict[str, Any]:
    stages = contents.manifest.stages
    finished, report = LAST_STAGE in stages, folder / name / "report" / "index.html"
    last = next(reversed(stages.values())).finished if stages else None
    done = f"{len(stages)} stage{'s' * (len(stages) != 1)} done" + (
        f", the last is {next(reversed(stages))}" if stages else ""
    )
    main = main_contrasts(contents)
    shown = [
        {
            "name": f"{row.arm} − {row.reference}",
            "estimate": f"{what.estimate(row)} {what.unit}",
            "what": what.title.lower(),
        }
        for what, row in main[:_MOST_CONTRASTS]
    ]
    if len(main) > _MOST_CONTRASTS:
        shown[-1]["what"] += f"; {len(main) - _MOST_CONTRASTS} more contrasts in the run's report"
    faults = "the judge fails its control: rates are not evidence" if judge_faults(contents) else ""
    notes = f"{len(contents.notes)} notes on how its files came about" if contents.notes else ""
    return {
        "name": name,
        "report": link_to(report, folder / "index.html") if report.is_file() else "",
        "finished": finished,
        "state": f"finished {minute(last)}" if finished else f"unfinished: {done}",
        "mind": "; ".join(text for text in (faults, notes) if text),
        "model": model_name(contents),
        "arms": ", ".join(contents.arms),
        "started": minute(contents.manifest.started),
        "verdicts": [(card.question, card) for card in cards(contents)],
        "contrasts": shown,
        "no_contrast": "nothing that counts was measured of an arm and its control"
        if contents.contrast_arms
        else "no arm names a control",
    }


def _pages(folder: Path, page: Path) -> list[PageLink]:
    """Pages of the family that lie in a folder."""
    titles = ((path, page_title(path)) for path in sorted(folder.glob("*.html")))
    return [PageLink(link_to(path, page), title) for path, title in titles if title is not None]


def say(result: dict[str, Any]) -> str:
    lines = [f"{name}: {'; '.join(verdicts.values())}" for name, verdicts in result["runs"].items()]
    lines += [f"{name}: cannot be read: {reason}" for name, reason in result["unread"].items()]
    return "\n".join([*lines, f"report: {result['report']}"])
