"""Turns the finished cells of a sweep into the figures that a reader looks at first, side by side."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from emis_interp.errors import EmisError
from emis_interp.files.table_output import write_rows
from emis_interp.progress import clock
from emis_interp.report.contents import load_contents
from emis_interp.report.quantities import main_contrasts
from emis_interp.report.style import MISSING
from emis_interp.sweeping.sweep_folder import SweepFolder

TABLE = "table.csv"
COLUMNS = ("cell", "quantity", "arm", "reference", "value", "low", "high", "unit", "said")


def figures_of(folder: SweepFolder) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Rows of the main contrasts (`report.quantities`) of every finished cell, and cells that cannot be read with the reason.

    Returns:
        Of each row `cell`, its `axes`, `quantity`, `arm`, `reference`, and `value`, `low` and `high` in the scale of the run's
        own files; `said` has them in `unit`.
    """
    rows, unread = list[dict[str, Any]](), dict[str, str]()
    for cell in folder.sweep.cells:
        if folder.states[cell.name].status != "done":
            continue
        try:
            contents = load_contents(folder.run_dir(cell.name), answers=False)
        except EmisError as error:
            unread[cell.name] = str(error)
            continue
        for quantity, row in main_contrasts(contents):
            numbers = {"value": row.value, "low": row.low, "high": row.high}
            named = {"quantity": quantity.key, "arm": row.arm, "reference": row.reference}
            said = {"title": quantity.title, "unit": quantity.unit, "said": quantity.estimate(row)}
            rows.append({"cell": cell.name, "axes": cell.labels, **named, **numbers, **said})
    return rows, unread


def write_table(path: Path, folder: SweepFolder, rows: list[dict[str, Any]]) -> None:
    """The same as CSV, a column for every axis."""
    axes = list(folder.sweep.axes)
    flat = [{**row["axes"], **{name: row[name] for name in COLUMNS}} for row in rows]
    write_rows(path, ["cell", *axes, *COLUMNS[1:]], flat, source=folder.folder)


def lines_of(cells: Mapping[str, Mapping[str, Any]], rows: list[dict[str, Any]]) -> Iterator[str]:
    """The cells with their times, then every contrast with a line for each cell that has it."""
    width = max(len(name) for name in cells)
    for name, state in cells.items():
        took = MISSING if state["seconds"] is None else clock(state["seconds"])
        again = f"  attempt {state['attempts']}" if state["attempts"] > 1 else ""
        error = f"  {state['error']}" if state["error"] else ""
        yield f"  {name:{width}}  {state['status']:7} {took:>7}{again}{error}"
    contrasts = dict.fromkeys((row["quantity"], row["arm"], row["reference"]) for row in rows)
    for key in contrasts:
        found = [row for row in rows if (row["quantity"], row["arm"], row["reference"]) == key]
        yield f"{key[1]} − {key[2]}, {found[0]['title']} ({found[0]['unit']})"
        for row in found:
            yield f"  {row['cell']:{width}}  {row['said']}"
