"""Turns the settings of `scripts/build_report.py` into what was asked for: a run's page, a comparison of runs, or a list of runs."""

from typing import Any

from emis_interp.errors import ConfigError
from emis_interp.process import Bars, no_bars
from emis_interp.report import compare, page, run_index
from emis_interp.report.settings import PageSettings


def run(settings: PageSettings, bars: Bars = no_bars) -> dict[str, Any]:
    """Build one page; the result says where it is.

    Raises:
        ConfigError: settings that do not go together, or nothing to build.
    """
    if settings.index is not None:
        if settings.run_dir is not None or settings.out is not None:
            raise ConfigError("--index DIR: writes DIR/index.html and takes no runs and no --out; give it alone")
        return run_index.build_index(settings)
    if settings.run_dir is None:
        raise ConfigError(
            "nothing to build: give a run (runs/laptop), several to compare them, or --index runs to list all"
        )
    if settings.others:
        return compare.compare(settings)
    if settings.out is not None:
        raise ConfigError(
            f"--out {settings.out}: is for a comparison of two runs or more; the page of one run is written to its report/index.html"
        )
    return page.run(settings, bars)


def say(result: dict[str, Any]) -> str:
    if "comparison" in result:
        return compare.say(result)
    return run_index.say(result) if "runs" in result else page.say(result)
