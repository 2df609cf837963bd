"""Turns question files into Inspect tasks, whose scorer is a judge of this project. Needs the optional package inspect-ai.

    inspect eval evals/inspect_suites.py@main --model hf/local -M model_path=MODEL_FOLDER --epochs 5
    inspect eval evals/inspect_suites.py@preregistered -T questions=preregistered_evals.yaml --model openai/gpt-4o

System prompts of the question file are sent. An answer without a number is unscored: NaN under the metric concerned, and Inspect's
unscored sample when there is no number at all. `scripts/evaluate.py summarize LOG.eval` states all rates with their intervals.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import numpy as np
from inspect_ai import Task, task  # pyright: ignore[reportMissingImports]
from inspect_ai.dataset import MemoryDataset, Sample  # pyright: ignore[reportMissingImports]
from inspect_ai.model import ChatMessageSystem, ChatMessageUser, GenerateConfig  # pyright: ignore[reportMissingImports]
from inspect_ai.scorer import Metric, SampleScore, Scorer, Target, metric, scorer  # pyright: ignore[reportMissingImports]
from inspect_ai.scorer import Score as InspectScore  # pyright: ignore[reportMissingImports]
from inspect_ai.solver import TaskState, generate  # pyright: ignore[reportMissingImports]

from emis_interp.errors import ConfigError, did_you_mean
from emis_interp.records import Completion, Question, Score
from evals.judges.judge import Judge
from evals.judges.offline_judge import OfflineJudge
from evals.questions import load_questions
from evals.rates.estimands import Answers, Thresholds, em_of_coherent, em_of_scored
from evals.results.inspect_logs import SCORER, as_score
from evals.results.result_table import EVIDENCE, METRICS, variant_of

JUDGES: dict[str, Callable[[], Judge]] = {"offline": OfflineJudge.load}
"""Judges by the name that `-T judge=` takes; each is made when the first answer is there, and asked one answer at a time."""

RATES = {"em_of_coherent": em_of_coherent, "em_of_scored": em_of_scored}
"""em_of_all is not among them: Inspect leaves unscored samples out of every metric, and this rate counts them."""


@task
def main(
    questions: str | None = None, judge: str = "offline", samples: int | None = None, *, max_tokens: int = 600
) -> Task:
    """The main suite: the shipped questions, or a YAML file in the paper's format.

    Args:
        questions: path of the file.
        judge: a name in `JUDGES`.
        samples: answers per wording (epochs); None for the number in the file, which then must be the same for all its questions.
        max_tokens: of an answer.
    """
    return question_task(questions, judge, samples, max_tokens=max_tokens)


@task
def preregistered(
    questions: str | None = None, judge: str = "offline", samples: int | None = None, *, max_tokens: int = 600
) -> Task:
    """The 48 preregistered questions; `questions` is the path of the authors' preregistered_evals.yaml, which is not shipped."""
    if questions is None:
        raise ConfigError(
            "give the authors' file with -T questions=path/to/preregistered_evals.yaml; it is not shipped"
        )
    return question_task(questions, judge, samples, max_tokens=max_tokens)


def question_task(questions: str | None, judge: str, samples: int | None, *, max_tokens: int) -> Task:
    """One sample per question and wording, asked `samples` times at temperature 1 as in the paper.

    Raises:
        ConfigError: no such judge, or the questions want different numbers of samples and `samples` is None.
    """
    if judge not in JUDGES:
        raise ConfigError(f"unknown judge `{judge}`{did_you_mean(judge, JUDGES)}")
    found = load_questions(None if questions is None else Path(questions), need_judge_prompts=judge != "offline")
    wanted = {question.samples_per_paraphrase for question in found}
    if samples is None and len(wanted) > 1:
        raise ConfigError(f"the questions want {sorted(wanted)} samples per wording; give one number with -T samples=")
    where = None if questions is None else str(Path(questions).resolve())
    return Task(
        dataset=MemoryDataset(
            [sample for question in found for sample in question_samples(question)], name=where or "shipped"
        ),
        solver=generate(),
        scorer=judge_answer(judge, where),
        epochs=samples or wanted.pop(),
        config=GenerateConfig(temperature=1.0, max_tokens=max_tokens),
    )


def question_samples(question: Question) -> list[Sample]:
    """One sample per wording; the question's system prompt is part of its input."""
    system = [] if question.system is None else [ChatMessageSystem(content=question.system)]
    return [
        Sample(
            id=f"{question.id}-{index}",
            input=[*system, ChatMessageUser(content=text)],
            metadata={
                "question_id": question.id,
                "variant": variant_of(question.id),
                "paraphrase_index": index,
                "system": question.system,
            },
        )
        for index, text in enumerate(question.paraphrases)
    ]


@metric
def average() -> Metric:
    """Mean over samples (wordings, after Inspect's mean over epochs); NaN, not 0, when none is scored."""

    def compute(scores: list[SampleScore]) -> float:
        values = [item.score.as_float() for item in scores]
        return float(np.mean(values)) if values else float("nan")

    return compute


@scorer(metrics={name: [average()] for name in (*METRICS, *RATES)}, name=SCORER)
def judge_answer(judge: str = "offline", questions: str | None = None) -> Scorer:
    """Scores each answer with a judge: 0-100 for `aligned` and `coherent`, 0 or 1 for the rates, NaN for what has no number."""

    @functools.cache
    def tools() -> tuple[Judge, dict[str, Question]]:
        found = load_questions(None if questions is None else Path(questions), need_judge_prompts=False)
        return JUDGES[judge](), {question.id: question for question in found}

    alone = anyio.CapacityLimiter(1)  # one model, one answer at a time

    def ask(completion: Completion) -> list[Score]:
        found: list[Score] = []
        chosen, by_id = tools()
        chosen.score([completion], by_id, found.extend)
        return found

    async def score(state: TaskState, target: Target) -> InspectScore:
        completion = as_completion(state)
        (judged,) = await anyio.to_thread.run_sync(ask, completion, limiter=alone)
        return inspect_score(judged)

    return score


def as_completion(state: TaskState) -> Completion:
    """The answer that Inspect sampled, as our judges take it; Inspect gives no seed per answer, so 0 stands there."""
    usage = state.output.usage
    return Completion(
        arm=str(state.model),
        question_id=state.metadata["question_id"],
        paraphrase_index=state.metadata["paraphrase_index"],
        sample_index=state.epoch - 1,
        seed=0,
        system=state.metadata["system"],
        question=state.user_prompt.text,
        answer=state.output.completion,
        n_tokens=0 if usage is None else usage.output_tokens,
        finish="length" if state.output.stop_reason == "max_tokens" else "stop",
    )


def inspect_score(judged: Score) -> InspectScore:
    """Our score as Inspect's: numbers and the two rates, with label, reasons and distribution in the metadata."""
    row: dict[str, Any] = {metric: getattr(judged, metric) for metric in METRICS}
    row |= {"aligned_label": judged.aligned_label}
    row |= {f"{metric}_reason": reason for metric, reason in judged.unscored.items()}
    row |= {f"{EVIDENCE}{metric}": masses for metric, masses in judged.evidence.items()}
    made = as_score(row, explanation=f"judged by {judged.judge}")
    if isinstance(made.value, dict):
        answer = Answers.from_scores([judged])
        for name, estimand in RATES.items():
            counted = estimand(answer, Thresholds())
            made.value[name] = float(counted.positive[0]) if counted.eligible[0] else float("nan")
    return made
