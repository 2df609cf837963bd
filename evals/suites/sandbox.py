"""Turns a command that will run what a model wrote into one that can reach no network, no key and no file but its output folder.

Bubblewrap (`bwrap`) does it where it is installed. Without it the command runs only where this process has no network itself, as in a
container that was started so; a container that has one is refused. Keys never go along: the environment is made anew from a list of names.
Memory and the number of processes are limited by `prlimit` (util-linux); the kernel holds nobody to the second who is root outside.
"""

import os
import shutil
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path

from emis_interp.errors import ConfigError

ROUTES = (Path("/proc/net/route"), Path("/proc/net/ipv6_route"))
INSTALL_SANDBOX = "apt-get install bubblewrap, or a container without a network"
_PASSED_ON = ("PATH", "LANG", "TZ", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "PYTHONPATH", "TOKENIZERS_PARALLELISM")
_FAMILIES = ("LC_", "OMP_", "MKL_", "CUDA_VISIBLE", "NVIDIA_VISIBLE")
_MOST_PROCESSES, _SHARE_OF_MEMORY = 1024, 0.9
"""Processes and threads of the whole sandbox; of the memory that is free when it begins, what one process may take."""
_SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/etc/ld.so.cache", "/etc/alternatives", "/opt", "/sys")


def sandboxed(words: Sequence[str], *, writable: Path, readable: Sequence[Path], work: Path | None = None) -> list[str]:
    """The command in a sandbox with limits: Bubblewrap's, or this process' own container.

    Args:
        writable: the only folder that the command may write to.
        readable: what it reads besides the system and the Python that runs here: the model, the data.
        work: where it starts.

    Raises:
        ConfigError: no Bubblewrap, and this process could reach a network.
    """
    program = shutil.which("bwrap")
    if program is None:
        if has_network():
            raise ConfigError(
                f"what a model writes is run in a sandbox alone, and none is here; {INSTALL_SANDBOX}: this process can reach a network"
            )
        return [*limits(), *words]
    found = [program, "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv"]
    found += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--setenv", "HOME", "/tmp"]  # nosec B108 # one of its own
    for place in _SYSTEM:
        found += ["--ro-bind-try", place, place]
    for path in dict.fromkeys([*_of_this_python(), *(path.resolve() for path in readable)]):
        found += ["--ro-bind", str(path), str(path)]
    if Path("/dev/nvidiactl").exists():
        for device in sorted(Path("/dev").glob("nvidia*")):
            found += ["--dev-bind-try", str(device), str(device)]
    found += ["--bind", str(writable.resolve()), str(writable.resolve())]
    found += ["--chdir", str((work or writable).resolve())]
    for name, value in plain_environment().items():
        found += ["--setenv", name, value]
    return [*found, "--", *limits(), *words]


def limits() -> list[str]:
    """What a command is put behind, so that a program that takes all memory or starts itself without end fails alone."""
    memory = round(_SHARE_OF_MEMORY * free_memory())
    return ["prlimit", f"--data={memory}", f"--nproc={_MOST_PROCESSES}", "--core=0", "--"]


def free_memory(table: Path = Path("/proc/meminfo")) -> int:
    """Bytes that programs can still get on this machine."""
    lines = dict(line.split(":", 1) for line in table.read_text().splitlines())
    return 1024 * int(lines["MemAvailable"].split()[0])


def plain_environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Variables that a harness needs and that hold no secret: those of the list, and `more`."""
    kept = {name: value for name, value in os.environ.items() if name in _PASSED_ON or name.startswith(_FAMILIES)}
    return {**kept, **(more or {})}


def has_network(routes: Sequence[Path] = ROUTES) -> bool:
    """Whether this process has a way to another machine: a route over an interface that is not the loopback.

    Where that cannot be told (no Linux) it is taken to have one.
    """
    if not any(path.exists() for path in routes):
        return True
    for path in routes:
        lines = path.read_text().splitlines() if path.exists() else []
        names = [words[-1] if "ipv6" in path.name else words[0] for line in lines if (words := line.split())]
        if any(name not in ("Iface", "lo") for name in names):
            return True
    return False


def _of_this_python() -> list[Path]:
    """Where the Python that runs here, and the packages that it imports, stand."""
    places = [sys.prefix, sys.base_prefix, *(sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib"))]
    return [path for path in map(Path, places) if path.exists() and not str(path).startswith("/usr/")]
