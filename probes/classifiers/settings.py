"""The settings of `scripts/probe.py fit`; the docstring is the help of the verb."""

from pathlib import Path

from emis_interp.config.flags import flag, settings
from emis_interp.config.model_settings import ModelSettings
from emis_interp.config.table_settings import ArmSettings, ScoreTableSettings

METHOD_NAMES = ("difference", "mass_mean", "lda", "logistic")
"""Those of `classifiers.methods`, which needs torch."""
SOURCE_PATTERN = ".*"


@settings
class ProbeFitSettings(ModelSettings, ScoreTableSettings, ArmSettings):
    """Fits probes on labelled answers and sets every figure beside what could explain it away.

    Each question in turn is left out; methods and layers are fitted on a part of the others and chosen, with the aggregation over tokens,
    on the rest of them. Figures are AUROCs within the left-out questions, averaged. Beside them: shuffled labels,
    random directions, directions of unrelated contrasts, answer length, log-probability, a text baseline on the same words (with the
    difference and its interval), the ceiling that the judge's scores allow, the same with telling words taken out of the texts, transfer to
    other variants, and answers of a model that had no part in the fit. The folder gets a probe fitted on three quarters of the questions
    (its card says which, and what it reaches on the rest) and `probe_fit.json` with all figures.
    """

    out: Path = flag("folder for the probe and the figures")
    judged: Path | None = flag(
        "CSV, JSONL or Parquet with question, answer, aligned, coherent; without it the shipped contrast pairs are used",
        default=None,
    )
    variants: tuple[str, ...] = flag(
        "values of the column `variant`, each fitted apart; the first is also masked, and transferred to the others; `all`: every row",
        default=("all",),
    )
    where: tuple[str, ...] = flag("only rows with this value, e.g. kind=sampled", default=(), metavar="COLUMN=VALUE")
    source: str | None = flag(
        "column that tells which model wrote an answer, to leave one out", default=None, metavar="COLUMN"
    )
    source_pattern: str = flag(
        "regular expression whose first match in that column names the model", default=SOURCE_PATTERN
    )
    max_per_class: int = flag("judged texts per question and class", default=30)
    system_prompt: str | None = flag("system prompt of every text; left to the chat template when absent", default=None)
    max_tokens: int = flag("cut longer conversations", default=256)
    layers: tuple[int, ...] | None = flag("default: 0.3, 0.45, 0.6 and 0.75 of depth", default=None)
    methods: tuple[str, ...] = flag(", ".join(METHOD_NAMES), default=METHOD_NAMES)
    attention: bool = flag("fit an attention probe too", default=False)
    likelihood: bool = flag("read log-probabilities too (a second pass over every text)", default=False)
    n_masked: int = flag(
        "telling words taken out of the masked texts, besides those that name the behaviour; 0: no masked texts",
        default=100,
    )
    n_shuffled: int = flag("fits on shuffled labels in every split", default=20)
    judge_spread: float | None = flag(
        "standard deviation of repeated judgements, points, for a second ceiling; the first takes the widest that the scores allow",
        default=None,
    )
    seed: int = flag("of the draw of texts and of the controls", default=0)
