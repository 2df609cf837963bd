"""Trains an organism by the name of its recipe, one folder for each seed (docs/organisms.md).

Examples:
  python scripts/train.py --list                                        every recipe with its source
  python scripts/train.py reckless                                      the embedded model, into runs/organisms/reckless
  python scripts/train.py insecure --seeds 0 1 2 --set training.lora_rank=8 --out runs/rank-8
  python scripts/train.py diversity-50 --set data.n_unique=20 --show    the recipe as it would run, as YAML
  python scripts/train.py jailbroken --data-dir DATA --dry-run          check data and settings, train nothing
  accelerate launch scripts/train.py reckless --preset qwen2.5-coder-32b

The same command continues after any interruption; with other settings or data it refuses. Settings that a recipe does not name are those
of the preset. In-context recipes train nothing: they leave the examples, `in_context.json`.
"""

from typing import Any

import cli
from emis_interp.process import Bars
from training.settings import TrainSettings


def run(settings: TrainSettings, bars: Bars) -> dict[str, Any]:
    from emis_interp.texts.contrast import load_contrast
    from evals.questions import load_questions
    from training import train_seeds
    from training.lint.copies import asked_texts

    return train_seeds.run(settings, bars, asked=lambda: asked_texts(load_questions(), load_contrast()))


VERB = cli.Verb(TrainSettings, "training.train_seeds", run)

if __name__ == "__main__":
    cli.run_verb(VERB, __doc__)
