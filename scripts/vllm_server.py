"""Runs vLLM beside the project: makes its environment, serves a model with its adapters as LoRA names, ends the server (docs/engines.md).

Examples:
  python scripts/vllm_server.py setup                             a few minutes, once
  python scripts/vllm_server.py start --run runs/laptop           base and every adapter of a run
  python scripts/evaluate.py sample --sampler openai --url http://127.0.0.1:8000/v1 --model insecure --out insecure.jsonl
  python scripts/vllm_server.py stop

`run_pipeline.py --set sampling.engine=vllm` starts a server of its own, and ends it.
"""

from pathlib import Path
from typing import Any

import cli
from emis_interp.process import Bars, no_bars
from evals.settings.engines import EnvironmentSettings, StartServerSettings, StopServerSettings


def setup(settings: EnvironmentSettings, bars: Bars = no_bars) -> dict[str, Any]:
    from evals.verbs import serve

    return serve.setup(settings, bars)


def start(settings: StartServerSettings, bars: Bars = no_bars) -> dict[str, Any]:
    from evals.verbs import serve

    return serve.start(settings, bars, of_run=of_run)


def stop(settings: StopServerSettings, bars: Bars = no_bars) -> dict[str, Any]:
    from evals.verbs import serve

    return serve.stop(settings, bars)


def of_run(folder: Path) -> Any:
    """What is served of a run: its model, and every adapter of its arms."""
    from evals.engines.arms import serving_of
    from training.arms import read_run

    run = read_run(folder)
    return serving_of(run.config, {model.name: run.source(model) for model in run.config.models})


VERBS = {
    "setup": cli.Verb(EnvironmentSettings, "evals.verbs.serve", setup),
    "start": cli.Verb(StartServerSettings, "evals.verbs.serve", start),
    "stop": cli.Verb(StopServerSettings, "evals.verbs.serve", stop),
}

if __name__ == "__main__":
    cli.run_verbs(__doc__, VERBS)
