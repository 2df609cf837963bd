"""Turns a device's stated figures, or what a calibration measured, into seconds for each kind of work."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emis_interp.config.run_config import RunConfig
from emis_interp.errors import ConfigError, DataError, did_you_mean, shown
from emis_interp.files.strict_yaml import kind_of_yaml, read_yaml
from emis_interp.models.precision import AUTO
from emis_interp.planning.shape import BYTES, ModelShape
from emis_interp.planning.work import Work

STATED = {
    "tflops": "dense TFLOP/s in the run's dtype",
    "gb_per_s": "memory bandwidth, GB/s",
    "memory_gib": "memory of one device, GiB",
    "reached": "share of both that a program reaches, in (0, 1]",
    "parallel": "share of n-fold speed that n devices reach in training, in (0, 1]",
}


@dataclass(frozen=True)
class MachineRates:
    """Seconds for a unit of each kind of work.

    Attributes:
        read, scored, softmax, trained: seconds for a token or a position; judged for a token and a layer.
        step, row: seconds for a step of the token loop, and for each row in it besides.
        load, merge: seconds for a model as it is, and with an adapter folded in; None is unknown and is not planned.
        source: where they come from, in words.
        share: on a CPU, whose seconds are CPU time over threads: what repeated work would have taken undisturbed, over what it took by the
            clock while it was measured; None for seconds by the clock.
    """

    read: float
    scored: float
    softmax: float
    trained: float
    judged: float
    step: float
    row: float
    load: float | None
    merge: float | None
    source: str
    share: float | None = None

    def seconds(self, work: Work) -> float:
        """By the clock, on a machine as busy as when it was measured; without what is unknown."""
        return self.alone(work) / (self.share or 1)

    def alone(self, work: Work) -> float:
        """The same if the process had all of its threads' time."""
        return (
            self.read * work.read
            + self.scored * work.scored
            + self.softmax * work.softmaxes
            + self.trained * work.trained
            + self.judged * work.judged
            + self.step * work.steps
            + self.row * work.written
            + (self.load or 0) * work.loads
            + (self.merge or 0) * work.merges
        )


@dataclass(frozen=True)
class StatedDevice:
    """A row of a table of devices; fields as in `STATED`."""

    name: str
    source: str
    tflops: float
    gb_per_s: float
    memory_gib: float
    reached: float
    parallel: float


def read_device(path: Path, name: str) -> StatedDevice:
    """One device of a YAML table `name: {source: ..., tflops: ..., gb_per_s: ..., memory_gib: ..., reached: ..., parallel: ...}`.

    Raises:
        DataError: no such file, no such device, a figure that is missing or is none, or no source.
    """
    document = read_yaml(path)
    table: Any = document.value
    if not isinstance(table, Mapping) or not table:
        raise DataError(f"{path}: expected a table of devices, found {kind_of_yaml(table)}")
    if name not in table:
        raise DataError(f"{path}: no device `{name}`{did_you_mean(name, table)}")
    row = table[name]
    wanted = {"source", *STATED}
    if not isinstance(row, Mapping) or set(row) != wanted:
        found = sorted(row) if isinstance(row, Mapping) else kind_of_yaml(row)
        raise DataError(f"{path}: `{name}`: expected {', '.join(sorted(wanted))}, found {found}")
    if not isinstance(row["source"], str) or not row["source"].strip():
        raise DataError(f"{path}: `{name}.source`: say where the figures are from; none are built in")
    for key, meaning in STATED.items():
        value, most = row[key], 1 if key in ("reached", "parallel") else float("inf")
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not 0 < value <= most
            or value == float("inf")
        ):
            raise DataError(f"{path}: `{name}.{key}`: expected {meaning}, found {shown(value)}")
    return StatedDevice(name, row["source"], **{key: float(row[key]) for key in STATED})


def on_paper_dtype(config: RunConfig) -> str:
    """`auto` is bfloat16 on every device that somebody would state."""
    return "bfloat16" if config.dtype == AUTO else config.dtype


def stated_rates(
    device: StatedDevice, shape: ModelShape, config: RunConfig, *, judge: ModelShape, n_devices: int = 1
) -> MachineRates:
    """What a device that nobody measured would take: arithmetic at the share of its speed that is reached; a step of the token loop reads
    all weights, and each row its cache of 500 tokens. Of several devices only training uses all; the other stages run on one.

    Raises:
        ConfigError: no device.
    """
    if n_devices < 1:
        raise ConfigError(f"--n-devices {n_devices}: give 1 or more")
    flops, bandwidth = device.tflops * 1e12 * device.reached, device.gb_per_s * 1e9 * device.reached
    size = BYTES[on_paper_dtype(config)]
    many = 1 if n_devices == 1 else n_devices * device.parallel
    return MachineRates(
        read=shape.flops_read / flops,
        scored=shape.flops_scored / flops,
        softmax=4 * shape.vocab * 4 / bandwidth,  # float32, written and read twice
        trained=shape.flops_trained(config.training) / flops / many,
        judged=judge.flops_read / judge.n_layers / flops,
        step=size * (shape.n_linear + shape.n_head) / bandwidth,
        row=max(shape.flops_read + shape.flops_scored, 0) / flops + 500 * size * shape.n_cached / bandwidth,
        load=None,
        merge=None,
        source=f"{n_devices} x {device.name}, stated, not measured ({device.source}); {device.reached:.0%} of its speed reached",
    )
