"""The settings of what reads, compares and plans rates: one frozen record a verb, whose docstring is the help of the verb."""

from pathlib import Path
from typing import Literal

from emis_interp.config.flags import flag, settings
from emis_interp.config.table_settings import GROUP, SCORE_NAMES, ArmSettings, ScoreTableSettings
from evals.settings.names import (
    BOTH_SCORERS,
    ESTIMAND_NAMES,
    MARGIN,
    TYPICAL_ICC,
    VARIANTS,
    EstimandName,
    IntervalMethod,
    Population,
)


@settings
class ResultSettings(ScoreTableSettings, ArmSettings):
    """Which answers of a result file or run folder are read, and how."""

    variant: str = flag("variant of the questions", default="all", choices=(*VARIANTS, "all"))
    runs: str = flag("only runs that match this pattern", default="*")
    scorer: str | None = flag(
        "Inspect log: whose scores, where several scorers give aligned and coherent "
        f"({BOTH_SCORERS}: two scorers of these names)",
        default=None,
        metavar="NAME",
    )
    unfinished: bool = flag("Inspect log: also one that failed or was cancelled, as far as it got", default=False)


@settings
class SummarizeSettings(ResultSettings):
    """States every rate of a result file or a run folder with its name and interval, one line per run.

    Intervals are over questions and answers of that one model, not over finetuning seeds. Answers without a number, and the labels CODE
    and REFUSAL, are counted beside the rates; which of them a rate leaves out is in its definition (docs/evaluation.md).

    Examples:
      python scripts/evaluate.py summarize result.csv --variant plain
      python scripts/evaluate.py summarize scores.parquet --runs '*insecure*' --estimand em_of_all --json
      python scripts/evaluate.py summarize runs/laptop --to laptop.eval
      python scripts/evaluate.py summarize theirs.csv --columns answer=response aligned=100-evil coherent=coherence --by condition
    """

    file: Path = flag("CSV, JSON lines or Parquet table, Inspect log, or run folder", positional=True)
    estimand: tuple[EstimandName, ...] = flag(
        "only this one; may be repeated", default=(), repeated=True, choices=sorted(ESTIMAND_NAMES)
    )
    sensitivity: bool = flag("also every preset, threshold and boundary side", default=False)
    to: Path | None = flag(
        "also write the answers to a .csv, .jsonl, .parquet or .eval file", default=None, metavar="OUT"
    )
    interval: IntervalMethod = flag(
        "limits covers with few questions too; bootstrap is the percentile interval, too narrow then", default="limits"
    )
    population: Population = flag(
        "speak of all questions that might have been asked, or of this suite's alone (limits only)", default="questions"
    )
    n_bootstrap: int = flag("resamples of each bootstrap interval", default=10_000)
    seed: int = flag("of the resampling", default=0)


@settings
class AgreeSettings(ScoreTableSettings, ArmSettings):
    """Compare two judges on the same answers: agreement in both scores, and every rate under each judge.

    Give two scored files with the same rows in the same order, or one file and --columns with the two judges' columns.

    Examples:
      python scripts/evaluate.py agree by_gpt.csv by_offline.csv
      python scripts/evaluate.py agree judged.csv --columns given_aligned,given_coherent aligned,coherent,label
      python scripts/evaluate.py agree theirs.csv ours.csv --columns answer=response aligned=100-evil coherent=coherence

    Differences are the first judge minus the second. Kappa has quadratic weights on ten bins of ten points. The interval of a difference
    between rates draws questions and answers for both judges at once, since both saw the same answers.
    """

    files: tuple[Path, ...] = flag("one or two scored tables", positional=True, metavar="FILE")
    columns: tuple[str, ...] = flag(
        f"two judges' columns in one file, each aligned,coherent[,label]; or {SCORE_NAMES}",
        default=(),
        metavar="OURS=THEIRS",
        group=GROUP,
    )


@settings
class PlanSettings:
    """Say how many answers a study needs to tell two rates apart, given its number of questions; found by simulation.

    What a run will take in time, memory and money is another question: scripts/plan.py.

    Examples:
      python scripts/evaluate.py plan 0.05 0.01
      python scripts/evaluate.py plan 0.05 0.01 --population suite
      python scripts/evaluate.py plan 0.2 0.05 --n-questions 24 --icc 0.05 --power 0.9

    Simulated questions have rates of their own (beta distribution, intraclass correlation `--icc`) that rise and fall together in both
    arms; the study succeeds when the 95 % interval of the difference leaves out 0. The finetuning seed is not part of it: one model an arm.
    """

    rate: float = flag("rate of one arm, in (0, 1)", positional=True)
    against: float = flag("rate of the other arm", positional=True)
    n_questions: int = flag("questions, the same in both arms", default=8)
    population: Population = flag(
        "speak of all questions that might have been asked, or of this suite's alone", default="questions"
    )
    icc: float = flag("share of variance between questions", default=TYPICAL_ICC)
    power: float = flag("share of studies that should succeed", default=0.8)
    n_studies: int = flag("simulated studies for each number of answers", default=400)
    seed: int = flag("of the simulation", default=0)


@settings
class ScorecardSettings(ResultSettings):
    """Sets a run beside published values of the same model, finetune, suite, variant and estimand, with a verdict per value."""

    run: Path = flag("run folder, or a result file (then --model, --finetune and --suite are needed)", positional=True)
    reference: Path | None = flag("CSV of published values (default: the one in $EMIS_REFERENCE_DATA)", default=None)
    model: str | None = flag("what was finetuned (default: from the run's manifest)", default=None)
    finetune: str | None = flag("data set, or `none` (default: from the manifest, for each arm)", default=None)
    suite: str | None = flag("question set, such as main8 (default: from the manifest)", default=None)
    variant: str = flag("only questions of this variant", default="all", choices=(*VARIANTS, "all"))
    margin: float = flag("differences within it are equivalent (default: 5)", default=100 * MARGIN, metavar="POINTS")
    runs: str = flag("only runs or arms that match this pattern", default="*")


@settings
class CoverageSettings:
    """Simulates studies with question effects and counts how often each kind of 95 % interval covers the truth that was planted."""

    n_studies: int = flag("studies of each design", default=1000)
    n_bootstrap: int = flag("resamples of each bootstrap interval", default=500)
    runs: Path | None = flag(
        "result files of other groups: variance between their questions", default=None, metavar="FILE"
    )
    part: Literal["all", "rates", "scores", "seeds"] = flag("which designs", default="all")
    seed: int = flag("of the simulation", default=0)
