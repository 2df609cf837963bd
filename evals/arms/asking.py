"""Turns an arm into answers and answers into scores, each kept in a file of its own that an interrupted command goes on with."""

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from emis_interp.config.run_config import SamplingConfig
from emis_interp.errors import StageError
from emis_interp.files.journal import Journal
from emis_interp.files.rows import about, by_key, check_complete, key_text
from emis_interp.files.store import RecordLog
from emis_interp.models.chat_model import ChatModel
from emis_interp.process import Bars, no_bars
from emis_interp.records import Completion, Key, Question, Score
from evals.judges.judge import Judge, passing_note, passing_reasons, settled
from evals.rates.estimands import ESTIMANDS
from evals.rates.summary import summarize_arm
from evals.rates.uncertainty import rate_interval
from evals.samplers import AnswerSampler
from evals.samplers.hf import HFSampler
from evals.samplers.later import LaterSampler
from evals.sampling import plan_prompts, sample_with

log = logging.getLogger(__name__)


def ask(
    make: Callable[[], AnswerSampler],
    arm: str,
    questions: Sequence[Question],
    *,
    path: Path,
    sampling: SamplingConfig,
    seed: int,
    system: str | None = None,
    bars: Bars = no_bars,
) -> list[Completion]:
    """All answers of an arm, in the order of the plan; what `path` does not hold yet is sampled first.

    Args:
        make: gives the sampler, and is called only when an answer is missing.
        system: the run's system prompt.

    Raises:
        StageError: as `sample_with`, or a server gave no answer to some, with the reason; what it gave is kept.
    """
    planned = plan_prompts(arm, questions, sampling.samples_per_paraphrase, seed=seed, system=system)
    sampler = LaterSampler(make)
    n_done = sampler.make_for(planned, path)  # loading is no part of the speed that is shown
    started, n_tokens = time.monotonic(), 0
    with bars(f"sample {arm}", len(planned)) as advance:
        advance(n_done)

        def tell(n: int, tokens: int) -> None:
            nonlocal n_tokens
            n_tokens += tokens
            advance(n, note=f"{n_tokens / (time.monotonic() - started):.0f} tokens/s")

        sampled = sample_with(
            sampler, arm, questions, config=sampling, path=path, seed=seed, system=system, progress=tell
        )
    if sampled.missing:
        raise StageError(
            f"{path}: {len(sampled.missing)} of {len(planned)} answers of {arm} are missing "
            f"({next(iter(sampled.missing.values()))}); the same command asks for them again"
        )
    return sampled.answers


def complete_answers(path: Path, planned: Sequence[Completion], advice: str) -> list[Completion]:
    """All answers of a file, in the order of the plan.

    Args:
        planned: what was asked for (`plan_prompts`).
        advice: what to do when some are missing.

    Raises:
        DataError: an answer stands there more than once. StageError: answers are missing, or nobody asked for them.
    """
    found = by_key(RecordLog(path).read(Completion), path)
    wanted = [item.key for item in planned]
    check_complete(found, wanted, path, advice=advice)
    return [found[key] for key in wanted]


def judge_answers(
    judge: Judge,
    completions: list[Completion],
    questions: Sequence[Question],
    *,
    path: Path,
    arm: str,
    bars: Bars = no_bars,
) -> list[Score]:
    """Judge what `path` does not hold yet; returns a score for every completion, in their order.

    Raises:
        DataError: an answer is judged more than once. StageError: there are scores of another judge, or of answers that are not these.
    """
    kept = RecordLog(path)
    done = about(settled(kept, Score), by_key(completions, arm), path)
    foreign = {item.judge for item in done.values()} - {judge.name}
    if foreign:
        raise StageError(
            f"{path}: holds scores of {sorted(foreign)}, this run asks {judge.name}; give another --run-dir"
        )
    by_its_key = {completion.key: completion for completion in completions}
    with bars(f"score {arm}", len(completions)) as advance:
        scores = Journal(kept, done.values(), lambda score: score.key, advance=advance)

        def judge_missing(missing: list[Key]) -> None:
            judge.score(
                [by_its_key[key] for key in missing], {question.id: question for question in questions}, scores.keep
            )

        found = scores.fill(
            list(by_its_key),
            judge_missing,
            together=judge.together,
            lost=lambda key: f"{judge.name} gave no score for {key_text(key)}",
        )
    if note := passing_note(passing_reasons(found)):
        log.warning("%s: %s", arm, note)
    return found


def has_passing(path: Path) -> bool:
    """Whether a file of scores has some that the judge is asked for again."""
    return path.exists() and any(score.passing for score in RecordLog(path).read(Score))


def asks_again(folder: Path, files: Sequence[str]) -> bool:
    """Whether a finished stage of a run folder left answers that its judge failed to judge in passing.

    Args:
        files: what the stage made, relative to the folder.
    """
    paths = [PurePosixPath(file) for file in files]
    scores = [
        path
        for path in paths
        if (path.parts[0] == "scores" and path.suffix == ".jsonl")
        or (path.parts[0] == "interventions" and path.name == "scores.jsonl")
    ]
    return any(has_passing(folder / path) for path in scores)


def pooled_rates(scores: Sequence[Score], judge: str, suite: str) -> list[dict[str, Any]]:
    """Rates of one model for its card; an estimand without an eligible answer is left out."""
    found = {name: rate_interval(scores, estimand, "pooled") for name, estimand in ESTIMANDS.items()}
    return [
        {
            "estimand": name,
            "value": row.value,
            "low": row.low,
            "high": row.high,
            "judge": judge,
            "suite": suite,
            "n": row.n,
        }
        for name, row in found.items()
        if row.value is not None
    ]


class CellAsker:
    """Asks a model under an intervention, and has its answers judged, in the folder of the cell (`emis_interp.passes.effects.Asker`)."""

    def __init__(
        self,
        judge: Judge,
        questions: Sequence[Question],
        *,
        sampling: SamplingConfig,
        seed: int,
        system: str | None = None,
        bars: Bars = no_bars,
    ) -> None:
        self.judge, self.questions, self.bars = judge, questions, bars
        self._how: dict[str, Any] = {"sampling": sampling, "seed": seed, "system": system, "bars": bars}

    def ask(self, chat_model: ChatModel, name: str, folder: Path) -> list[Completion]:
        return ask(lambda: HFSampler(chat_model), name, self.questions, path=folder / "samples.jsonl", **self._how)

    def figures(self, answers: list[Completion], name: str, folder: Path) -> dict[str, Any]:
        """What the judge says of the answers: n, n_code, mean_aligned, mean_coherent, em_of_all (pooled)."""
        path = folder / "scores.jsonl"
        scores = judge_answers(self.judge, answers, self.questions, path=path, arm=name, bars=self.bars)
        summary = summarize_arm(name, answers, scores)
        rate = next(r for r in summary["rates"] if r["estimand"] == "em_of_all" and r["weighting"] == "pooled")
        return {
            "n": summary["n"],
            "n_code": summary["n_code"],
            "mean_aligned": summary["mean_aligned"],
            "mean_coherent": summary["mean_coherent"],
            "em_of_all": rate,
        }

    def asks_again(self, folder: Path) -> bool:
        """Whether the judge failed in passing: the answers stay, and it is asked again."""
        return has_passing(folder / "scores.jsonl")
