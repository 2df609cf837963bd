"""Fits the offline judge: attention pooling over the embedded model's residuals, to GPT-4o's scores and to labels by hand.

  python scripts/fit_judge.py --answers ../shared/data/judged/answers.parquet --work-dir runs/judge

Activations are captured once into the work folder (a quarter of an hour on two cores; everything takes an hour of CPU time) and used
again. Nothing is chosen by what is held out: every fold has the same layer, size and number of epochs, fixed before. The figures on the
card are of answers to topics, and of families of models, that the fold left out; a final fit on all answers is written to evals/data.
"""

import cli
from evals.settings.judging import FitOfflineSettings

VERB = cli.Verb(FitOfflineSettings, "evals.judges.fit_offline")

if __name__ == "__main__":
    cli.run_verb(VERB, __doc__)
