"""Simulates studies with question effects and counts how often each kind of 95 % interval covers the truth that was planted.

  python scripts/check_coverage.py
  python scripts/check_coverage.py --n-studies 200 --json

A study draws questions (and, in some designs, finetuning seeds) from a population, then answers. `limits` is the project's interval,
`bootstrap` the percentile interval of the hierarchical bootstrap, `naive` takes all answers for independent (Wilson's interval).
Designs with the effects `logit` draw question effects that are normal on the logit scale, which the beta-binomial model does not expect.
Means of scores, AUROCs within questions and rank correlations follow, with the jackknife beside the percentile interval, then margins of
arms with several finetuning seeds. `--runs FILE` instead prints how much of the variance lies between questions in real result files.
"""

import cli
from evals.settings import CoverageSettings

VERB = cli.Verb(CoverageSettings, "evals.verbs.coverage")

if __name__ == "__main__":
    cli.run_verb(VERB, __doc__)
