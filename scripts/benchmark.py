"""Measures speed as a ratio against a peer or a physical floor in one alternating run; medians, because machines are noisy.

Example:
  python scripts/benchmark.py train --json
"""

import cli
from benchmarks import settings

VERBS = {
    "threads": cli.Verb(settings.ThreadBenchmarkSettings, "benchmarks.threads"),
    "train": cli.Verb(settings.TrainBenchmarkSettings, "benchmarks.train"),
    "capture": cli.Verb(settings.CaptureBenchmarkSettings, "benchmarks.capture"),
    "sample": cli.Verb(settings.SampleBenchmarkSettings, "benchmarks.sample"),
    "judge": cli.Verb(settings.JudgeBenchmarkSettings, "benchmarks.judge"),
    "bootstrap": cli.Verb(settings.BootstrapBenchmarkSettings, "benchmarks.bootstrap"),
    "sweep": cli.Verb(settings.SweepBenchmarkSettings, "benchmarks.sweep"),
    "memory": cli.Verb(settings.MemoryBenchmarkSettings, "benchmarks.memory"),
    "monitor": cli.Verb(settings.MonitorBenchmarkSettings, "benchmarks.monitor"),
}

if __name__ == "__main__":
    cli.run_verbs(__doc__, VERBS)
