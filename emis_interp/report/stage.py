"""The report stage of a run: one page of everything that the other stages made."""

from pathlib import Path
from typing import TYPE_CHECKING

from emis_interp.report.answer_pages import FOLDER
from emis_interp.report.cards import verdicts
from emis_interp.report.contents import load_contents
from emis_interp.report.page import build_report
from emis_interp.report.words import BETWEEN

if TYPE_CHECKING:
    from emis_interp.config.run_folder import RunFolder


def report(run: "RunFolder") -> tuple[list[Path], str]:
    """Build the page, from the records that are there; the line has the four questions' verdicts."""
    page = run.folder / "report" / "index.html"
    places = [page, page.with_name("data.json")]
    made = [run.folder / file for unit in run.manifest.files.values() for file in unit.files or {}]
    read = [path for path in made if path.suffix in (".json", ".jsonl") and path not in places]
    with run.files.making("report", [*places, page.with_name(FOLDER)], inputs=read, anew=True):
        contents = load_contents(run.folder)
        build_report(run.folder, contents)
    return places, BETWEEN.join(f"{question} {verdict}" for question, verdict in verdicts(contents).items())
