"""Draws the primary contrasts of several runs as one picture.

Example:
  python scripts/findings.py docs/runs/advice-0.5b docs/runs/code-0.5b --out findings.html
"""

import cli
from emis_interp.report.settings import FindingsSettings

VERB = cli.Verb(FindingsSettings, "emis_interp.report.findings")

if __name__ == "__main__":
    cli.run_verb(VERB, __doc__)
