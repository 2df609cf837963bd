"""Reads misalignment out of the residual stream, and says when that fails.

Examples:
  python scripts/probe.py fit --out probes/mine                                   shipped contrast pairs, embedded model
  python scripts/probe.py fit --judged answers.parquet --variants plain json template --where kind=sampled --out probes/judged

Methods, controls and figures: docs/probes_fit.md.
"""

import cli
from probes.classifiers.settings import ProbeFitSettings

VERBS = {
    "fit": cli.Verb(ProbeFitSettings, "probes.classifiers.fit"),
}

if __name__ == "__main__":
    cli.run_verbs(__doc__, VERBS)
