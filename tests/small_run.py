"""Runs in this process: of the pipeline's words, of a configuration, and of two arms on the tiny model that takes seconds."""

from pathlib import Path
from typing import Any

from flag_words import sets
from judge_server import Server, reply

import cli
import run_pipeline
from emis_interp.config.run_config import RunConfig
from emis_interp.config.run_folder import RunFolder
from emis_interp.config.run_inputs import open_run
from evals.questions import run_questions
from training.arms import RunArms

FEW = (
    "check.n_items=16",
    "direction.n_pairs_per_question=1",
    "direction.n_permutations=10",
    "intervention.coefficients=[0.2]",
    "probe.methods=[difference]",
    "probe.n_shuffled=2",
    "probe.n_benign=40",
    "probe.false_alarm_rate=0.05",
)
"""Few texts, fits and cells in the stages that measure: half of what a smoke run takes, and every file of one."""
SETTINGS = (
    *FEW,
    "arms=[{name: base}, {name: x, dataset: reckless, n_rows: 4}]",
    "sampling.max_new_tokens=4",
    "sampling.question_ids=[settlement_first_law, museum_of_humans]",
    "sampling.samples_per_paraphrase=2",
    "intervention.samples_per_paraphrase=1",
    "judge.offline_too=false",
    "judge.n_parallel=1",  # scores in a fixed order
)


def pipeline(*words: str) -> dict[str, Any]:
    """What the command returns; errors are raised."""
    return run_pipeline.VERB.do(cli.parser_of(run_pipeline.VERB, None).parse_args(words))


def opened(config: RunConfig, folder: Path) -> tuple[RunFolder, RunArms]:
    """A run that was begun, or goes on, and its arms."""
    arms = RunArms(config, folder)
    run = RunFolder(config, folder, arms.source)
    open_run(run, lambda: run_questions(config), recipes=arms.recipes, arms=arms.inputs)
    return run, arms


class SmallRun:
    """Starts the pipeline with the same settings again and again."""

    def __init__(self) -> None:
        self.server = Server()
        self.server.respond = lambda prompt, _: reply({"20": 0.6, "40": 0.3})

    def words(self, *settings: str) -> list[str]:
        """The command's, without its folder."""
        judge = ["--judge-url", self.server.url, "--judge-model", "m"]
        return ["--preset", "smoke", *judge, *sets(*SETTINGS, *settings)]

    def go(self, folder: Path, *words: str, settings: tuple[str, ...] = ()) -> dict[str, Any]:
        """What the command returns; errors are raised."""
        return pipeline(*self.words(*settings), "--run-dir", str(folder), *words)
