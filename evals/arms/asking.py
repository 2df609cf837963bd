"""Turns an arm into answers and answers into scores, each kept in a file of its own that an interrupted command goes on with."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from emis_interp.config.run_config import SamplingConfig
from emis_interp.errors import StageError
from emis_interp.files.journal import LongJournal
from emis_interp.files.rows import key_text, placed
from emis_interp.files.store import RecordLog
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.effects import Around, Steering
from emis_interp.process import Bars, no_bars
from emis_interp.records import Completion, Question, Score
from evals.arms.model_answers import ListedAnswers, ModelAnswers
from evals.judges.judge import Judge, has_passing, passing_note, settled_rows
from evals.rates.counts import Answers
from evals.rates.estimands import ESTIMANDS
from evals.rates.judged import JudgedColumns, ScoreColumns
from evals.rates.summary import summarize_arm
from evals.rates.uncertainty import rate_interval
from evals.samplers import AnswerSampler
from evals.samplers.hf import HFSampler
from evals.samplers.later import LaterSampler
from evals.sampling import plan_prompts, sample_with

log = logging.getLogger(__name__)
JUDGED_AT_ONCE = 8192
"""So many answers are in memory while a judge is asked about them."""


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


def judge_answers(
    judge: Judge,
    answers: ModelAnswers | Sequence[Completion],
    questions: Sequence[Question],
    *,
    path: Path,
    arm: str,
    bars: Bars = no_bars,
) -> JudgedColumns:
    """Judge what `path` does not hold yet; returns the figures of every answer, in their order. Answers and scores are read once.

    Raises:
        DataError: an answer is judged more than once. StageError: there are scores of another judge, or of answers that are not these.
    """
    kept, by_id = RecordLog(path), {question.id: question for question in questions}
    placed_answers = answers if isinstance(answers, ModelAnswers) else ListedAnswers(answers, arm)
    columns, foreign = ScoreColumns(len(answers)), set[str]()

    def ours(scores: Iterator[Score]) -> Iterator[Score]:
        for _, score in placed(scores, placed_answers, path):
            foreign.update({score.judge} - {judge.name})
            yield score
        if foreign:
            raise StageError(
                f"{path}: holds scores of {sorted(foreign)}, this run asks {judge.name}; give another --run-dir"
            )

    def place_of(score: Score) -> int:
        place = placed_answers.place_of(score.key)
        if place is None:
            raise StageError(f"{judge.name} gave a score for {key_text(score.key)}, which it was not asked for")
        return place

    def judge_missing(missing: list[int]) -> None:
        n_at_once = judge.together * max(1, JUDGED_AT_ONCE // judge.together)
        for start in range(0, len(missing), n_at_once):
            judge.score(list(placed_answers.at(missing[start : start + n_at_once])), by_id, scores.keep)

    def lost(place: int) -> str:
        return f"{judge.name} gave no score for {key_text(next(iter(placed_answers.at([place]))).key)}"

    with bars(f"score {arm}", len(answers)) as advance:
        scores = LongJournal(kept, ours(settled_rows(kept, Score)), place_of, put=columns.put, advance=advance)
        scores.complete(range(len(answers)), judge_missing, together=judge.together, lost=lost)
    found = columns.of(placed_answers)
    if note := passing_note(found.passing):
        log.warning("%s: %s", arm, note)
    return found


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


def pooled_rates(answers: Answers, judge: str, suite: str) -> list[dict[str, Any]]:
    """Rates of one model for its card; an estimand without an eligible answer is left out."""
    found = {name: rate_interval(answers, estimand, "pooled") for name, estimand in ESTIMANDS.items()}
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
    """Asks a model under an intervention, and has its answers judged, in the folder of the cell (`emis_interp.passes.effects.Asker`).

    Args:
        steered: a sampler of a server that steers base itself; None asks the model at hand.
    """

    def __init__(
        self,
        judge: Judge,
        questions: Sequence[Question],
        *,
        sampling: SamplingConfig,
        seed: int,
        system: str | None = None,
        steered: Callable[[Steering], AnswerSampler] | None = None,
        bars: Bars = no_bars,
    ) -> None:
        self.judge, self.questions, self.steered, self.bars = judge, questions, steered, bars
        self._how: dict[str, Any] = {"sampling": sampling, "seed": seed, "system": system, "bars": bars}

    def ask(self, chat_model: ChatModel, name: str, folder: Path, *, under: Around) -> list[Completion]:
        make: Callable[[], AnswerSampler] = partial(HFSampler, chat_model)
        if self.steered is not None and isinstance(under, Steering):
            make = partial(self.steered, under)
        return ask(make, name, self.questions, path=folder / "samples.jsonl", **self._how)

    def figures(self, answers: list[Completion], name: str, folder: Path) -> dict[str, Any]:
        """What the judge says of the answers: n, n_code, mean_aligned, mean_coherent, em_of_all (pooled)."""
        path = folder / "scores.jsonl"
        summary = summarize_arm(
            name, judge_answers(self.judge, answers, self.questions, path=path, arm=name, bars=self.bars)
        )
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
