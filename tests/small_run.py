"""A run of two arms on the tiny model that takes seconds, in this process, with a loopback judge: what tests of run folders break."""

from pathlib import Path
from typing import Any

from judge_server import Server, reply

import run_pipeline

SETTINGS = (
    "arms=[{name: base}, {name: x, dataset: reckless, n_rows: 4}]",
    "sampling.max_new_tokens=4",
    "sampling.question_ids=[settlement_first_law, museum_of_humans]",
    "sampling.samples_per_paraphrase=2",
    "direction.n_pairs_per_question=1",
    "direction.n_permutations=10",
    "intervention.coefficients=[0.2]",
    "intervention.samples_per_paraphrase=1",
    "judge.offline_too=false",
    "judge.n_parallel=1",  # scores in a fixed order
)


class SmallRun:
    """Starts the pipeline with the same settings again and again."""

    def __init__(self) -> None:
        self.server = Server()
        self.server.respond = lambda prompt, _: reply({"20": 0.6, "40": 0.3})

    def go(self, folder: Path, *words: str, settings: tuple[str, ...] = ()) -> dict[str, Any]:
        """What the command returns; errors are raised."""
        sets = [word for value in (*SETTINGS, *settings) for word in ("--set", value)]
        judge = ["--judge-url", self.server.url, "--judge-model", "m"]
        args = ["--preset", "smoke", "--run-dir", str(folder), *judge, *sets, *words]
        return run_pipeline.main(run_pipeline.parser().parse_args(args))
