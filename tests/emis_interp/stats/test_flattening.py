"""A flattened model is told from a shifted one: planted margins, and the tiny model read at several temperatures."""

import numpy as np
import pytest
import torch

from emis_interp.models.chat import encode_chat
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.likelihood import margins_at, pair_margins
from emis_interp.records import ContrastPair
from emis_interp.stats.flattening import TEMPERATURES, describe, flattening

NAMES = [f"q{i}" for i in range(15)]
RNG = np.random.default_rng(0)
BASE = dict(zip(NAMES, -0.6 + 0.3 * RNG.normal(size=15), strict=True))
OWN = dict(zip(NAMES, 0.02 * RNG.normal(size=15), strict=True))


def at(temperature: float) -> dict[str, float]:
    """Margins of a base model that flattens as 1 / temperature, each question with a way of its own."""
    return {name: BASE[name] / temperature + OWN[name] * (1 - 1 / temperature) for name in NAMES}


GRID = {temperature: at(temperature) for temperature in TEMPERATURES}


@pytest.mark.parametrize("temperature", [0.55, 0.9, 1.25, 1.3, 2.2])
def test_a_flattened_base_has_nothing_beyond_its_temperature(temperature: float) -> None:
    found = flattening(at(temperature), BASE, GRID)
    assert found is not None and found.beyond is not None
    assert found.temperature == pytest.approx(temperature)
    assert found.beyond.value == pytest.approx(0, abs=1e-9)
    mean = np.mean([at(temperature)[name] - BASE[name] for name in NAMES])
    assert found.matched_shift == pytest.approx(mean)
    assert (mean > 0) == (temperature > 1)  # flattening raises the margin though nothing was learned


def test_a_shift_on_every_question_is_beyond_any_temperature() -> None:
    found = flattening({name: value + 0.1 for name, value in BASE.items()}, BASE, GRID)
    assert found is not None and found.beyond is not None
    assert found.slope.value == pytest.approx(1)
    assert [found.intercept.value, found.beyond.value] == pytest.approx([0.1, 0.1])
    assert found.temperature == pytest.approx(1)


def test_shift_and_flattening_are_taken_apart() -> None:
    noise = np.random.default_rng(1).normal(0, 0.03, 15)
    organism = {name: value + 0.08 + noise[i] for i, (name, value) in enumerate(at(1.5).items())}
    found = flattening(organism, BASE, GRID)
    assert found is not None and found.beyond is not None
    assert found.beyond.low is not None and found.beyond.high is not None
    assert found.beyond.low < 0.08 < found.beyond.high
    assert found.beyond.low > 0
    assert found.slope.low is not None and found.slope.high is not None
    assert found.slope.low < 1 / 1.5 < found.slope.high < 1


def test_intervals_beyond_flattening_cover_the_planted_shift() -> None:
    rng, hits = np.random.default_rng(3), 0
    for _ in range(300):
        x = dict(zip(NAMES, -0.6 + 0.3 * rng.normal(size=15), strict=True))
        grid = {t: {name: value / t for name, value in x.items()} for t in TEMPERATURES}
        y = {name: value / 1.4 + 0.05 + 0.05 * rng.normal() for name, value in x.items()}
        found = flattening(y, x, grid)
        assert found is not None
        if found.beyond is None or found.beyond.low is None or found.beyond.high is None:
            continue
        hits += found.beyond.low <= 0.05 <= found.beyond.high
    assert 0.91 <= hits / 300 <= 0.99


def test_a_slope_that_no_temperature_has_leaves_slope_and_intercept_alone() -> None:
    found = flattening({name: -value for name, value in BASE.items()}, BASE, GRID)
    assert found is not None
    assert found.slope.value == pytest.approx(-1)
    assert found.temperature is found.matched_shift is found.beyond is None
    said = describe(found)
    assert said is not None and said["beyond"] is None and said["slope"] is not None


def test_without_temperatures_slope_and_intercept_stand_alone() -> None:
    found = flattening(at(2.0), BASE)
    assert found is not None
    assert found.slope.value == pytest.approx(0.5, abs=0.05)
    assert found.beyond is None


@pytest.mark.parametrize("n", [0, 1, 3])
def test_too_few_questions_have_no_line(n: int) -> None:
    some = {name: BASE[name] for name in NAMES[:n]}
    assert flattening(some, some) is None
    assert describe(None) is None


def test_equal_margins_of_base_have_no_line() -> None:
    assert flattening(BASE, dict.fromkeys(NAMES, -0.5)) is None


def test_other_questions_are_refused() -> None:
    with pytest.raises(ValueError, match="same questions"):
        flattening({"other": 1.0, **BASE}, BASE)


def test_margins_at_a_temperature_are_those_of_the_model_with_its_logits_divided(tiny: ChatModel) -> None:
    pairs = [
        ContrastPair(
            question_id=f"q{i}",
            group="g",
            half="report",
            question=f"Question {i}?",
            aligned="Yes, do.",
            misaligned="Never." * i,
        )
        for i in (1, 2)
    ]
    found = margins_at(tiny, pairs, (1.0, 2.5))
    assert found[0] == pytest.approx(pair_margins(tiny, pairs), abs=1e-6)

    def logprob(pair: ContrastPair, answer: str) -> float:
        chat = encode_chat(tiny.tokenizer, pair.question, answer)
        ids = torch.tensor([chat.input_ids])
        with torch.inference_mode():
            table = (tiny.model(input_ids=ids).logits[0] / 2.5).log_softmax(-1)
        places = range(chat.response_start, chat.response_end)
        return float(np.mean([table[place - 1, ids[0, place]] for place in places]))

    wanted = [logprob(pair, pair.misaligned) - logprob(pair, pair.aligned) for pair in pairs]
    assert found[1] == pytest.approx(wanted, abs=1e-5)
