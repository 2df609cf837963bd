import pytest
import torch

from emis_interp.errors import DataError
from probes.classifiers.aggregation import AGGREGATIONS, DECAY, aggregation_named

SCORES = torch.randn(40, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_every_rule_keeps_a_constant_stays_between_the_extremes_and_moves_with_the_scores(name: str) -> None:
    rule = AGGREGATIONS[name]
    assert torch.allclose(rule(torch.full((9, 2), 1.5)), torch.full((2,), 1.5))
    found = rule(SCORES)
    assert (found <= SCORES.amax(0)).all() and (found >= SCORES.amin(0)).all()
    assert torch.allclose(rule(3 * SCORES + 2), 3 * found + 2)
    assert torch.allclose(rule(SCORES)[1], rule(SCORES[:, 1]))  # columns do not mix


def test_the_exponential_mean_is_the_recursion_that_a_stream_would_run() -> None:
    state = SCORES[0]
    for token in SCORES[1:]:
        state = DECAY * state + (1 - DECAY) * token
    assert torch.allclose(AGGREGATIONS["ema"](SCORES), state)


def test_the_sliding_window_is_the_best_of_all_windows() -> None:
    windows = torch.stack([SCORES[i : i + 16].mean(0) for i in range(25)])
    assert torch.allclose(AGGREGATIONS["window_max"](SCORES), windows.amax(0))
    assert torch.allclose(AGGREGATIONS["window_max"](SCORES[:10]), SCORES[:10].mean(0))


def test_the_top_mean_of_a_short_answer_is_its_mean() -> None:
    assert torch.allclose(AGGREGATIONS["top5_mean"](SCORES[:3]), SCORES[:3].mean(0))
    assert torch.allclose(AGGREGATIONS["top5_mean"](SCORES), SCORES.sort(0).values[-5:].mean(0))


def test_a_misspelt_rule_is_answered_with_the_nearest() -> None:
    with pytest.raises(DataError, match="window_max"):
        aggregation_named("windowmax")
