"""The settings of what reads a run folder and shows it: the page and the tables, one frozen record each."""

from pathlib import Path

from emis_interp.config.flags import flag, settings


@settings
class PageSettings:
    """A run whose page is built again, runs that are set side by side, or a folder whose runs are listed."""

    run_dir: Path | None = flag("folder of a run, finished or not", positional=True, default=None, metavar="RUN")
    others: tuple[Path, ...] = flag(
        "further runs: one page sets all of them side by side", positional=True, default=(), metavar="RUN"
    )
    index: Path | None = flag("list all runs in this folder, in DIR/index.html", default=None, metavar="DIR")
    out: Path | None = flag(
        "page of a comparison, its numbers beside it as JSON; without it compare-RUN-RUN.html beside the first run",
        default=None,
        metavar="FILE",
    )
    figures: tuple[str, str] | None = flag(
        "write every figure with its title and caption, and its numbers as CSV, into a folder; needs Chromium or Chrome",
        default=None,
        metavar=("svg|pdf", "DIR"),
    )


@settings
class RunTablesSettings:
    """A run whose figures become the tables of the README."""

    run_dir: Path = flag("folder of a finished run", positional=True)


@settings
class FindingsSettings:
    """Draws the primary contrasts of several runs beside each other: answers read by hand, likelihood margins, choices.

    Each row is an arm minus the control that its configuration names, with its 95 % interval and a dot for every finetuning seed. A
    harmless arm among them (a benign null) shows how far a measure moves without misalignment. What a run did not measure stays empty.
    """

    runs: tuple[Path, ...] = flag("folders of runs, or kept ones (docs/runs)", positional=True)
    out: Path = flag("HTML page, which opens without a network")
