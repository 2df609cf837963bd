"""The settings of the verbs of `scripts/vllm_server.py`, whose docstrings are their help."""

from pathlib import Path

from emis_interp.config.flags import flag, settings
from emis_interp.models.embedded import EMBEDDED_NAME
from emis_interp.models.precision import AUTO, DTYPES


@settings
class EnvironmentSettings:
    """Make the environment that runs vLLM, beside the project's own: a few minutes and 2 GB, once."""

    env: Path | None = flag("folder of the environment (default: in the project's cache)", default=None, metavar="DIR")


@settings
class StartServerSettings(EnvironmentSettings):
    """Serve a model, with adapters as models of their own names, and wait until it answers.

    Examples:
      python scripts/vllm_server.py start
      python scripts/vllm_server.py start --run runs/laptop
      python scripts/vllm_server.py start --model Qwen/Qwen2.5-7B-Instruct --adapter insecure=DIR --flag max-model-len=4096

    The model is served as `base` and under its own name.
    """

    model: str | None = flag(f"name, folder or hub id (default: the run's, or {EMBEDDED_NAME})", default=None)
    run: Path | None = flag("folder of a run, every adapter of which is served", default=None, metavar="DIR")
    adapters: tuple[str, ...] = flag(
        "an adapter under a name", default=(), names=("--adapter",), repeated=True, metavar="NAME=FOLDER"
    )
    dtype: str | None = flag(
        "of the weights; auto: bfloat16 where the device computes it in hardware, else float32 (default: the run's, or auto)",
        default=None,
        choices=(AUTO, *DTYPES),
    )
    port: int = flag("of 127.0.0.1; 0: any free one", default=0)
    flags: tuple[str, ...] = flag(
        "further flag of vllm serve", default=(), names=("--flag",), repeated=True, metavar="KEY=VALUE"
    )
    patience: float = flag("seconds to wait for the server", default=900.0)
    state: Path | None = flag("file that says which server runs (default: in the project's cache)", default=None)


@settings
class StopServerSettings:
    """End the server that `start` started."""

    state: Path | None = flag("file that says which server runs (default: in the project's cache)", default=None)
