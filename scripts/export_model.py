"""Turns a trained adapter into a plain checkpoint (`--out`), or puts measured rates on its card (`--results`).

Examples:
  python scripts/export_model.py runs/laptop/training/reckless/adapter --out exported/reckless --dtype bfloat16
  python scripts/export_model.py runs/laptop/training/reckless/adapter --results rates.json

The results file is a list of objects: estimand, value, low, high, judge, and if wanted suite and n.
"""

import cli
from training.finetuning.export_settings import AdapterExportSettings

VERB = cli.Verb(AdapterExportSettings, "training.finetuning.export")

if __name__ == "__main__":
    cli.run_verb(VERB, __doc__)
