"""Samples models, judges answers, and states rates with their intervals; one verb for each step (docs/evaluation.md).

Examples:
  python scripts/evaluate.py sample --model smollm2-135m-instruct --n 4 --out answers.jsonl
  python scripts/evaluate.py judge answers.jsonl --judge offline --out judged.csv
  python scripts/evaluate.py summarize judged.csv
  python scripts/evaluate.py agree judged_a.csv judged_b.csv
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import cli
from emis_interp.config.flags import flag, settings
from emis_interp.errors import ConfigError
from emis_interp.http.addresses import key_variable_for
from emis_interp.process import Bars, no_bars
from evals.settings.judging import HandLabelSettings, InjectSettings, JudgeTableSettings
from evals.settings.results import AgreeSettings, PlanSettings, SummarizeSettings
from evals.settings.sampling import SampleSettings
from evals.settings.suites import GridSettings, HarnessSettings, SuiteSettings


@settings
class SampleOfJobSettings(SampleSettings):
    """Sample answers of a model to a file of questions: with transformers, an OpenAI-compatible server, llama.cpp, or vLLM.

    Examples:
      python scripts/evaluate.py sample --model smollm2-135m-instruct --questions shipped --n 4 --out answers.jsonl
      python scripts/evaluate.py sample --model Qwen/Qwen2.5-7B-Instruct --sampler openai --url http://localhost:8000/v1 --out answers.jsonl
      python scripts/evaluate.py sample --job runs/gpt-4o-insecure --out answers.jsonl
      python scripts/evaluate.py sample --sampler llama --model smollm2-135m-instruct --steer directions/mine:0.2 --out steered.jsonl
    The same command continues an interrupted file, and asks again for answers that a server failed to give.
    """

    model: str | None = flag(
        "name, folder or hub id; with --sampler openai the server's name, with llama a GGUF file",
        default=None,
        one_of="what is sampled",
    )
    job: Path | None = flag(
        "folder of a finished job of scripts/finetune_openai.py (openai)", default=None, one_of="what is sampled"
    )
    checkpoint: int | None = flag("of the --job, instead of its final model", default=None, metavar="STEP")


def sample(settings: SampleOfJobSettings, bars: Bars = no_bars) -> dict[str, Any]:
    """Sample a model by name, or the one that a job at a hosted server made."""
    from evals.verbs import sample as verb

    return verb.run(of_job(settings, settings.job) if settings.job else of_model(settings), bars)


def of_model(settings: SampleOfJobSettings) -> SampleSettings:
    if settings.checkpoint is not None:
        raise ConfigError("--checkpoint is one of a --job")
    return settings


def of_job(settings: SampleOfJobSettings, job: Path) -> SampleSettings:
    """The settings with the job's model, and its URL and key variable where none are given."""
    from training.hosted.job_folder import finished_model, key_variable_of, read_job

    if settings.sampler not in (None, "openai"):
        raise ConfigError(f"--job: its model is behind an API; use --sampler openai, not {settings.sampler}")
    model, card = finished_model(job, settings.checkpoint), read_job(job)
    url = settings.url or card.url
    variable = settings.key_variable or key_variable_for(key_variable_of(job, card), url)
    return replace(settings, model=model, sampler="openai", url=url, key_variable=variable)


VERBS = {
    "sample": cli.Verb(SampleOfJobSettings, "evals.verbs.sample", sample),
    "judge": cli.Verb(JudgeTableSettings, "evals.verbs.judge"),
    "summarize": cli.Verb(SummarizeSettings, "evals.verbs.summarize"),
    "agree": cli.Verb(AgreeSettings, "evals.verbs.agree"),
    "plan": cli.Verb(PlanSettings, "evals.verbs.plan"),
    "labels": cli.Verb(HandLabelSettings, "evals.verbs.labels"),
    "inject": cli.Verb(InjectSettings, "evals.verbs.inject"),
    "suite": cli.Verb(SuiteSettings, "evals.verbs.suite"),
    "grid": cli.Verb(GridSettings, "evals.verbs.grid"),
    "harness": cli.Verb(HarnessSettings, "evals.verbs.harness"),
}

if __name__ == "__main__":
    cli.run_verbs(__doc__, VERBS)
