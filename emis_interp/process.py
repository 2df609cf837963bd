"""What the process that runs a command shares with its packages: its place among others, its memory, and how progress is told."""

import contextlib
import ctypes
import gc
import importlib.metadata
import importlib.util
import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from emis_interp.cores import share_cores
from emis_interp.errors import ConfigError
from emis_interp.files.lock import writing

T = TypeVar("T")
Advance = Callable[..., None]
"""Called with the number of finished items; `note=` is a figure to show behind the bar."""
Bars = Callable[..., AbstractContextManager[Advance]]
"""Begins to show the progress of something: its name and the number of its items -> a context that yields an `Advance`. A bar that begins
within another one is a part of that one's item. `work=`, where items cost more or less than others: what each costs, in any unit."""


@contextmanager
def no_bars(name: str, total: int, work: Sequence[float] | None = None) -> Iterator[Advance]:
    """Shows nothing: the `Bars` of a notebook or a test."""
    yield lambda n=1, note=None: None


def each(bars: Bars, name: str, items: Sequence[T], **how: Any) -> Iterator[T]:
    """The items one after the other, behind a bar that counts them and says which one is under way.

    Args:
        name: of one item ("model").
        how: goes to `bars` (`work`).
    """
    with bars(name, len(items), **how) as advance:
        for item in items:
            advance(0, note=str(getattr(item, "name", item)))
            yield item
            advance(1)


def check_packages() -> None:
    """Refuse to go on where `training`, `evals` or `probes` are those of another distribution: the names are common ones.

    Raises:
        ConfigError: which package, whose it is, and what to do.
    """
    root = Path(__file__).resolve().parents[1]
    for name in ("training", "evals", "probes"):
        spec = importlib.util.find_spec(name)
        origin = None if spec is None or spec.origin is None else Path(spec.origin).resolve()
        if origin != root / name / "__init__.py":
            raise ConfigError(
                f"`import {name}` finds {origin or 'nothing'}, not the {name} of emis_interp beside {root}; another package has this name: "
                "use an environment of its own for emis_interp, or put its folder first in PYTHONPATH"
            )
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            other = importlib.metadata.distribution(name)
            raise ConfigError(
                f"the distribution {name} {other.version} is installed beside emis_interp and writes into the same folder `{name}`; "
                f"uninstall it (pip uninstall {name}) and install emis_interp again, or use an environment of its own"
            )


def is_main_process() -> bool:
    """False in all but the first process of `accelerate launch` or `torchrun`."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def only_writer(folder: Path, name: str | None = None) -> Iterator[None]:
    """`files.lock.writing` in the first process; the others of `accelerate launch` write nothing and need no lock."""
    with writing(folder, name) if is_main_process() else contextlib.nullcontext():
        yield


def settle_in() -> None:
    """What every command asks of the machine: memory that is kept, cores that are shared."""
    reuse_memory()
    share_cores()


def reuse_memory() -> None:
    """Let glibc keep freed blocks for the next tensor.

    By default it returns every large block to the kernel, which must zero it again on the next use: a tenth to a fifth of the time of
    a small model on a CPU. Very large blocks still go back, and `release_memory` returns the rest.
    """
    if libc := _glibc():
        mmap_threshold, trim_threshold = -3, -1  # names of mallopt's parameters in malloc.h
        libc.mallopt(mmap_threshold, 32 << 20)
        libc.mallopt(trim_threshold, 512 << 20)


def release_memory() -> None:
    """Give back what a finished model held; without it the peaks of successive arms add up."""
    gc.collect()
    if libc := _glibc():
        libc.malloc_trim(0)


def set_imports_aside() -> None:
    """Take what is there now, modules above all, out of every later collection; for a command that has imported what it needs.

    torch and transformers alone are half a million objects, which no collection frees and each one walks through: 0.3 s a time.
    It happens once in a process: of what a second run set aside, such as the run before it, nothing could be freed any more.
    """
    if gc.get_freeze_count() == 0:
        gc.collect()
        gc.freeze()


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL("libc.so.6") if sys.platform == "linux" and platform.libc_ver()[0] == "glibc" else None
