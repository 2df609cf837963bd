"""Turns a run folder into its report page again, or several into one page that compares them, or lists them. No model is loaded.

Examples:
  python scripts/build_report.py runs/laptop                     runs/laptop/report/index.html
  python scripts/build_report.py runs/laptop runs/laptop-seed1   side by side: verdicts, contrasts, differing configuration
  python scripts/build_report.py --index runs                    runs/index.html: every run with its verdicts
"""

import cli
from emis_interp.report.settings import PageSettings

VERB = cli.Verb(PageSettings, "emis_interp.report.build")

if __name__ == "__main__":
    cli.run_verb(VERB, __doc__)
