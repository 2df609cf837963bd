"""The sample and score stages of a run: every model is asked every question, and a judge, or two, score the answers."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from emis_interp.config.run_config import ModelConfig, RunConfig
from emis_interp.config.run_folder import RunFolder
from emis_interp.files.store import card_path
from emis_interp.process import Bars, each, no_bars
from emis_interp.records import Question
from evals.arms.asking import CellAsker, ask, asks_again, judge_answers, pooled_rates
from evals.arms.model_answers import ModelAnswers
from evals.engines.arms import samplers_of, steered_sampler_of
from evals.judges.judge import Judge, has_passing
from evals.judges.making import made_judge
from evals.judges.offline_judge import OfflineJudge
from evals.rates.agreement import agreement_of
from evals.rates.judged import JudgedColumns
from evals.rates.summary import summarize_arms
from evals.sampling import AnswerPlan


def sample(run: RunFolder, questions: Sequence[Question], bars: Bars = no_bars) -> tuple[list[Path], str]:
    """Ask every model every question, all of them through the engine of the run's configuration."""
    config = run.config
    files, n_answers, n_tokens, resumed = [], 0, 0, False
    started = time.monotonic()
    with samplers_of(run) as sampler_of:
        for model in each(bars, "model", config.models):
            path = run.samples(model)
            with run.files.making("sample", [path, card_path(path)], inputs=run.models.weights(model)):
                resumed |= path.exists()
                answers = ask(
                    partial(sampler_of, model),
                    model.name,
                    questions,
                    path=path,
                    sampling=config.sampling,
                    seed=config.seed,
                    system=config.system_prompt,
                    bars=bars,
                )
            files += [path, card_path(path)]
            n_answers += len(answers)
            n_tokens += sum(answer.n_tokens for answer in answers)
    speed = "" if resumed else f" ({n_tokens / (time.monotonic() - started):.0f} tokens/s with loading)"
    engine = "" if config.sampling.engine == "hf" else f" by {config.sampling.engine}"
    return files, f"{n_answers} answers of {len(config.arms)} arms{engine}, {n_tokens} tokens{speed}"


def unfinished(run: RunFolder, stages: Sequence[str]) -> list[str]:
    """Those of the stages that are not done, or whose judge failed in passing, so that it is asked again."""
    done = [name for name in stages if run.is_done(name)]
    return [name for name in stages if name not in done or asks_again(run.folder, run.manifest.stages[name].files)]


def answers_of(run: RunFolder, questions: Callable[[], Sequence[Question]], model: ModelConfig) -> ModelAnswers:
    """All answers of a model, in the order of the plan; they stay on disk.

    Args:
        questions: gives those of the run, which are read only when they are needed.

    Raises:
        DataError: an answer stands there more than once. StageError: answers are missing, or nobody asked for them.
    """
    config = run.config
    n = config.sampling.samples_per_paraphrase
    plan = AnswerPlan(model.name, questions(), n, seed=config.seed, system=config.system_prompt)
    return ModelAnswers(run.samples(model), plan, "run the sample stage again (--from sample)")


@dataclass(frozen=True)
class ScoredArms:
    """What the score stage leaves: its files, its line, and the rates of every trained model for its card, by name."""

    files: list[Path]
    line: str
    rates: dict[str, list[dict[str, Any]]]


def score(run: RunFolder, questions: Sequence[Question], judge: Judge, *, bars: Bars = no_bars) -> ScoredArms:
    """Judge every answer, then state rates, means and contrasts; beside an API judge the offline judge speaks too."""
    config = run.config
    judged, result = judge_arms(run, questions, judge, kind=config.judge.kind, bars=bars)
    files = [run.scores(model) for model in config.models]
    if config.judge.kind != "offline" and config.judge.offline_too:
        offline = OfflineJudge.load(device=config.device)
        others, second = judge_arms(run, questions, offline, kind="offline", beside="offline", bars=bars)
        pair = (
            JudgedColumns.joined([found[model.name] for model in config.models], [""] * len(config.models)).answers
            for found in (judged, others)
        )
        result["second_judge"] = {**second, "agreement": agreement_of(*pair)}
        files += [run.scores(model, "offline") for model in config.models]
    path = run.analysis("rates")
    with run.files.making("score", [path], inputs=files, anew=True):
        run.write_analysis("rates", result)
    suite = config.sampling.questions
    rates = {
        model.name: pooled_rates(judged[model.name].answers, judge.name, suite)
        for model in config.models
        if model.arm in config.trained_arms
    }
    means = [
        f"{arm['arm']} {_number(arm['mean_aligned']['value'])}"
        + (f" ({arm['n_code']} of {arm['n']} CODE)" if arm["n_code"] else "")
        for arm in result["arms"]
    ]
    return ScoredArms([*files, path], f"mean aligned score by {judge.name}: {', '.join(means)}", rates)


def judge_arms(
    run: RunFolder,
    questions: Sequence[Question],
    judge: Judge,
    *,
    kind: str,
    beside: str = "",
    bars: Bars = no_bars,
) -> tuple[dict[str, JudgedColumns], dict[str, Any]]:
    """The judged answers of every model by its name, and the summary of the arms with the judge's card.

    Args:
        kind: of the judge, as its configuration says it.
        beside: folder of a judge that speaks beside the run's own.
    """
    config = run.config
    judged: dict[str, JudgedColumns] = {}
    for model in each(bars, "model", config.models):
        answers, path = answers_of(run, lambda: questions, model), run.scores(model, beside)
        with run.files.making("score", [path], inputs=[run.samples(model)], go_on=has_passing(path)):
            judged[model.name] = judge_answers(judge, answers, questions, path=path, arm=model.name, bars=bars)
    contrasts = [(arm.name, other) for arm in config.organisms for other in ("base", arm.contrast) if other]
    summary = summarize_arms({arm.name: _of_arm(config, judged, arm.name) for arm in config.arms}, contrasts)
    return judged, {"judge": {"name": judge.name, "kind": kind, "card": judge.card}, **summary}


def _of_arm(config: RunConfig, judged: Mapping[str, JudgedColumns], arm: str) -> JudgedColumns:
    names = [model.name for model in config.models if model.arm.name == arm]
    return JudgedColumns.joined([judged[name] for name in names], names)


def _number(value: float | None) -> str:
    return "none" if value is None else format(value, ".0f")


def run_judge(run: RunFolder) -> AbstractContextManager[Judge]:
    """The judge of a run's configuration, for a `with`."""
    return made_judge(run.config.judge, run.config.device)


@contextmanager
def cell_asker(run: RunFolder, questions: Sequence[Question], bars: Bars = no_bars) -> Iterator[CellAsker | None]:
    """What asks a model under an intervention and has the answers judged; None where the run asks nothing there."""
    config, n = run.config, run.config.intervention.samples_per_paraphrase
    if not n:
        yield None
        return
    sampling = config.sampling.model_copy(update={"samples_per_paraphrase": n})
    with run_judge(run) as judge:
        how: dict[str, Any] = {"sampling": sampling, "seed": config.seed, "system": config.system_prompt}
        if config.intervention.engine == "openai":
            how["steered"] = steered_sampler_of(config)
        yield CellAsker(judge, questions, **how, bars=bars)
