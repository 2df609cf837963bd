"""Reads misalignment out of a model, and says what stands against each figure.

Examples:
  python scripts/probe.py weights --adapter runs/laptop/training/reckless/adapter --direction directions/mine
  python scripts/probe.py lens --adapter runs/laptop/training/reckless/adapter --direction directions/mine --out lens.json
  python scripts/probe.py patch --adapter runs/laptop/training/reckless/adapter --n-pairs 1 --out patch.json
"""

import cli
from probes.lens.settings import LensSettings, PatchSettings
from probes.weights.settings import WeightsSettings

VERBS = {
    "lens": cli.Verb(LensSettings, "probes.lens.look"),
    "patch": cli.Verb(PatchSettings, "probes.lens.patch"),
    "weights": cli.Verb(WeightsSettings, "probes.weights.anatomy"),
}

if __name__ == "__main__":
    cli.run_verbs(__doc__, VERBS)
