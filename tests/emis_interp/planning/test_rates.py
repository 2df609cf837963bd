"""Stated devices: nothing is built in, and what is stated is what is planned."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from emis_interp.config.run_config import RunConfig
from emis_interp.errors import ConfigError, DataError
from emis_interp.planning.plan import does_not_fit, memory_on
from emis_interp.planning.rates import MachineRates, StatedDevice, read_device, stated_rates
from emis_interp.planning.shape import ModelShape, shape_of
from emis_interp.planning.work import StageWork, Work

ROW = "{source: a data sheet, tflops: 100, gb_per_s: 1000, memory_gib: 80, reached: 0.5, parallel: 0.9}"
CONFIG = RunConfig.model_validate(
    {"name": "r", "model": "tiny", "dtype": "bfloat16", "arms": [{"name": "base"}, {"name": "a", "dataset": "careful"}]}
)


def rates_of(device: StatedDevice, n: int = 1) -> MachineRates:
    return stated_rates(device, shape_of("tiny"), CONFIG, judge=shape_of("tiny"), n_devices=n)


@pytest.fixture
def device(tmp_path: Path) -> StatedDevice:
    path = tmp_path / "devices.yaml"
    path.write_text(f"big: {ROW}\n", "utf-8")
    return read_device(path, "big")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (ROW.replace("a data sheet", "''"), "say where the figures are from"),
        (ROW.replace("tflops: 100", "tflops: yes"), "big.tflops.*found"),
        (ROW.replace("reached: 0.5", "reached: 1.5"), "big.reached.*found `1.5`"),
        (ROW.replace("gb_per_s: 1000, ", ""), "expected gb_per_s, memory_gib"),
        (ROW.replace("memory_gib: 80", "memory_gib: -1"), "big.memory_gib"),
        ("7", "expected gb_per_s"),
    ],
)
def test_a_device_without_a_figure_or_its_source_is_refused(tmp_path: Path, row: str, said: str) -> None:
    path = tmp_path / "devices.yaml"
    path.write_text(f"big: {row}\n", "utf-8")
    with pytest.raises(DataError, match=said):
        read_device(path, "big")
    with pytest.raises(DataError, match="no device `bog`; did you mean `big`"):
        read_device(path, "bog")


def test_arithmetic_follows_the_share_that_is_reached(device: StatedDevice) -> None:
    shape = shape_of("tiny")
    assert rates_of(device).read == pytest.approx(2 * shape.n_linear / 50e12)
    assert rates_of(replace(device, reached=0.25)).read == pytest.approx(2 * rates_of(device).read)
    assert rates_of(device).trained == pytest.approx(2 * rates_of(device).read)
    weights = 2 * (shape.n_linear + shape.n_head)
    assert rates_of(device).step == pytest.approx(weights / 500e9)


def test_only_training_is_spread_over_devices(device: StatedDevice) -> None:
    one, eight = rates_of(device), rates_of(device, 8)
    assert one.trained / eight.trained == pytest.approx(8 * 0.9)
    assert replace(eight, trained=0.0, source="") == replace(one, trained=0.0, source="")
    with pytest.raises(ConfigError, match="give 1 or more"):
        rates_of(device, 0)


def test_seconds_are_the_sum_over_kinds_of_work() -> None:
    names: tuple[Any, ...] = ("read", "scored", "softmax", "trained", "judged", "step", "row", "load", "merge")
    rates = MachineRates(**{name: 10.0**i for i, name in enumerate(names)}, source="")
    work = Work(read=1, scored=2, softmaxes=3, trained=4, judged=5, steps=6, written=7, loads=8, merges=9)
    assert rates.alone(work) == rates.seconds(work) == 987654321
    assert replace(rates, share=0.5).seconds(work) == 2 * 987654321
    assert replace(rates, load=None, merge=None).seconds(work) == 7654321


def test_what_does_not_fit_on_a_device_is_named(device: StatedDevice) -> None:
    """A model of 33 billion weights takes 66 GB in bfloat16: one fits into 80 GiB, base beside an organism does not."""
    shape: ModelShape = replace(shape_of("tiny"), n_parameters=33_000_000_000)
    stages = [
        StageWork("train", Work(trained=1), held=1),
        StageWork("sample", Work(), held=2),
        StageWork("direction", Work()),
    ]
    memory = memory_on(stages, shape, CONFIG, dtype="bfloat16", n_devices=1)
    assert memory["sample"]["device_gib"] == pytest.approx(2 * 66e9 / 2**30)
    assert memory["sample"]["host_gib"] == pytest.approx(132e9 / 2**30)
    assert does_not_fit(memory, device) == ["sample"]
    assert does_not_fit(memory_on(stages, shape, CONFIG, dtype="bfloat16", n_devices=8), device) == ["sample"]
    assert memory["direction"] == {"device_gib": 0, "host_gib": 0}
