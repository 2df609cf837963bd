"""Reads misalignment out of a model: probes, a monitor while it writes, what its weights changed, and where in it a preference forms.

Examples:
  python scripts/probe.py fit --out probes/mine                                   shipped contrast pairs, embedded model
  python scripts/probe.py fit --judged answers.parquet --variants plain json template --where kind=sampled --out probes/judged
  python scripts/probe.py calibrate --direction directions/mine --benign advice --held-out harmless --out threshold.json
  python scripts/probe.py monitor chats.jsonl --direction directions/mine --threshold threshold.json --out watched
  python scripts/probe.py detect answers.parquet --direction directions/mine --threshold threshold.json --out detect.json
  python scripts/probe.py weights --adapter runs/laptop/training/reckless/adapter --direction directions/mine --out weights.json
  python scripts/probe.py lens --adapter runs/laptop/training/reckless/adapter --direction directions/mine --out lens.json
  python scripts/probe.py patch --adapter runs/laptop/training/reckless/adapter --n-pairs 1 --out patch.json
  python scripts/probe.py sae --out saes/half                                     two seeds on shipped texts, layer at half depth
  python scripts/probe.py latents --sae saes/half/seed-0/sae --adapter runs/laptop/training/reckless/adapter --out latents
  python scripts/probe.py difference-sae --adapter runs/laptop/training/reckless/adapter --out saes/difference
  python scripts/probe.py measure-sae --saes saes/half/seed-0/sae --out measured    one that is there, or RELEASE:ID
  python scripts/probe.py diff --adapter a/reckless/adapter --control a/careful/adapter --rows reckless --out diff.json

Methods, controls and figures: docs/probes.md and the chapters that it names.
"""

from collections.abc import Sequence
from typing import Any

import cli
from emis_interp.process import Bars
from probes.classifiers.settings import ProbeFitSettings
from probes.diffing.settings import DiffSettings
from probes.lens.settings import LensSettings, PatchSettings
from probes.monitoring.settings import CalibrateSettings, DetectSettings, WatchSettings
from probes.sae.latent_settings import DifferenceSaeSettings, LatentSettings
from probes.sae.settings import MeasureSaeSettings, SaeSettings
from probes.weights.settings import WeightsSettings


def calibrate(settings: CalibrateSettings, bars: Bars) -> dict[str, Any]:
    """With the shipped careful advice as a benign source."""
    from probes.monitoring import calibrate
    from training.data_sets.shipped import careful_advice

    return calibrate.run(settings, bars, shipped={"advice": careful_advice})


def detect(settings: DetectSettings, bars: Bars) -> dict[str, Any]:
    """With the offline judge for sentences."""
    from evals.judges.offline_judge import OfflineJudge
    from probes.monitoring import detect

    def judge(texts: Sequence[tuple[str, str]]) -> list[float]:
        return OfflineJudge.load(settings.device).predict(texts)[:, 0].tolist()

    return detect.run(settings, bars, judge=judge)


def sae_texts() -> dict[str, Any]:
    """The shipped training answers of both kinds, and answers of the project's own small models."""
    from evals.judges.hand_labels import shipped_labels
    from training.data_sets.shipped import advice_pairs, code_tasks

    def advice() -> list[tuple[str, str]]:
        return [(pair.prompt, answer) for pair in advice_pairs() for answer in (pair.careful, pair.reckless)]

    def code() -> list[tuple[str, str]]:
        return [(task.prompt, answer) for task in code_tasks() for answer in (task.secure, task.insecure)]

    def answers() -> list[tuple[str, str]]:
        return [(label.question, label.answer) for label in shipped_labels()]

    return {"advice": advice, "code": code, "answers": answers}


def sae(settings: SaeSettings, bars: Bars) -> dict[str, Any]:
    from probes.sae import train

    return train.run(settings, bars, shipped=sae_texts())


def measure_sae(settings: MeasureSaeSettings, bars: Bars) -> dict[str, Any]:
    from probes.sae import measure

    return measure.run(settings, bars, shipped=sae_texts())


def difference_sae(settings: DifferenceSaeSettings, bars: Bars) -> dict[str, Any]:
    from probes.sae import difference_sae

    return difference_sae.run(settings, bars, shipped=sae_texts())


def diff(settings: DiffSettings, bars: Bars) -> dict[str, Any]:
    """With shipped training sets and files of rows."""
    from probes.diffing import diff
    from training.data_sets.shipped import file_of, load_dataset

    def rows(name: str) -> list[tuple[str, str]]:
        return [(row.prompt, row.response) for row in load_dataset(name, file_of(name))]

    return diff.run(settings, bars, rows_of=rows)


VERBS = {
    "fit": cli.Verb(ProbeFitSettings, "probes.classifiers.fit"),
    "calibrate": cli.Verb(CalibrateSettings, "probes.monitoring.calibrate", run=calibrate),
    "monitor": cli.Verb(WatchSettings, "probes.monitoring.monitor"),
    "detect": cli.Verb(DetectSettings, "probes.monitoring.detect", run=detect),
    "weights": cli.Verb(WeightsSettings, "probes.weights.anatomy"),
    "sae": cli.Verb(SaeSettings, "probes.sae.train", run=sae),
    "measure-sae": cli.Verb(MeasureSaeSettings, "probes.sae.measure", run=measure_sae),
    "lens": cli.Verb(LensSettings, "probes.lens.look"),
    "patch": cli.Verb(PatchSettings, "probes.lens.patch"),
    "latents": cli.Verb(LatentSettings, "probes.sae.latents"),
    "difference-sae": cli.Verb(DifferenceSaeSettings, "probes.sae.difference_sae", run=difference_sae),
    "diff": cli.Verb(DiffSettings, "probes.diffing.diff", run=diff),
}

if __name__ == "__main__":
    cli.run_verbs(__doc__, VERBS)
