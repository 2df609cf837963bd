"""Turns several run folders into one page that sets them side by side, and a file with its numbers."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from emis_interp.errors import ConfigError
from emis_interp.files.store import write_json, write_text
from emis_interp.files.text import written_out
from emis_interp.report.comparison import ComparedQuantity, compared, comparison_data, sentences, verdict_rows
from emis_interp.report.comparison_figure import forest_figure
from emis_interp.report.contents import Contents, load_contents
from emis_interp.report.html_page import render
from emis_interp.report.made_otherwise import made_otherwise
from emis_interp.report.page_frame import command_of, folder_name, frame_of, link_to, minute
from emis_interp.report.quantities import QUANTITIES, Quantity, model_name
from emis_interp.report.settings import PageSettings

_LONGEST = 80
"""Characters of the name of a page."""


def compare(settings: PageSettings) -> dict[str, Any]:
    """Write the page of `run_dir` and `others`; says what was found and where it is.

    Raises:
        ConfigError: a run is given twice. StageError, DataError: as `load_contents`.
    """
    assert settings.run_dir is not None
    folders = [settings.run_dir, *settings.others]
    check_different(folders)
    runs = {folder_name(folder, folders): load_contents(folder, answers=False) for folder in folders}
    page = settings.out or default_page(folders)
    numbers = page.with_suffix(".json")
    if numbers == page:
        raise ConfigError(f"--out {page}: is where the numbers go, too; give a page, such as compare.html")
    reports = {name: folder / "report" / "index.html" for name, folder in zip(runs, folders, strict=True)}
    links = {name: link_to(path, page) if path.is_file() else "" for name, path in reports.items()}
    frame = frame_of(page, command_of("scripts/build_report.py", settings), numbers)
    data = comparison_data(runs)
    write_json(numbers, data)
    write_text(page, written_out(compare_page(runs, links, frame=frame)))
    return {"comparison": data, "report": str(page), "data": str(numbers)}


def check_different(folders: Sequence[Path]) -> None:
    """Refuse a run that is given twice, by whatever path."""
    seen: dict[Path, Path] = {}
    for folder in folders:
        place = folder.resolve()
        if place in seen:
            also = "" if seen[place] == folder else f" (as {seen[place]} too)"
            raise ConfigError(
                f"{folder}: given twice{also}; a run has no difference from itself, give each folder once"
            )
        seen[place] = folder


def default_page(folders: Sequence[Path]) -> Path:
    """Beside the first run, called after all of them."""
    names = "-".join(re.sub(r"[^\w.+-]+", "_", folder.resolve().name) for folder in folders)
    return folders[0].absolute().parent / f"compare-{names[:_LONGEST]}.html"


def compare_page(runs: Mapping[str, Contents], links: Mapping[str, str], *, frame: Any) -> str:
    """The page; text in it is escaped.

    Args:
        links: run -> address of its report; empty where it has none.
    """
    found, figures = compared(runs), dict[str, go.Figure]()
    parts = [
        _part(quantity, [one for one in found if one.quantity is quantity], runs, figures=figures)
        for quantity in QUANTITIES
    ]
    return render(
        "compare.html",
        figures,
        title=f"Compare: {', '.join(runs)}",
        comparable=comparable_words(found),
        facts={},
        frame=frame,
        runs=[_run(name, contents, links[name]) for name, contents in runs.items()],
        verdicts=verdict_rows(runs),
        parts=parts,
        made=made_otherwise(runs),
    )


def _run(name: str, contents: Contents, report: str) -> dict[str, Any]:
    arms = ", ".join(contents.arms) or "no arms"
    facts = f"{model_name(contents)}; arms {arms}; started {minute(contents.manifest.started)}"
    return {"name": name, "facts": facts, "report": report, "n_notes": len(contents.notes)}


def comparable_words(found: Sequence[ComparedQuantity]) -> list[str]:
    """For each quantity that was measured, which runs stand together, and why others do not."""
    lines = []
    for quantity in QUANTITIES:
        own = [one.group for one in found if one.quantity is quantity]
        if own:
            rest = "".join(f"; apart {', '.join(group.runs)} ({'; '.join(group.apart)})" for group in own[1:])
            lines.append(f"{quantity.title}: {', '.join(own[0].runs)}{rest}.")
    return lines


def _part(
    quantity: Quantity,
    found: Sequence[ComparedQuantity],
    runs: Mapping[str, Contents],
    *,
    figures: dict[str, go.Figure],
) -> dict[str, Any]:
    """What the template shows of a quantity; its figures are put into `figures`."""
    shown = []
    for i, one in enumerate(found):
        figure = f"{quantity.key}_{i}"
        figures[figure] = forest_figure(one)
        rows = [row for contrast in one.contrasts for row in _rows(quantity, contrast)]
        shown.append(
            {
                "runs": one.group.runs,
                "apart": one.group.apart,
                "sentences": sentences(one),
                "figure": figure,
                "rows": rows,
            }
        )
    measured = {name for one in found for name in one.group.runs}
    caption = (
        f"Arm minus reference, {quantity.unit}, with 95 % intervals. Filled: against the control that the configuration names; hollow: "
        "against base, exploratory; grey: does not count (the table and the hover box say why). Right of 0: the arm is more misaligned. "
        "Intervals are not corrected for the number of contrasts."
    )
    return {
        "id": quantity.key,
        "title": quantity.title,
        "unit": quantity.unit,
        "caption": caption,
        "groups": shown,
        "without": [name for name in runs if name not in measured],
    }


def _rows(quantity: Quantity, found: Any) -> list[dict[str, str]]:
    differences = {one.run: one for one in found.differences}
    rows = []
    for name, row in found.rows.items():
        apart = differences.get(name)
        ends = (
            f"{quantity.said(apart.value)} [{quantity.said(apart.low)}, {quantity.said(apart.high)}]" if apart else ""
        )
        rows.append(
            {
                "contrast": found.name,
                "role": "primary" if found.primary else "exploratory",
                "run": name,
                "estimate": quantity.estimate(row),
                "doubt": found.doubts.get(name, ""),
                "counts": found.counts[name],
                "difference": ends,
                "how": apart.how if apart else "",
            }
        )
    return rows


def say(result: dict[str, Any]) -> str:
    lines = []
    for one in result["comparison"]["quantities"]:
        lines.append(f"{one['quantity']}: {', '.join(one['runs'])}")
        lines += [f"  not comparable with the first: {reason}" for reason in one["not_comparable_with_the_first"]]
        lines += [f"  {sentence}" for sentence in one["sentences"]]
    return "\n".join([*lines, f"report: {result['report']}"])
