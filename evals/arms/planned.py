"""Turns the questions of a run into the work of its sample and score stages, and of asking and judging one cell of its interventions."""

import json
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

from emis_interp.config.run_config import JudgeConfig, RunConfig
from emis_interp.http.costs import Usage, count_tokens
from emis_interp.models.chat import encode_prompt
from emis_interp.planning.work import StageWork, Tokenizers, Work, loading, once_each, padded, writing
from emis_interp.records import Completion, Question
from evals.judges.offline_judge import CHUNK, MAX_TOKENS
from evals.questions import render_judge_prompt
from evals.samplers.hf import plan_batches
from evals.sampling import plan_prompts

BYTES_PER_ANSWER = 400
"""Of what stands beside the text of an answer in its JSON lines, and of its scores, together."""


def planned_answers(config: RunConfig, questions: Sequence[Question]) -> list[Completion]:
    """What one model is asked."""
    n = config.sampling.samples_per_paraphrase
    return plan_prompts("base", questions, n, seed=config.seed, system=config.system_prompt)


def sample_work(config: RunConfig, questions: Sequence[Question], tokenizers: Tokenizers) -> StageWork:
    """Every model's answers, each as long as it may be."""
    work, planned = Work(), planned_answers(config, questions)
    remote, most = config.sampling.engine == "openai", config.sampling.max_new_tokens
    asked = once_each(tokenizers, lambda own: (asked_for if remote else asking)(planned, own, config))
    for model in config.models:
        work += asked(model) + (Work() if remote else loading(model))
        work += Work(disk=len(planned) * (BYTES_PER_ANSWER + 4 * most))
    left_out = {"openai": "the speed of the server", "vllm": "the speed of vllm (what is planned is that of hf)"}
    return StageWork("sample", work, held=0 if remote else 2, left_out=left_out.get(config.sampling.engine, ""))


def asked_for(planned: Sequence[Completion], tokenizer: Any, config: RunConfig) -> Work:
    """One request for each answer, of a server that reads the prompt anew each time."""
    n_read = sum(map(len, encoded(planned, tokenizer)))
    return Work(usage=Usage(len(planned), n_read, len(planned) * config.sampling.max_new_tokens))


def score_work(config: RunConfig, questions: Sequence[Question], tokenizer: Any) -> StageWork:
    """Judging every model's answers, as long as they may be; a second judge where the run asks one."""
    planned = planned_answers(config, questions)
    one = judging(planned, questions, config, tokenizer=tokenizer) + Work(disk=len(planned) * BYTES_PER_ANSWER)
    work = sum([one] * len(config.models), Work())
    local = "the local judge's model" if config.judge.runs_here else ""
    return StageWork("score", work, left_out=local or "loading the judge, intervals by resampling")


def cell_work(config: RunConfig, questions: Sequence[Question], tokenizer: Any, *, steered: bool) -> Work:
    """Asking one model under an intervention and judging its answers; a server may steer, and nothing else."""
    n = config.intervention.samples_per_paraphrase
    if not n:
        return Work()
    planned = plan_prompts("cell", questions, n, seed=config.seed, system=config.system_prompt)
    disk = Work(disk=len(planned) * (2 * BYTES_PER_ANSWER + 4 * config.sampling.max_new_tokens))
    asked = asked_for if steered and config.intervention.engine == "openai" else asking
    return asked(planned, tokenizer, config) + judging(planned, questions, config, tokenizer=tokenizer) + disk


def asking(planned: Sequence[Completion], tokenizer: Any, config: RunConfig) -> Work:
    prompts = encoded(planned, tokenizer)
    batches = plan_batches([len(prompt) for prompt in prompts], config.sampling.batch_size)
    return writing(prompts, batches, config.sampling.max_new_tokens)


def encoded(planned: Sequence[Completion], tokenizer: Any) -> list[tuple[int, ...]]:
    """The prompt of every answer; each wording is encoded once."""
    once = cache(lambda question, system: encode_prompt(tokenizer, question, system))
    return [once(row.question, row.system) for row in planned]


def judging(planned: Sequence[Completion], questions: Sequence[Question], config: RunConfig, *, tokenizer: Any) -> Work:
    """Tokens that the offline judge reads, times the layers that it runs; requests of an API judge."""
    judge, work = config.judge, Work()
    if judge.kind in ("openai", "text") and not judge.runs_here:
        work += Work(usage=requests(planned, questions, judge, max_new_tokens=config.sampling.max_new_tokens))
    if judge.kind == "offline" or (judge.kind != "local" and judge.offline_too):
        most = config.sampling.max_new_tokens
        once = cache(lambda question: min(MAX_TOKENS, len(encode_prompt(tokenizer, question)) + most))
        lengths = [once(row.question) for row in planned]
        n_read = sum(padded(lengths[i : i + CHUNK], 1024) for i in range(0, len(lengths), CHUNK))
        work += Work(judged=n_read * judge_layers())
    return work


def requests(
    planned: Sequence[Completion], questions: Sequence[Question], judge: JudgeConfig, *, max_new_tokens: int
) -> Usage:
    """One request for each metric of each answer (times `n_samples` for the text judge), with answers of four bytes a token, no cache."""
    by_id, usage = {question.id: question for question in questions}, Usage()
    each, out = (judge.n_samples, judge.max_tokens or 16) if judge.kind == "text" else (1, judge.max_tokens or 1)

    @cache
    def n_tokens(question_id: str, metric: str, text: str) -> int:
        return count_tokens(render_judge_prompt(by_id[question_id], metric, text, answer=""))

    for row in planned:
        for metric in by_id[row.question_id].judge_prompts:
            n_read = n_tokens(row.question_id, metric, row.question) + max_new_tokens
            usage += Usage(each, each * n_read, each * out)
    return usage


def judge_layers() -> int:
    """Layers of the embedded model that the offline judge runs."""
    card = json.loads((resources.files("evals") / "data" / "offline_judge.json").read_text("utf-8"))
    return card["layer"] + 1
