"""Measures speed as a ratio against a peer or a physical floor in one alternating run; medians, because machines are noisy.

Example:
  python scripts/benchmark.py train --json
"""

from typing import Any

import cli
from benchmarks import bootstrap, capture, judge, sample, sweep, train

VERBS: dict[str, Any] = {
    "train": train,
    "capture": capture,
    "sample": sample,
    "judge": judge,
    "bootstrap": bootstrap,
    "sweep": sweep,
}


if __name__ == "__main__":
    parser = cli.verb_parser(__doc__, VERBS)
    cli.run(lambda args: args.verb_module.run(args), parser, lambda result: "\n".join(cli.flat_lines(result)))
