"""Turns the work of every stage and the rates of a machine into a plan: tokens, FLOPs, seconds, memory, disk, calls and price."""

from collections.abc import Mapping, Sequence
from typing import Any

from emis_interp.config.run_config import RunConfig
from emis_interp.http.costs import Prices
from emis_interp.models.precision import dtype_name
from emis_interp.planning.calibrate import Calibration
from emis_interp.planning.rates import MachineRates, StatedDevice, on_paper_dtype
from emis_interp.planning.shape import BYTES, ModelShape
from emis_interp.planning.work import StageWork

GIB = 2**30
BYTES_PER_TRAINED = 16
"""A trained weight in float32 with its gradient and two moments."""
ACTIVATIONS = 34
"""Bytes per token, block and width that a backward pass needs in 16 bits, attention scores not counted (Korthikanti et al. 2022, eq. 2)."""


SAMPLE = "sample"
"""The stage whose requests have no prices of ours: those of the configuration are the judge's."""


def plan_rows(
    stages: Sequence[StageWork], rates: MachineRates, shape: ModelShape, *, judge: ModelShape, config: RunConfig
) -> list[dict[str, Any]]:
    """A row for each stage, without memory."""
    prices = Prices(config.judge.price_in, config.judge.price_out)
    rows = []
    for one in stages:
        work = one.work
        flops = (
            work.read * shape.flops_read
            + work.scored * shape.flops_scored
            + work.written * (shape.flops_read + shape.flops_scored)
            + work.trained * shape.flops_trained(config.training)
            + work.judged * judge.flops_read / judge.n_layers
        )
        rows.append(
            {
                "stage": one.stage,
                **{name: round(getattr(work, name)) for name in ("read", "scored", "written", "trained")},
                "flops": flops,
                "seconds": rates.seconds(work),
                "seconds_alone": rates.alone(work),
                "disk_gib": work.disk / GIB,
                "transient_gib": work.transient / GIB,
                "calls": work.usage.calls,
                "tokens_in": work.usage.tokens_in,
                "tokens_out": work.usage.tokens_out,
                "usd": (None if one.stage == SAMPLE else prices.cost(work.usage)) if work.usage.calls else 0.0,
                "left_out": one.left_out,
            }
        )
    return rows


