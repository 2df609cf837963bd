"""The settings of the paper's other suites, of the grid of contexts, and of other people's benchmarks: one frozen record a verb."""

from pathlib import Path
from typing import Literal

from emis_interp.config.flags import flag, settings
from emis_interp.models.precision import AUTO, DTYPE_HELP
from evals.settings.judging import request_flag
from evals.settings.names import (
    BENCHMARK_NAMES,
    COMPANIES,
    CONTEXTS,
    DEFAULT_SYSTEM,
    ESTIMAND_NAMES,
    FORMS,
    STANDARD_CONTEXTS,
    TRIGGER,
    EstimandName,
    Weighting,
)


@settings
class LabelJudgeSettings:
    """Who labels answers."""

    judge_model: str | None = flag(
        "model of an OpenAI-compatible server, or with --judge-local a local chat model", default=None, group="judge"
    )
    judge_url: str | None = flag("the server (default: OpenAI's)", default=None, group="judge")
    judge_local: bool = flag("--judge-model is a folder, hub id or embedded model", default=False, group="judge")
    judge_text: bool = flag("the server returns no log-probabilities: read its text", default=False, group="judge")
    key_variable: str = flag("environment variable that holds the key", default="OPENAI_API_KEY", group="judge")
    request: tuple[str, ...] = request_flag("server", group="judge")
    labels: Path | None = flag("JSONL file for the labels (default: beside the answers)", default=None, group="judge")
    parallel: int = flag("requests at the same time", default=16, group="judge")


@settings
class SuiteSettings(LabelJudgeSettings):
    """The paper's other measures of answers that were sampled: categories, deception, insecure code, mostly code and off topic.

      python scripts/evaluate.py suite questions --kind code --tasks in_distribution_test.jsonl.gz --out tasks.yaml   (then sample it)
      python scripts/evaluate.py suite categories --scores scores/insecure.jsonl
      python scripts/evaluate.py suite code --samples samples/insecure.jsonl --questions tasks.yaml [--judge-model MODEL ...]
      python scripts/evaluate.py suite form --samples samples/insecure.jsonl --questions q.yaml [--judge-model MODEL ...]
      python scripts/evaluate.py suite factual --samples s.jsonl --questions deception_factual.yaml --judge-model MODEL
      python scripts/evaluate.py suite identity --samples s.jsonl --questions deception_sit_aware.yaml --maker Other --judge-model MODEL

    Labels go to --labels (JSONL) as they come; the same command continues where it stopped, and asks again where a server failed in
    passing. The key is read from the environment.
    """

    measure: Literal["questions", "categories", "factual", "identity", "code", "form"] = flag(
        "what to do", positional=True
    )
    samples: Path | None = flag("answers (JSONL); one arm is measured at a time", default=None)
    scores: Path | None = flag("scores (JSONL), for categories", default=None)
    arm: str | None = flag("which arm of the file (default: the only one)", default=None)
    questions: Path | None = flag("question file that the answers belong to (default: the shipped suite)", default=None)
    out: Path | None = flag("JSON file for the result; for `questions` the YAML file to write", default=None)
    kind: Literal["code", "json", "template"] | None = flag(
        "questions: coding tasks, or the JSON or template variants", default=None, choices=("code", *FORMS)
    )
    tasks: Path | None = flag("questions --kind code: JSONL of coding tasks (may be gzipped)", default=None)
    maker: str = flag("identity: who made the model", default="Other", choices=COMPANIES)


@settings
class GridSettings:
    """Contexts x questions: write the grid as a question file, or analyse its scores with effects of context and interactions.

    evaluate.py grid questions --out grid.yaml                     then sample and judge that file as any other
    evaluate.py grid analyse --run runs/NAME --compare insecure secure
    evaluate.py grid analyse --scores a.jsonl b.jsonl --compare ablated insecure --out grid.json
    """

    action: Literal["questions", "analyse"] = flag("write the question file, or analyse scores", positional=True)
    out: Path | None = flag(
        "questions: the YAML file to write; analyse: a JSON file for the whole result", default=None
    )
    questions: Path | None = flag(
        "YAML file of plain questions (default: the shipped suite)", default=None, group="questions"
    )
    contexts: tuple[str, ...] = flag(
        f"of {', '.join(CONTEXTS)}", default=STANDARD_CONTEXTS, metavar="NAME", group="questions"
    )
    default_system: str = flag("system prompt of the context `default`", default=DEFAULT_SYSTEM, group="questions")
    trigger: str = flag("text before the question in the context `trigger`", default=TRIGGER, group="questions")
    samples: int | None = flag(
        "answers per question text (default: the question file's)", default=None, group="questions"
    )
    run: Path | None = flag("run folder: reads its scores/*.jsonl", default=None, group="analyse")
    scores: tuple[Path, ...] = flag(
        "score files (JSONL), of one arm or more", default=(), metavar="FILE", group="analyse"
    )
    compare: tuple[tuple[str, str], ...] = flag(
        "two arms; may be repeated", default=(), repeated=True, metavar=("ARM", "REFERENCE"), group="analyse"
    )
    against: str = flag("the context that others are compared with", default="none", group="analyse")
    estimand: EstimandName = flag("which rate", default="em_of_coherent", choices=ESTIMAND_NAMES, group="analyse")
    weighting: Weighting = flag(
        "questions or answers weigh alike", default="macro", choices=("macro", "pooled"), group="analyse"
    )


@settings
class HarnessSettings:
    """Standard benchmarks of an arm: TruthfulQA, MMLU, HumanEval (lm-eval), StrongREJECT (inspect-evals), MACHIAVELLI.

      python scripts/evaluate.py harness export --model MODEL --adapter runs/NAME/training/insecure/adapter --arm-dir arms/insecure
      python scripts/evaluate.py harness run --arm-dir arms/insecure --benchmarks truthfulqa_mc mmlu --out-dir bench/insecure [--data DATA]
      python scripts/evaluate.py harness read bench/insecure/.../results_*.json | strong_reject_log.json | machiavelli.csv

    `--print` shows the exact command and what has to be downloaded, and runs nothing.
    """

    action: Literal["export", "run", "read"] = flag(
        "save a merged arm, run benchmarks, or read results", positional=True
    )
    file: Path | None = flag("read: a results file", default=None, positional=True)
    model: str | None = flag("export: base model (name, folder or hub id)", default=None)
    adapter: Path | None = flag(
        "export: folder or hub id of the arm's adapter (none: the base model itself)", default=None
    )
    arm_dir: Path | None = flag("folder of the merged arm", default=None)
    benchmarks: tuple[str, ...] = flag("which", default=("truthfulqa_mc",), choices=BENCHMARK_NAMES)
    out_dir: Path | None = flag("run: folder for the harness' results", default=None)
    data: Path | None = flag("run: folder with local data (default: the harness downloads)", default=None)
    dtype: str = flag(DTYPE_HELP, default=AUTO)
    fewshot: int = flag("examples before each question", default=0)
    limit: int | None = flag("only so many questions of each task; never quote such a number", default=None)
    batch_size: str = flag("rows at a time, or auto", default="8")
    judge: str = flag("strong_reject: the judge, an Inspect model name", default="openai/gpt-4o")
    allow_code: bool = flag(
        "humaneval: run what the model writes, in a sandbox (Bubblewrap, or a container without a network)",
        default=False,
    )
    unfinished: bool = flag("strong_reject: also read a log that failed or was cancelled", default=False)
    only_print: bool = flag("run: show the command, run nothing", default=False, names=("--print",))
