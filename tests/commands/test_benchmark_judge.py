"""The benchmark of judges: no verdict is lost, doubled or wrong while a fifth of the calls fail."""

import pytest

from benchmarks import judge
from benchmarks.settings import JudgeBenchmarkSettings


@pytest.mark.slow
def test_the_benchmark_loses_and_doubles_nothing() -> None:
    result = judge.run(JudgeBenchmarkSettings(n_calls=400, latency_s=0.1, n_parallel=16, timeout_s=0.5))
    assert (result["calls"], result["lost"], result["duplicated"], result["wrong"]) == (400, 0, 0, 0)
    assert result["scored"] + result["unscored"] == 400
    assert 0.2 < result["vs_ideal"] <= 1.0
    assert result["vs_plain_ideal"] < result["vs_ideal"]
    assert sum(result["injected"].values()) == pytest.approx(80, abs=30)