def on_this_machine(
    stages: Sequence[StageWork], found: Calibration, shape: ModelShape, *, config: RunConfig
) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Memory of every stage, and what the plan rests on."""
    peaks = memory_here(stages, found, shape, dtype=dtype_name(config.dtype, config.device))
    notes = [f"rates: {found.rates.source}, in {found.took_s:.0f} s; answers count as long as they may be"]
    if (share := found.rates.share) is not None:
        notes.append(
            f"the machine worked at {share:.0%} of its speed for this process while it was measured: `time` is on one as busy as then, "
            "`alone` on one that is not shared"
        )
    return {name: {"memory_gib": gib} for name, gib in peaks.items()}, notes


def on_paper(
    stages: Sequence[StageWork], device: StatedDevice, shape: ModelShape, *, config: RunConfig, n_devices: int
) -> tuple[dict[str, dict[str, float]], list[str]]:
    """The same for a device that nobody measured."""
    memory = memory_on(stages, shape, config, dtype=on_paper_dtype(config), n_devices=n_devices)
    notes = [
        f"on paper: {n_devices} x {device.name}; {device.source}; {device.reached:.0%} of its speed and bandwidth reached",
        f"answers count as long as they may be; loading is not planned; only training is spread over devices ({device.parallel:.0%} of "
        "n-fold speed), every other stage runs in one process on one of them",
        f"the host needs up to {max(row['host_gib'] for row in memory.values()):.0f} GiB: adapters are folded in there, in float32",
    ]
    if lacking := does_not_fit(memory, device):
        most = max(memory[name]["device_gib"] for name in lacking)
        notes.append(
            f"does not fit: {', '.join(lacking)} need up to {most:.0f} GiB on one device, {device.name} has {device.memory_gib:.0f}; "
            "base stays in memory beside the organism that is read"
        )
    return memory, notes


def memory_here(stages: Sequence[StageWork], found: Calibration, shape: ModelShape, *, dtype: str) -> dict[str, float]:
    """Peak memory of the process by the end of each stage, GiB: the calibration's for training; else base beside one organism, whose
    adapter is folded in in float32 before the weights are cast."""
    size, peaks, most = BYTES[dtype], {}, found.floor_gib
    for one in stages:
        if one.stage == "train" and one.work.trained:
            most = max(most, found.peak_gib)
        elif one.held:
            base = size * shape.n_parameters
            organism = (4 if size == 4 else 4 + size) * shape.n_parameters if one.held > 1 else 0
            most = max(most, found.floor_gib + (base + organism) / GIB)
        peaks[one.stage] = most
    return peaks


def memory_on(
    stages: Sequence[StageWork], shape: ModelShape, config: RunConfig, *, dtype: str, n_devices: int
) -> dict[str, dict[str, float]]:
    """GiB of one device, and of the host, in each stage, on paper. Training shards weights, gradients and moments over the devices (FSDP);
    every other stage runs in one process on one device, where base stays beside the organism that is read."""
    size, training = BYTES[dtype], config.training
    weights = size * shape.n_parameters
    tokens = training.batch_size * training.max_tokens
    kept = 2 if training.gradient_checkpointing else ACTIVATIONS
    trained = BYTES_PER_TRAINED * shape.n_trained(training)
    frozen = 0 if training.method == "full" else (weights / 4 if training.load_in_4bit else 2 * shape.n_parameters)
    found = {}
    for one in stages:
        if one.stage == "train":
            device = (frozen + trained) / n_devices + kept * tokens * shape.d_model * shape.n_layers
            host = weights
        else:
            device = one.held * weights
            host = 4 * shape.n_parameters if one.held > 1 else weights
        found[one.stage] = {"device_gib": device / GIB, "host_gib": (host if one.held else 0) / GIB}
    return found


def does_not_fit(memory: Mapping[str, Mapping[str, float]], device: StatedDevice) -> list[str]:
    """Stages that need more than one device has."""
    return [name for name, row in memory.items() if row["device_gib"] > device.memory_gib]


def totals(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sums of all stages; a price that is unknown stays so."""
    keys = (
        "read",
        "scored",
        "written",
        "trained",
        "flops",
        "seconds",
        "seconds_alone",
        "disk_gib",
        "calls",
        "tokens_in",
        "tokens_out",
    )
    prices = [row["usd"] for row in rows]
    return {**{key: sum(row[key] for row in rows) for key in keys}, "usd": None if None in prices else sum(prices)}


def lines_of(plan: Mapping[str, Any]) -> list[str]:
    """The plan as a table, and what it rests on."""
    names = (
        "stage",
        "read",
        "scored",
        "written",
        "trained",
        "TFLOP",
        "time",
        "alone",
        "GiB",
        "MiB on disk",
        "calls, price",
    )
    cells = [names, *map(_cells, [*plan["stages"], {"stage": "all", **plan["total"]}])]
    widths = [max(len(row[i]) for row in cells) for i in range(len(names))]
    lines = []
    for row in cells:
        parts = [
            cell.ljust(n) if i in (0, len(row) - 1) else cell.rjust(n)
            for i, (cell, n) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(parts).rstrip())
    lines += [f"{row['stage']} leaves out: {row['left_out']}" for row in plan["stages"] if row["left_out"]]
    return lines + [f"- {note}" for note in plan["notes"]]


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    memory = row.get("device_gib", row.get("memory_gib"))
    return (
        row["stage"],
        *(f"{row[name]:,}" for name in ("read", "scored", "written", "trained")),
        f"{row['flops'] / 1e12:,.0f}",
        duration(row["seconds"]),
        duration(row["seconds_alone"]) if row["seconds_alone"] != row["seconds"] else "",
        "" if memory is None else f"{memory:.1f}",
        f"{row['disk_gib'] * 1024:,.0f}",
        price(row),
    )


def price(row: Mapping[str, Any]) -> str:
    """`2,304 calls, 1.52 USD`; nothing without calls."""
    if not row["calls"]:
        return ""
    unknown = "price unknown" + ("" if row["stage"] == SAMPLE else " (judge.price_in, judge.price_out)")
    usd = unknown if row["usd"] is None else f"{row['usd']:.2f} USD"
    return f"{row['calls']:,} calls, {usd}"


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3.4 h`"""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
