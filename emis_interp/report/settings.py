"""The settings of what reads a run folder and shows it: the page and the tables, one frozen record each."""

from pathlib import Path

from emis_interp.config.flags import flag, settings


@settings
class PageSettings:
    """A run whose page is built again."""

    run_dir: Path = flag("folder of a run, finished or not", positional=True)


@settings
class RunTablesSettings:
    """A run whose figures become the tables of the README."""

    run_dir: Path = flag("folder of a finished run", positional=True)
