"""Turns a run folder into the Markdown tables of the README: python scripts/summary_table.py RUN_DIR"""

import cli
from emis_interp.report.settings import RunTablesSettings

VERB = cli.Verb(RunTablesSettings, "emis_interp.report.run_tables")

if __name__ == "__main__":
    cli.run_verb(VERB, __doc__)
