"""The settings of what reads a run folder and shows it: the page and the tables, one frozen record each."""

from pathlib import Path

from emis_interp.config.flags import flag, settings


@settings
class PageSettings:
    """A run whose page is built again."""

    run_dir: Path = flag("folder of a run, finished or not", positional=True)
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
