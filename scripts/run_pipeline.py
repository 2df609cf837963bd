"""Turns a preset into a run folder: train, check, sample, score, likelihood, choices, capture, direction, intervene, probe, report.

Examples:
  python scripts/run_pipeline.py                                   the laptop preset, into runs/laptop
  python scripts/run_pipeline.py --preset smoke --run-dir /tmp/s   a tiny random model, under a minute
  python scripts/run_pipeline.py --preset laptop-0.5b --quick      a first look, into runs/laptop-0.5b-quick
  python scripts/run_pipeline.py --set training.learning_rate=2e-4 --run-dir runs/lr2e-4
  python scripts/run_pipeline.py --from direction                  repeat the direction and what follows it

A run that was stopped continues with the same command. Every stage prints one line of result. The manifest keeps a hash of every file and
of what it was made from: a file that changed since is named and refused, and what was made from another file is made again.
"""

import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cli
from emis_interp.config.flags import flag, settings
from emis_interp.config.pipeline_settings import RunSettings, chosen_stages
from emis_interp.files.lock import writing
from emis_interp.process import Bars, each, release_memory, set_imports_aside
from emis_interp.report.words import said_of as say

if TYPE_CHECKING:
    from emis_interp.config.run_folder import RunFolder
    from emis_interp.records import Question
    from training.arms import RunArms

STAGES = ("train", "check", "sample", "score", "likelihood", "choices", "capture", "direction", "intervene", "probe", "report")  # fmt: skip
Made = tuple[list[Path], str]
"""The files of a stage, and its line."""


@settings
class PipelineSettings(RunSettings):
    """A run, and which of its stages are made."""

    only: tuple[str, ...] | None = flag(f"run these stages only: {', '.join(STAGES)}", default=None, metavar="STAGE")
    start: str | None = flag(
        "run this stage and all that follow; files that were made from what is there now are kept",
        default=None,
        names=("--from",),
        metavar="STAGE",
    )
    show_config: bool = flag("print the resolved configuration and stop", default=False)


def run(settings: PipelineSettings, bars: Bars) -> dict[str, Any]:
    config = settings.config()
    wanted = chosen_stages(STAGES, settings.only, settings.start)
    chosen = wanted if settings.only or settings.start else []
    if settings.show_config:
        return config.model_dump(mode="json")
    from emis_interp.config.run_changes import check_files
    from emis_interp.config.run_folder import RunFolder
    from emis_interp.config.run_inputs import open_run
    from emis_interp.planning.stages import Counters, expected_seconds
    from evals.arms import planned as asked
    from evals.arms.stages import unfinished
    from evals.engines.arms import check_engine
    from evals.questions import run_questions
    from probes.stages import planned as read
    from training import planned as trained
    from training.arms import RunArms

    arms = RunArms(config, settings.run_dir or Path("runs") / config.name)
    run = RunFolder(config, arms.folder, arms.source)
    questions = cache(lambda: run_questions(config))
    stages = stages_of(run, arms, questions, bars=bars)
    set_imports_aside()
    with writing(run.folder):
        open_run(run, questions, recipes=arms.recipes, arms=arms.inputs, check=partial(check_engine, run))
        check_files(run, STAGES, chosen)
        cli.terminal.say(run.words, style="bold")
        todo = chosen or unfinished(run, wanted)
        if run.manifest.files and todo:
            cli.terminal.say(f"goes on with stage {wanted.index(todo[0]) + 1} of {len(wanted)}, {todo[0]}")
        work = expected_seconds(arms, questions, Counters(trained, asked, read), todo=todo)
        for name in each(bars, "stage", wanted, work=[work.get(name, 1.0) for name in wanted]):
            if name not in todo and run.is_done(name):
                cli.terminal.say(f"{name:10} done before: {run.manifest.stages[name].line}", hanging=11, style="dim")
            else:
                run_stage(run, name, stages[name])
    return {
        "run_dir": str(run.folder),
        "stages": {name: stage.model_dump() for name, stage in run.manifest.stages.items()},
        "report": str(run.folder / "report" / "index.html") if run.is_done("report") else None,
    }


def stages_of(
    run: "RunFolder", arms: "RunArms", questions: Callable[[], Sequence["Question"]], *, bars: Bars
) -> dict[str, Callable[[], Made]]:
    """How every stage is made; what one package knows and another needs is handed over here."""
    from emis_interp.report.stage import report
    from evals.arms.stages import answers_of, cell_asker, run_judge, sample, score
    from probes.stages.capture import capture
    from probes.stages.choices import choose
    from probes.stages.direction import direction
    from probes.stages.intervene import intervene
    from probes.stages.likelihood import likelihood
    from probes.stages.probe import probe
    from training.data_sets.shipped import careful_advice
    from training.learned import check
    from training.lint.copies import asked_texts
    from training.stages import put_rates_on_cards, train

    answers = partial(answers_of, run, questions)

    def scored() -> Made:
        with run_judge(run) as judge:
            found = score(run, questions(), judge, bars=bars)
        return found.files + put_rates_on_cards(run, arms, found.rates), found.line

    return {
        "train": lambda: train(run, arms, asked=asked_texts(questions(), run.pairs), bars=bars),
        "check": lambda: check(run, arms, bars),
        "sample": lambda: sample(run, questions(), bars),
        "score": scored,
        "likelihood": lambda: likelihood(run, bars),
        "choices": lambda: choose(run, bars),
        "capture": lambda: capture(run, answers, bars),
        "direction": lambda: direction(run),
        "intervene": lambda: intervene(run, lambda: cell_asker(run, questions(), bars), bars),
        "probe": lambda: probe(run, answers, shipped={"advice": careful_advice}, bars=bars),
        "report": lambda: report(run),
    }


def run_stage(run: "RunFolder", name: str, make: Callable[[], Made]) -> None:
    """Run one stage, put it into the manifest, and print its line."""
    from training.finetuning.sft import peak_rss_gib

    for change in run.begin(name, STAGES[STAGES.index(name) + 1 :]):
        cli.terminal.say(f"{name:10} since the run began: {change}", hanging=11, style="dim")
    started, cpu_started = time.monotonic(), time.process_time()
    files, line = make()
    seconds, cpu = time.monotonic() - started, time.process_time() - cpu_started
    release_memory()
    run.finish(name, files, seconds, line=line, peak_rss_gib=peak_rss_gib(), cpu_seconds=cpu)
    cli.terminal.say(f"{name:10} {seconds:6.1f} s  {line}", hanging=21)


VERB = cli.Verb(PipelineSettings, "run_pipeline", run)

if __name__ == "__main__":
    cli.run(VERB.do, cli.parser_of(VERB, __doc__), say)
