"""Checks on a GPU what this project could test on CPUs only: one command, at most 8 minutes, one JSON that says which claims hold.

Examples:
  python scripts/gpu_check.py                              random weights of 1.5B parameters, made on the device
  python scripts/gpu_check.py --model FOLDER --out h100.json
  python scripts/gpu_check.py --device cpu --tiny          a dry run of every check without a GPU

Every result is kept as soon as it is there; the same command goes on with what is left. Needs no network.
"""

from pathlib import Path
from typing import Any, Literal

import cli
from emis_interp.config.flags import flag, settings
from emis_interp.process import Bars


@settings
class GpuCheckSettings:
    """Capture, training, sampling, steering, spreading over devices and 4-bit loading, each against a second route.

    Verdicts: passed, failed (both measured on a GPU), skipped (something is not installed), not run (the budget was spent), error. A run
    on the CPU is called a dry run, whatever it finds.
    """

    model: str | None = flag("folder of a model; default: random weights, kept under --models", default=None)
    models: Path = flag("where the random weights are kept", default=Path("runs") / "gpu_check")
    device: Literal["auto", "cuda", "cpu"] = flag("cpu: a dry run", default="auto")
    tiny: bool = flag("a model of four layers, and the least work of everything", default=False)
    minutes: float = flag("budget; checks that no longer fit are named as not run", default=8.0)
    out: Path | None = flag(
        "JSON of the results (default: gpu_check.json under --models)", default=None, metavar="FILE"
    )
    only: str | None = flag("the figures of one check, made in this process", default=None, metavar="CHECK")


def run(settings: GpuCheckSettings, bars: Bars) -> dict[str, Any]:
    from benchmarks import gpu_run
    from benchmarks.gpu_subject import FULL, TINY, Subject, chosen_device, device_facts, given_model, random_model
    from emis_interp.errors import ConfigError

    device = chosen_device(settings.device)
    if device == "cpu" and not settings.tiny and settings.model is None:
        raise ConfigError(
            "--device cpu: 1.5B parameters take hours on a CPU; add --tiny, or give a small --model FOLDER"
        )
    name = TINY if settings.tiny else FULL
    model = given_model(settings.model) if settings.model else random_model(settings.models, name, device)
    subject = Subject(model["model"], device, settings.tiny)
    if settings.only is not None:
        return gpu_run.figures_of(settings.only, subject)
    words = ["--model", model["model"], "--device", device, *(["--tiny"] if settings.tiny else [])]
    return gpu_run.run_checks(
        subject,
        {"device": device_facts(device), "model": model, "tiny": settings.tiny},
        settings.out or settings.models / "gpu_check.json",
        minutes=settings.minutes,
        measure=gpu_run.in_child(words, device),
        bars=bars,
    )


def say(result: dict[str, Any]) -> str:
    from benchmarks.gpu_run import lines_of
    from emis_interp.files.text import flat_lines

    return "\n".join(lines_of(result) if "checks" in result else flat_lines(result))


VERB = cli.Verb(GpuCheckSettings, "gpu_check", run)

if __name__ == "__main__":
    cli.run(VERB.do, cli.parser_of(VERB, __doc__), say)
