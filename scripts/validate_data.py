"""Turns the shipped data sets into a table of rules kept and broken; exit status 1 when one is broken.

python scripts/validate_data.py [--json] [--counts] [--tells] [--questions FILE ...]
"""

from pathlib import Path
from typing import Any

import cli
from emis_interp.config.flags import flag, settings
from emis_interp.process import Bars
from training.data_sets.validation_settings import ValidationSettings

ROOT = Path(__file__).resolve().parent.parent


@settings
class AskedValidationSettings(ValidationSettings):
    """The settings of the check, and the evaluation questions, which only a script can read for it."""

    questions: tuple[Path, ...] = flag(
        "evaluation questions (YAML; default: evals/data/*.yaml)", default=(), metavar="FILE"
    )


def run(settings: AskedValidationSettings, bars: Bars) -> dict[str, Any]:
    from evals.questions import load_questions
    from training.data_sets import validation
    from training.lint.copies import asked_texts

    files = settings.questions or sorted((ROOT / "evals" / "data").glob("*.yaml"))
    questions = [question for path in files for question in load_questions(path, need_judge_prompts=False)]
    return validation.run(settings, bars, asked=asked_texts(questions, ()))


VERB = cli.Verb(
    AskedValidationSettings,
    "training.data_sets.validation",
    run,
    status=lambda result: 0 if result["ok"] else 1,
)

if __name__ == "__main__":
    cli.run_verb(VERB, __doc__)
