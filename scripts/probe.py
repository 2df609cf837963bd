"""Reads misalignment out of the residual stream, while a model writes and afterwards, and says how far that can be trusted.

Examples:
  python scripts/probe.py calibrate --direction directions/mine --benign advice --held-out harmless --out threshold.json
  python scripts/probe.py monitor chats.jsonl --direction directions/mine --threshold threshold.json --out watched
  python scripts/probe.py detect answers.parquet --direction directions/mine --threshold threshold.json --out detect.json
"""

from collections.abc import Sequence
from typing import Any

import cli
from emis_interp.process import Bars
from probes.monitoring.settings import CalibrateSettings, DetectSettings, WatchSettings


def calibrate(settings: CalibrateSettings, bars: Bars) -> dict[str, Any]:
    """With the shipped careful advice as a benign source."""
    from probes.monitoring import calibrate
    from training.data_sets.shipped import advice_pairs

    def advice() -> list[tuple[str, str, str]]:
        return [(pair.id, pair.prompt, pair.careful) for pair in advice_pairs()]

    return calibrate.run(settings, bars, shipped={"advice": advice})


def detect(settings: DetectSettings, bars: Bars) -> dict[str, Any]:
    """With the offline judge for sentences."""
    from evals.judges.offline_judge import OfflineJudge
    from probes.monitoring import detect

    def judge(texts: Sequence[tuple[str, str]]) -> list[float]:
        return OfflineJudge.load(settings.device).predict(texts)[:, 0].tolist()

    return detect.run(settings, bars, judge=judge)


VERBS = {
    "calibrate": cli.Verb(CalibrateSettings, "probes.monitoring.calibrate", run=calibrate),
    "monitor": cli.Verb(WatchSettings, "probes.monitoring.monitor"),
    "detect": cli.Verb(DetectSettings, "probes.monitoring.detect", run=detect),
}

if __name__ == "__main__":
    cli.run_verbs(__doc__, VERBS)
