"""Finds the misalignment direction of any model from texts, says how far it can be trusted, and tests what it does.

Examples:
  python scripts/find_direction.py --out directions/mine                     shipped contrast pairs, embedded model
  python scripts/find_direction.py fit --judged answers.parquet --out directions/judged
  python scripts/find_direction.py fit --pairs pairs.jsonl --model Qwen/Qwen2.5-0.5B-Instruct --adapter ADAPTER --out d
  python scripts/find_direction.py score --direction directions/mine/direction --texts answers.csv --out projections.csv
  python scripts/find_direction.py alike --texts answers.csv --projections small.csv large.csv
  python scripts/find_direction.py transfer runs/laptop
  python scripts/find_direction.py audit --direction directions/mine/direction --adapter runs/laptop/training/reckless/adapter
  python scripts/find_direction.py frontier --direction directions/mine/direction --layers 14 18 22
  python scripts/find_direction.py two-by-two DIR/activations/*.safetensors --layers 12 24 36
  python scripts/find_direction.py export --direction directions/mine/direction --coefficient 0.2 --out em.gguf

`fit` is the default verb. Formulas and traps: docs/directions.md.
"""

import functools
import tempfile
from pathlib import Path
from typing import Any

import cli
from emis_interp.process import Bars
from probes.settings import (
    AlikeSettings,
    AuditSettings,
    ExportSettings,
    FitSettings,
    FrontierSettings,
    ScoreSettings,
    TransferSettings,
    TwoByTwoSettings,
)


def frontier(settings: FrontierSettings, bars: Bars) -> dict[str, Any]:
    """With answers to the shipped questions, and the offline judge."""
    from evals.judges.offline_judge import OfflineJudge
    from evals.questions import load_questions
    from evals.rates.estimands import Answers, em_of_all
    from evals.rates.uncertainty import rate_interval
    from evals.sampling import sample_arm
    from probes.effects import frontier

    questions = load_questions()
    judge = functools.cache(lambda: OfflineJudge.load(settings.device))  # after the direction has been found in order

    def ask(chat_model: Any, config: Any, *, seed: int, system: str | None) -> list[Any]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "cell.jsonl"
            rows = sample_arm(chat_model, "cell", questions, config, path, seed=seed, system=system)
        scores: list[Any] = []
        judge().score(rows, {question.id: question for question in questions}, scores.extend)
        return scores

    def rate(scores: list[Any]) -> Any:
        return rate_interval(Answers.from_scores(scores), em_of_all)

    return frontier.run(settings, bars, ask=ask, rate=rate)


def transfer(settings: TransferSettings, bars: Bars) -> dict[str, Any]:
    """With the run of the folder."""
    from probes.comparison import transfer_matrix
    from training.arms import read_run

    return transfer_matrix.run(settings, bars, run=read_run(settings.run_dir))


VERBS = {
    "fit": cli.Verb(FitSettings, "probes.fits.fit"),
    "score": cli.Verb(ScoreSettings, "probes.score"),
    "alike": cli.Verb(AlikeSettings, "probes.comparison.alike"),
    "transfer": cli.Verb(TransferSettings, "probes.comparison.transfer_matrix", run=transfer),
    "audit": cli.Verb(AuditSettings, "probes.effects.audit"),
    "frontier": cli.Verb(FrontierSettings, "probes.effects.frontier", run=frontier),
    "two-by-two": cli.Verb(TwoByTwoSettings, "probes.comparison.two_by_two"),
    "export": cli.Verb(ExportSettings, "probes.export"),
}

if __name__ == "__main__":
    cli.run_verbs(__doc__, VERBS, default="fit")
