"""Reads misalignment out of a model, and says what stands against each figure.

Examples:
  python scripts/probe.py weights --adapter runs/laptop/training/reckless/adapter --control runs/laptop/training/careful/adapter \\
      --direction directions/mine
"""

import cli
from probes.weights.settings import WeightsSettings

VERBS = {
    "weights": cli.Verb(WeightsSettings, "probes.weights.anatomy"),
}

if __name__ == "__main__":
    cli.run_verbs(__doc__, VERBS)
