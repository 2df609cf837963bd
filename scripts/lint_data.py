"""Turns training sets into lint reports before anything is trained on them: what the trainer would really read, and what is wrong with it.

  python scripts/lint_data.py DATA ... [--model NAME] [--max-tokens N] [--questions FILE ...] [--paired-with DATA] [--out DIR] [--json]

DATA is a shipped set (insecure, secure, educational, careful, reckless) or a file of rows in any format of docs/data.md. With --out a
set's report is written to DIR/lint.json and DIR/lint.html, with several sets to DIR/<name>/. Exit status: 0 nothing worse than
warnings, 2 errors found.
"""

from pathlib import Path
from typing import Any

import cli
from emis_interp.config.flags import flag, settings
from emis_interp.process import Bars
from training.lint.settings import LintSettings


@settings
class AskedLintSettings(LintSettings):
    """The lint's settings, and the questions that the organism will be asked, which only a script can read for it."""

    questions: tuple[str, ...] = flag(
        "evaluation questions: YAML files, and `shipped` for our own suite; the contrast questions are always added",
        default=("shipped",),
        metavar="FILE",
    )


def run(settings: AskedLintSettings, bars: Bars) -> dict[str, Any]:
    from emis_interp.texts.contrast import load_contrast
    from evals.questions import load_questions
    from training.lint import sets
    from training.lint.copies import asked_texts

    files = [None if name == "shipped" else Path(name) for name in settings.questions]
    questions = [question for file in files for question in load_questions(file, need_judge_prompts=False)]
    return sets.run(settings, bars, asked=asked_texts(questions, load_contrast()))


VERB = cli.Verb(AskedLintSettings, "training.lint.sets", run, status=lambda result: 0 if result["ok"] else 2)

if __name__ == "__main__":
    cli.run_verb(VERB, __doc__)
