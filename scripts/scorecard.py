"""Sets a run beside published values of the same model, finetune, suite, variant and estimand, with a verdict per value.

Examples:
  python scripts/scorecard.py runs/qwen2.5-coder-32b
  python scripts/scorecard.py result.csv --model Qwen2.5-Coder-32B-Instruct --finetune insecure --suite main8 --json
"""

import cli
from evals.settings import ScorecardSettings

VERB = cli.Verb(ScorecardSettings, "evals.verbs.scorecard")

if __name__ == "__main__":
    cli.run_verb(VERB, __doc__)
