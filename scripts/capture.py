"""Keeps the activations of single tokens: a folder of checksummed shards that can be continued, shared by workers, and read lazily.

Examples:
  python scripts/capture.py --texts answers.parquet --out activations/mine --layers 10 14
  python scripts/capture.py --texts answers.jsonl --out activations/big --layers 17 --max-gib 40 --worker 0/2     in one process
  python scripts/capture.py --texts answers.jsonl --out activations/big --layers 17 --max-gib 40 --worker 1/2     in another
  python scripts/capture.py --check --out activations/big

The same command continues after any interruption; with other inputs it refuses.
`emis_interp.passes.token_store.TokenStore` reads the folder.
"""

from typing import Any

import cli
from emis_interp.config.capture_settings import CaptureSettings
from emis_interp.process import Bars


def run(settings: CaptureSettings, bars: Bars) -> dict[str, Any]:
    from emis_interp.passes import token_capture

    return token_capture.check(settings.out) if settings.check else token_capture.run(settings.request(), bars)


VERB = cli.Verb(CaptureSettings, "emis_interp.passes.token_capture", run)

if __name__ == "__main__":
    cli.run_verb(VERB, __doc__)
