"""Turns the cells of a sweep that are open into finished ones: one after the other here, or wherever Ray finds room for them.

Ray places the cells, counts cores and GPUs, and repeats what was lost; nothing of that is done here.
"""

import contextlib
import importlib
import importlib.metadata
import io
import logging
import os
import re
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from emis_interp.config.sweep_settings import SweepSettings
from emis_interp.errors import ConfigError, printable
from emis_interp.process import Bars
from emis_interp.progress import duration
from emis_interp.sweeping.cell_process import TICK_S, CellCrashed, CellTask, attempt_on_ray, may_help_again, run_cell
from emis_interp.sweeping.sweep_folder import SweepFolder

log = logging.getLogger(__name__)
INSTALL = "python -m pip install -c constraints.txt -e '.[ray]'"
ROOT = Path(__file__).resolve().parents[2]


class Finish(Protocol):
    """Called when a cell will not be tried again. `lost`: why, where no attempt of it could say."""

    def __call__(self, cell: str, lost: str | None = None) -> object: ...


def make_cells(folder: SweepFolder, tasks: Sequence[CellTask], settings: SweepSettings, *, bars: Bars) -> None:
    """Run these cells; one that fails is noted, and the others go on.

    Raises:
        ConfigError: Ray is not installed, or not there, or its cluster cannot hold a cell.
    """
    left = {task.name: None for task in tasks}
    with bars("cell", len(tasks)) as advance:

        def finish(cell: str, lost: str | None = None) -> None:
            state = folder.finish(cell, lost)
            del left[cell]
            took = f"{duration(state.seconds or 0)}, attempt {state.attempts}"
            if state.status == "done":
                log.info("%s: done in %s, on %s", cell, took, state.host)
            else:
                log.warning("%s: failed after %s: %s (%s)", cell, took, state.error, folder.log(cell))
            advance(1)

        def tick() -> None:
            advance(0, note=folder.under_way(list(left)) or "waiting for room")

        if settings.executor == "ray":
            with joined(settings) as ray:
                on_ray(ray, tasks, settings, finish=finish, tick=tick)
        else:
            locally(tasks, settings.max_retries, finish=finish, tick=tick)


def locally(tasks: Sequence[CellTask], max_retries: int, *, finish: Finish, tick: Callable[[], None]) -> None:
    """One cell after the other, each in a process of its own."""
    for task in tasks:
        for _ in range(1 + max_retries):
            if not may_help_again(run_cell(task, tick=tick)):
                break
        finish(task.name)


def on_ray(
    ray: Any, tasks: Sequence[CellTask], settings: SweepSettings, *, finish: Finish, tick: Callable[[], None]
) -> None:
    """All cells handed to Ray at once.

    Args:
        ray: the package, connected (`joined`).
    """
    room = {"num_cpus": settings.n_threads, "num_gpus": settings.gpus_per_task}
    again = {"max_retries": settings.max_retries, "retry_exceptions": [CellCrashed]}
    remote = ray.remote(attempt_on_ray)
    open_cells = {remote.options(name=task.name, **room, **again).remote(task): task.name for task in tasks}
    while open_cells:
        ready, _ = ray.wait(list(open_cells), num_returns=1, timeout=TICK_S)
        for reference in ready:
            lost = None
            try:
                ray.get(reference)
            except (CellCrashed, ray.exceptions.RayError) as error:
                cause = getattr(error, "cause", error)
                lost = f"{type(cause).__name__}: {printable(' '.join(str(cause).split()), 300)}"
            finish(open_cells.pop(reference), lost)
        tick()


@contextlib.contextmanager
def joined(settings: SweepSettings) -> Iterator[Any]:
    """Ray, connected to its cluster or started on this machine alone, until the `with` ends.

    Raises:
        ConfigError: it is not installed, its cluster does not answer, or this machine cannot hold a cell.
    """
    # Ray reports on its use to its makers unless it is told not to, and it reads this when it is imported.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError as error:
        raise ConfigError(f"--executor ray cannot import ray ({error}); install it: {INSTALL}") from None
    address = settings.ray_address or os.environ.get("RAY_ADDRESS") or "local"
    alone = address == "local"
    # Workers find this checkout, not whatever their environment has installed under the same name.
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    how: dict[str, Any] = {"include_dashboard": False} if alone else {}
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.WARNING,
            runtime_env={"env_vars": {"PYTHONPATH": path}},
            **how,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(f"Ray at {address}: {printable(' '.join(str(error).split()), 300)}") from None
    finally:
        if handler is not None:
            signal.signal(
                signal.SIGTERM, handler
            )  # Ray puts its own there, which ends a process without its last words
    try:
        with contextlib.redirect_stdout(_RayLines()):
            _check_room(ray, settings, alone=alone)
            yield ray
    finally:
        ray.shutdown()


class _RayLines(io.TextIOBase):
    """What Ray prints on standard output, where our result goes: that a node is gone, for one, with twenty lines of its log."""

    def write(self, text: str) -> int:
        for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines():
            is_said = re.match(r"\((raylet|autoscaler)\b[^)]*\) ", line)
            log.log(
                logging.INFO if is_said else logging.DEBUG,
                "Ray: %s",
                printable(line[is_said.end() :] if is_said else line, 160),
            )
        return len(text)


def _check_room(ray: Any, settings: SweepSettings, *, alone: bool) -> None:
    asked = {"CPU": float(settings.n_threads), "GPU": settings.gpus_per_task}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    version = importlib.metadata.version("ray")
    log.info(
        "Ray %s: %d node(s), %g CPUs, %g GPUs", version, len(nodes), *(sum(n.get(k, 0.0) for n in nodes) for k in asked)
    )
    if any(all(node.get(kind, 0.0) >= n for kind, n in asked.items()) for node in nodes):
        return
    words = f"a cell asks for {asked['CPU']:g} CPUs and {asked['GPU']:g} GPUs, and no machine has them"
    if alone:
        raise ConfigError(f"{words}; give --cpus-per-task and --gpus-per-task, or --ray-address")
    log.warning("%s; Ray waits until one joins the cluster", words)
