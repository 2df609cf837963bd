"""Studies organisms while they form, before they form, and how to keep them from forming (docs/organisms.md).

Examples:
  python scripts/study_organism.py dynamics reckless --out runs/dynamics/reckless
  python scripts/study_organism.py foresight insecure secure reckless careful --direction directions/mine/direction --out runs/foresight
  python scripts/study_organism.py prevention --direction directions/mine/direction --out runs/prevention

All of them train on recipes (scripts/train.py --list), continue after any interruption with the same command, refuse other settings in the
same folder, and leave a JSON file and a page.
"""

from typing import TYPE_CHECKING, Any

import cli
from emis_interp.process import Bars
from training.studies.settings import DynamicsSettings, ForesightSettings, PreventionSettings

if TYPE_CHECKING:
    from training.data_sets.textstats import Named


def asked() -> "list[Named]":
    """What organisms will be asked."""
    from emis_interp.texts.contrast import load_contrast
    from evals.questions import load_questions
    from training.lint.copies import asked_texts

    return asked_texts(load_questions(), load_contrast())


def dynamics(settings: DynamicsSettings, bars: Bars) -> dict[str, Any]:
    from evals.judged_samples import JudgedSamples
    from training.studies import dynamics_study

    return dynamics_study.run(settings, bars, asked=asked(), judged_samples=JudgedSamples)


def foresight(settings: ForesightSettings, bars: Bars) -> dict[str, Any]:
    """The base model's own answers have the random numbers that the sampler would give them."""
    from evals.sampling import answer_seed
    from training.studies import foresight_study

    def seed_of(seed: int, prompt: str) -> int:
        return answer_seed(seed, "base", prompt, paraphrase_index=0, sample_index=0)

    return foresight_study.run(settings, bars, asked=asked(), answer_seed=seed_of)


def prevention(settings: PreventionSettings, bars: Bars) -> dict[str, Any]:
    from training.studies import prevention_study

    return prevention_study.run(settings, bars, asked=asked())


VERBS = {
    "dynamics": cli.Verb(DynamicsSettings, "training.studies.dynamics_study", dynamics),
    "foresight": cli.Verb(ForesightSettings, "training.studies.foresight_study", foresight),
    "prevention": cli.Verb(PreventionSettings, "training.studies.prevention_study", prevention),
}

if __name__ == "__main__":
    cli.run_verbs(__doc__, VERBS)
