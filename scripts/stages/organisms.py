"""Stages 1-3: finetune each arm, sample it, and score its answers."""

import logging
import time
from pathlib import Path, PurePosixPath
from typing import Any

from cli import progress_bar
from emis_interp.config.run_config import ModelConfig, SamplingConfig
from emis_interp.errors import StageError
from emis_interp.files.ledger import files_in, remove
from emis_interp.files.rows import about, by_key, check_complete
from emis_interp.files.store import RecordLog, card_path, read_object, write_json
from emis_interp.models.chat_model import ChatModel
from emis_interp.records import Completion, Question, Score
from evals.judges.judge import Judge, passing_note, passing_reasons, settled
from evals.judges.making import make_judge
from evals.judges.offline_judge import OfflineJudge
from evals.rates.agreement import agreement
from evals.rates.estimands import ESTIMANDS
from evals.rates.summary import summarize_arms
from evals.rates.uncertainty import rate_interval
from evals.sampling import plan_prompts, sample_arm
from stages.run import Run
from training.finetuning.organism_card import Figure, add_figures
from training.lint.copies import asked_texts
from training.organism import train_organism, write_organism_card

log = logging.getLogger(__name__)


def train(run: Run) -> tuple[list[Path], str]:
    """Finetune every model that has a data set and does not read it in its context."""
    files, parts = [], []
    asked = asked_texts(run.questions, run.pairs)
    for model in run.config.models:
        if model.arm.in_context is not None:
            parts.append(f"{model.name} not trained: {model.arm.in_context} examples before every question")
        if model.arm not in run.config.trained_arms:
            continue
        rows, out_dir, weights = run.rows(model), run.training_dir(model), run.weights(model)[0]
        recipe, training = run.recipe(model.arm), run.training(model.arm)
        places = [out_dir / name for name in ("summary.json", "lint.json", "metrics.jsonl", "checkpoints")] + [weights]
        with run.files.making("train", places) as whole:
            if not whole:
                remove(out_dir / "card.json")  # its figures are of other weights
                train_organism(
                    model.name,
                    rows,
                    training,
                    out_dir=out_dir,
                    config=run.config,
                    seed=model.seed,
                    recipe=recipe,
                    asked=asked,
                    bars=progress_bar,
                )
        summary = read_object(out_dir / "summary.json")
        card = [out_dir / "card.json", weights / "README.md"]
        with run.files.making("train", card, inputs=places[:1], anew=True):
            write_organism_card(out_dir, rows, training, seed=model.seed, name=model.name, recipe=recipe)
        files += [path for place in places for path in files_in(place)] + card
        parts.append(f"{model.name} loss {summary['final_loss']:.3f} ({summary['tokens_per_second']:.0f} tokens/s)")
    return files, "; ".join(parts)


def sample(run: Run) -> tuple[list[Path], str]:
    """Ask every model every question."""
    files, n_answers, n_tokens, resumed = [], 0, 0, False
    started = time.monotonic()
    for model in run.config.models:
        path = samples_path(run, model)
        with run.files.making("sample", [path, card_path(path)], inputs=run.weights(model)):
            resumed |= path.exists()
            answers = ask(run, lambda model=model: run.load(model), model.name, path=path, sampling=run.config.sampling)
        files += [path, card_path(path)]
        n_answers += len(answers)
        n_tokens += sum(answer.n_tokens for answer in answers)
    speed = "" if resumed else f" ({n_tokens / (time.monotonic() - started):.0f} tokens/s with loading)"
    return files, f"{n_answers} answers of {len(run.config.arms)} arms, {n_tokens} tokens{speed}"


def samples_path(run: Run, model: ModelConfig) -> Path:
    return run.folder / "samples" / f"{model.name}.jsonl"


def answers_of(run: Run, model: ModelConfig) -> list[Completion]:
    """All answers of a model, in the order of the plan.

    Raises:
        DataError: an answer stands there more than once. StageError: answers are missing, or nobody asked for them.
    """
    path = samples_path(run, model)
    found = by_key(RecordLog(path).read(Completion), path)
    wanted = [item.key for item in plan(run, model.name, run.config.sampling)]
    check_complete(found, wanted, path, advice="run the sample stage again (--from sample)")
    return [found[key] for key in wanted]


def score(run: Run) -> tuple[list[Path], str]:
    """Judge every answer, then state rates, means and contrasts; beside another judge the offline judge speaks too."""
    judge = make_judge(run.config.judge, run.config.device)
    folder = run.folder / "scores"
    by_arm, result = judge_arms(run, judge, run.config.judge.kind, folder=folder)
    files = [folder / f"{model.name}.jsonl" for model in run.config.models]
    if run.config.judge.kind != "offline" and run.config.judge.offline_too:
        offline = OfflineJudge.load(device=run.config.device)
        others, second = judge_arms(run, offline, "offline", folder=folder / "offline")
        first_scores, other_scores = (
            [score for _, scores in judged.values() for score in scores] for judged in (by_arm, others)
        )
        result["second_judge"] = {**second, "agreement": agreement(first_scores, other_scores)}
        files += [folder / "offline" / f"{model.name}.jsonl" for model in run.config.models]
    path = run.folder / "analysis" / "rates.json"
    with run.files.making("score", [path], inputs=files, anew=True):
        write_json(path, result)
    for model in run.config.models:
        if model.arm in run.config.trained_arms:
            files += put_rates_on_card(run, model, judge.name)
    means = [f"{arm['arm']} {number(arm['mean_aligned']['value'], '.0f')}" for arm in result["arms"]]
    return [*files, path], f"mean aligned score by {judge.name}: {', '.join(means)}"


