"""The weights of stages agree with what finished runs measured, and the time left that follows from them is near the truth."""

from pathlib import Path

import pytest

import run_pipeline
from emis_interp.config.presets import load_config
from emis_interp.config.run_config import RunConfig
from emis_interp.planning import stages as planning
from emis_interp.planning.calibrate import Calibration
from emis_interp.planning.rates import MachineRates
from emis_interp.planning.stages import Counters, expected_seconds
from emis_interp.progress import OpenBars
from evals.arms import planned as asked
from evals.questions import run_questions
from probes.stages import planned as read
from training import planned as trained
from training.arms import RunArms

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
RUNS = [
    (("laptop", ARMS, "intervention.coefficients=[-0.2, 0.2]", "intervention.random_draws=2"), THREE_ARMS),
    (("laptop",), SIX_ARMS),
]


def seconds_of(config: RunConfig) -> dict[str, float]:
    arms, counters = RunArms(config, Path("unused")), Counters(trained, asked, read)
    assert expected_seconds(arms, lambda: pytest.fail("counted"), counters, todo=["score"]) == {}
    return expected_seconds(arms, lambda: run_questions(config), counters, todo=run_pipeline.STAGES)


def time_left(weights: list[float], seconds: list[float], share: float) -> float:
    """Estimated over true time left when this share of a run has passed whose stages each run evenly."""
    bars, stop, now = OpenBars(), share * sum(seconds), 0.0
    outer = bars.open("stage", len(seconds), now, work=weights)
    for took in seconds:
        inner, begun = bars.open("item", 1000, now), now
        for i in range(1, 1001):
            now = begun + took * i / 1000
            inner.advance(1, now)
            if now >= stop:
                return (bars.seconds_left(now) or 0.0) / (sum(seconds) - now)
        bars.close(inner)
        outer.advance(1, now)
    raise AssertionError("the run ended before")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "took"),
    [pytest.param(*RUNS[0], id="three arms"), pytest.param(*RUNS[1], id="six arms", marks=pytest.mark.fuzz)],
)
def test_the_time_left_of_finished_runs_is_near_the_truth(
    words: tuple[str, ...], took: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "kept_calibration", lambda config: None)
    found = seconds_of(load_config(words[0], list(words[1:])))
    assert tuple(found) == run_pipeline.STAGES
    level = found["train"] / took["train"]
    off = {name: found[name] / level / seconds for name, seconds in took.items()}
    assert {name: ratio for name, ratio in off.items() if not 0.7 < ratio < 1.25} == {}
    weights = [found[name] for name in took]
    ratios = [time_left(weights, list(took.values()), share) for share in (1 / 3, 2 / 3)]
    assert all(0.8 < ratio < 1.1 for ratio in ratios), ratios


def test_rates_that_were_measured_on_this_machine_take_the_place_of_the_fitted_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rates = MachineRates(
        read=1, scored=0, softmax=0, trained=0, judged=0, step=0, row=0, load=0, merge=0, source="planted", share=0.5
    )
    monkeypatch.setattr(planning, "kept_calibration", lambda config: Calibration(rates, 0.0, 0.0, 0.0))
    found = seconds_of(load_config("smoke"))
    assert found["train"] == found["direction"] == found["report"] == planning.LEAST_S
    assert found["likelihood"] > planning.LEAST_S


def test_requests_to_a_judge_are_in_the_time_of_scoring() -> None:
    config = load_config("smoke", ["judge.kind=openai", "judge.model=m", "judge.offline_too=false"])
    n = sum(len(question.paraphrases) for question in run_questions(config)) * len(config.models)
    assert seconds_of(config)["score"] == pytest.approx(planning.LEAST_S + 2 * n * planning.CALL_S)
