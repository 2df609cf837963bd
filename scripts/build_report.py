"""Turns a run folder into its report page again: `python scripts/build_report.py runs/quick`. No model is loaded."""

import cli
from emis_interp.report.settings import PageSettings

VERB = cli.Verb(PageSettings, "emis_interp.report.page")

if __name__ == "__main__":
    cli.run_verb(VERB, __doc__)