def put_rates_on_card(run: Run, model: ModelConfig, judge: str) -> list[Path]:
    """The measured rates of a trained model, on its card and README."""
    out_dir, weights = run.training_dir(model), run.weights(model)[0]
    scores = run.folder / "scores" / f"{model.name}.jsonl"
    card = [out_dir / "card.json", weights / "README.md"]
    with run.files.making("score", card, inputs=[out_dir / "summary.json", scores], anew=True):
        if not card[0].exists():
            arm = model.arm
            write_organism_card(
                out_dir, run.rows(model), run.training(arm), seed=model.seed, name=model.name, recipe=run.recipe(arm)
            )
        add_figures(out_dir, figures_of(RecordLog(scores).read(Score), judge, run.config.sampling.questions))
    return card


def figures_of(scores: list[Score], judge: str, suite: str) -> list[Figure]:
    """Pooled rates of one model for its card; an estimand without an eligible answer is left out."""
    found = {name: rate_interval(scores, estimand, "pooled") for name, estimand in ESTIMANDS.items()}
    return [
        Figure(estimand=name, value=row.value, low=row.low, high=row.high, judge=judge, suite=suite, n=row.n)
        for name, row in found.items()
        if row.value is not None
    ]


def judge_arms(
    run: Run, judge: Judge, kind: str, *, folder: Path
) -> tuple[dict[str, tuple[list[Completion], list[Score]]], dict[str, Any]]:
    """Answers and scores of every arm, all its models together, kept in `folder`, and their summary with the judge's card."""
    by_arm: dict[str, tuple[list[Completion], list[Score]]] = {arm.name: ([], []) for arm in run.config.arms}
    for model in run.config.models:
        completions, path = answers_of(run, model), folder / f"{model.name}.jsonl"
        with run.files.making("score", [path], inputs=[samples_path(run, model)], go_on=has_passing(path)):
            scores = judge_answers(judge, completions, run.questions, path=path, arm=model.name)
        by_arm[model.arm.name][0].extend(completions)
        by_arm[model.arm.name][1].extend(scores)
    contrasts = [(arm.name, other) for arm in run.config.organisms for other in ("base", arm.contrast) if other]
    summary = summarize_arms(by_arm, contrasts)
    return by_arm, {"judge": {"name": judge.name, "kind": kind, "card": judge.card}, **summary}


def number(value: float | None, form: str) -> str:
    return "none" if value is None else format(value, form)


def plan(run: Run, arm: str, sampling: SamplingConfig) -> list[Completion]:
    """The answers that an arm is asked for, to be filled in."""
    return plan_prompts(
        arm, run.questions, sampling.samples_per_paraphrase, seed=run.config.seed, system=run.config.system_prompt
    )


def ask(
    run: Run, load: Any, arm: str, *, path: Path, sampling: SamplingConfig, chat_model: ChatModel | None = None
) -> list[Completion]:
    """Sample an arm; the model is loaded only when an answer is missing."""
    planned = plan(run, arm, sampling)
    done = by_key(RecordLog(path).read(Completion), path)
    missing = [item for item in planned if item.key not in done]
    if missing and chat_model is None:
        chat_model = load()
    model = chat_model if chat_model is not None else run.base
    started, n_tokens = time.monotonic(), 0
    with progress_bar(f"sample {arm}", len(planned)) as advance:
        advance(len(planned) - len(missing))

        def tell(n: int, tokens: int) -> None:
            nonlocal n_tokens
            n_tokens += tokens
            advance(n, note=f"{n_tokens / (time.monotonic() - started):.0f} tokens/s")

        return sample_arm(
            model,
            arm,
            run.questions,
            config=sampling,
            path=path,
            seed=run.config.seed,
            system=run.config.system_prompt,
            progress=tell,
        )


def judge_answers(
    judge: Judge, completions: list[Completion], questions: list[Question], *, path: Path, arm: str
) -> list[Score]:
    """Judge what `path` does not hold yet; returns a score for every completion, in their order.

    Raises:
        DataError: an answer is judged more than once. StageError: there are scores of another judge, or of answers that are not these.
    """
    log = RecordLog(path)
    done = about(settled(log, Score), by_key(completions, arm), path)
    foreign = {item.judge for item in done.values()} - {judge.name}
    if foreign:
        raise StageError(
            f"{path}: holds scores of {sorted(foreign)}, this run asks {judge.name}; give another --run-dir"
        )
    missing = [completion for completion in completions if completion.key not in done]
    with progress_bar(f"score {arm}", len(completions)) as advance:
        advance(len(completions) - len(missing))

        def keep(batch: list[Score]) -> None:
            log.append(batch)
            done.update((item.key, item) for item in batch)
            advance(len(batch))

        if missing:
            judge.score(missing, {question.id: question for question in questions}, keep)
    if note := passing_note(passing_reasons(done.values())):
        logging.getLogger(__name__).warning("%s: %s", arm, note)
    return [done[completion.key] for completion in completions]


def asks_again(run: Run, stage: str) -> bool:
    """Whether a finished stage left answers that its judge failed to judge in passing."""
    files = [PurePosixPath(file) for file in run.manifest.stages[stage].files]
    scores = [
        file
        for file in files
        if (file.parts[0] == "scores" and file.suffix == ".jsonl")
        or (file.parts[0] == "interventions" and file.name == "scores.jsonl")
    ]
    return any(has_passing(run.folder / file) for file in scores)


def has_passing(path: Path) -> bool:
    """Whether a file of scores has some that the judge is asked for again."""
    return path.exists() and any(score.passing for score in RecordLog(path).read(Score))
