"""How much work stages are agrees with what finished runs measured, and grows with what it counts."""

import pytest

import run_pipeline
from emis_interp.config.presets import load_config
from emis_interp.config.run_config import RunConfig
from emis_interp.config.run_work import stage_work

ARMS = "arms=[{name: base}, {name: reckless, dataset: reckless, n_rows: 300}, {name: careful, dataset: careful, n_rows: 300}]"
THREE_ARMS = {
    "train": 1265.2,
    "check": 234.4,
    "sample": 120.7,
    "score": 40.5,
    "likelihood": 200.4,
    "choices": 71.0,
    "capture": 263.2,
    "intervene": 530.8,
    "probe": 109.1,
}
"""Seconds of a run of SmolLM2-135M-Instruct on two CPU cores, from its manifest."""
SIX_ARMS = {"train": 2590.3, "sample": 149.2, "score": 46.0, "likelihood": 224.1, "capture": 342.7}
"""The laptop preset with 1,578 rows, from another one's."""


def laptop(*sets: str) -> RunConfig:
    return load_config("laptop", list(sets))


@pytest.mark.parametrize(
    ("config", "n_rows", "seconds", "factor"),
    [
        (
            laptop(ARMS, "intervention.coefficients=[-0.2, 0.2]", "intervention.random_draws=2"),
            600,
            THREE_ARMS,
            1.25,
        ),
        (laptop(), 1578, SIX_ARMS, 1.5),
    ],
)
def test_the_time_of_every_stage_follows_from_that_of_training(
    config: RunConfig, n_rows: int, seconds: dict[str, float], factor: float
) -> None:
    work = stage_work(config, n_rows=n_rows, n_pairs=150, n_answers=64)
    of_a_row = seconds["train"] / n_rows
    ratios = {name: work[name] * of_a_row / measured for name, measured in seconds.items()}
    assert {name: ratio for name, ratio in ratios.items() if not 1 / factor < ratio < factor} == {}


def test_every_stage_has_its_work_and_it_grows_with_what_it_counts() -> None:
    little = stage_work(laptop(ARMS), n_rows=100, n_pairs=10, n_answers=8)
    assert tuple(little) == run_pipeline.STAGES
    more = stage_work(laptop(ARMS), n_rows=200, n_pairs=20, n_answers=16)
    assert {name: more[name] / little[name] for name in ("train", "sample", "score", "likelihood", "capture")} == {
        name: pytest.approx(2.0) for name in ("train", "sample", "score", "likelihood", "capture")
    }
    without = laptop(ARMS, "intervention.samples_per_paraphrase=0", "intervention.ablate_arms=[careful]")
    assert 0 < stage_work(without, n_rows=100, n_pairs=10, n_answers=8)["intervene"] < little["intervene"]
