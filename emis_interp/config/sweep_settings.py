"""The flags of a sweep: what is run over what, and by whom the cells are run."""

import os
from pathlib import Path
from typing import Literal

from emis_interp.config.flags import flag, settings
from emis_interp.config.presets import preset_names
from emis_interp.errors import ConfigError


@settings
class SweepSettings:
    """A configuration and the fields that are varied of it: every combination is a run of its own, in a folder of its own."""

    sweep: Path | None = flag(
        "YAML file: preset, set, axes; the flags stand beside it", positional=True, default=None, metavar="SWEEP"
    )
    preset: str | None = flag(
        f"what is varied: one of {', '.join(preset_names())}, or a YAML file (default: the sweep file's, else laptop)",
        default=None,
    )
    changes: tuple[str, ...] = flag(
        "override any field in every cell", default=(), names=("--set",), metavar="FIELD=VALUE", repeated=True
    )
    axes: tuple[str, ...] = flag(
        "vary a field: 'seed=[0, 1]', 'arms=[insecure, reckless]', 'intervention={weak: {coefficients: [0.1]}, ...}'",
        default=(),
        names=("--axis",),
        metavar="FIELD=VALUES",
        repeated=True,
    )
    only: tuple[str, ...] = flag(
        "make these stages of every cell only (`run_pipeline.py --only`): a first look at many cells",
        default=(),
        metavar="STAGE",
    )
    data_dir: Path | None = flag("where data files named in the preset lie", default=None, metavar="DIR")
    out: Path | None = flag("folder of the sweep (default: runs/<name of the sweep>)", default=None, metavar="DIR")
    executor: Literal["local", "ray"] = flag(
        "one cell after the other here, or as many at once as Ray finds room for", default="local"
    )
    ray_address: str | None = flag(
        "the cluster's, `auto` for the one that this machine belongs to (default: $RAY_ADDRESS, else Ray on this machine alone)",
        default=None,
        metavar="ADDRESS",
    )
    cpus_per_task: int | None = flag(
        "cores of a cell, and its threads; with another number the last digits are others (default: all of this machine)",
        default=None,
        metavar="N",
    )
    gpus_per_task: float = flag("GPUs of a cell, for Ray; 0.5: two cells share one", default=0.0, metavar="N")
    max_retries: int = flag(
        "how often a cell that crashed, or whose node was lost, is run again", default=1, metavar="N"
    )
    dry_run: bool = flag("show the cells and their commands, and stop", default=False)

    @property
    def n_threads(self) -> int:
        return self.cpus_per_task or len(os.sched_getaffinity(0))

    def check(self) -> None:
        """Refuse flags that do not go together.

        Raises:
            ConfigError: which, and what to do.
        """
        if self.cpus_per_task is not None and self.cpus_per_task < 1:
            raise ConfigError(f"--cpus-per-task {self.cpus_per_task}: a cell takes one core at least")
        if self.max_retries < 0:
            raise ConfigError(f"--max-retries {self.max_retries}: give 0 to run no cell again")
        if self.gpus_per_task < 0 or (self.gpus_per_task > 1 and self.gpus_per_task % 1):
            raise ConfigError(f"--gpus-per-task {self.gpus_per_task:g}: give a whole number, or a share of one GPU")
        if self.executor == "local" and (self.gpus_per_task or self.ray_address is not None):
            raise ConfigError(
                "--gpus-per-task and --ray-address are for --executor ray; cells that run here see every GPU"
            )
