"""Turns a model and a file of questions into a file of answers."""

import time
from collections import Counter
from pathlib import Path
from typing import Any

from emis_interp.config.run_config import SamplingConfig, checked
from emis_interp.errors import ConfigError, did_you_mean
from emis_interp.files.store import card_path
from emis_interp.process import Bars, no_bars, only_writer
from emis_interp.records import Question
from evals.engines.making import made_sampler
from evals.questions import load_questions
from evals.samplers import AnswerSampler
from evals.samplers.later import LaterSampler
from evals.sampling import Sampled, plan_prompts, sample_with
from evals.settings.sampling import SampleSettings


def run(settings: SampleSettings, bars: Bars = no_bars) -> dict[str, Any]:
    """Sample what the file lacks; counts, speed, and the reasons of answers that stay missing."""
    with only_writer(settings.out.parent, settings.out.name):
        config = checked(
            SamplingConfig,
            "sample",
            samples_per_paraphrase=_at_least(1, settings.n, "--n"),
            max_new_tokens=_at_least(1, settings.max_new_tokens, "--max-new-tokens"),
            temperature=_at_least(0, settings.temperature, "--temperature"),
            batch_size=_at_least(1, settings.batch_size, "--batch-size"),
        )
        questions = _questions(settings)
        with made_sampler(settings) as sampler:
            return _sample(sampler, settings, questions, config=config, bars=bars)


def _sample(
    sampler: AnswerSampler,
    settings: SampleSettings,
    questions: list[Question],
    *,
    config: SamplingConfig,
    bars: Bars,
) -> dict[str, Any]:
    arm = settings.arm or settings.out.stem
    fresh: Counter[str] = Counter()
    plan = plan_prompts(
        arm, questions, config.samples_per_paraphrase, seed=settings.seed, system=settings.system_prompt
    )
    if isinstance(sampler, LaterSampler):
        sampler.make_for(plan, settings.out)  # starting is no part of the speed that is shown
    started = time.monotonic()
    with bars(f"sample {arm}", len(plan)) as advance:

        def tell(n_answers: int, n_tokens: int) -> None:
            fresh.update(answers=n_answers, tokens=n_tokens)
            advance(n_answers, note=f"{fresh['tokens'] / (time.monotonic() - started):.0f} tokens/s")

        sampled = sample_with(
            sampler,
            arm,
            questions,
            config=config,
            path=settings.out,
            seed=settings.seed,
            system=settings.system_prompt,
            progress=tell,
        )
    seconds = time.monotonic() - started
    return {
        "file": str(settings.out),
        "card": str(card_path(settings.out)),
        "arm": arm,
        "n_planned": len(plan),
        "n_answers": len(sampled.answers),
        "n_new": fresh["answers"],
        "n_missing": len(sampled.missing),
        "missing": missing_by_reason(sampled),
        "finish": dict(Counter(answer.finish for answer in sampled.answers)),
        "n_empty": sum(not answer.answer.strip() for answer in sampled.answers),
        "mean_tokens": mean_tokens(sampled),
        "tokens_per_second": fresh["tokens"] / seconds if fresh["answers"] else None,
    }


def say(result: dict[str, Any]) -> str:
    speed = f", {result['tokens_per_second']:.0f} tokens/s" if result["tokens_per_second"] else ""
    cut = result["finish"].get("length", 0)
    lines = [
        f"{result['n_answers']} of {result['n_planned']} answers of {result['arm']} in {result['file']} "
        f"({result['n_new']} new{speed}; {cut} cut at the token limit, {result['n_empty']} empty)"
    ]
    if result["n_missing"]:
        lines.append(f"{result['n_missing']} answers are missing; the same command asks for them again:")
        lines += [f"  {n} x {reason}" for reason, n in result["missing"].items()]
    return "\n".join(lines)


def mean_tokens(sampled: Sampled) -> float | None:
    """Over the answers whose tokens are counted; None when none are."""
    counts = [answer.n_tokens for answer in sampled.answers if answer.n_tokens or not answer.answer]
    return sum(counts) / len(counts) if counts else None


def missing_by_reason(sampled: Sampled) -> dict[str, int]:
    """Reason -> number of answers, the commonest first."""
    return dict(Counter(sampled.missing.values()).most_common())


def _questions(settings: SampleSettings) -> list[Question]:
    path = None if settings.questions == "shipped" else Path(settings.questions)
    questions = load_questions(path, need_judge_prompts=False)
    known = [question.id for question in questions]
    for name in settings.question_ids:
        if name not in known:
            raise ConfigError(f"--question-ids: no question `{name}`{did_you_mean(name, known)}")
    return [question for question in questions if not settings.question_ids or question.id in settings.question_ids]


def _at_least(least: float, value: Any, flag: str) -> Any:
    if value is not None and value < least:
        raise ConfigError(f"{flag} {value}: must be at least {least}")
    return value
