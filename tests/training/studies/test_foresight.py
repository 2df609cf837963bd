"""Forecasts from data: a planted difference is found, rows are ranked by it, and the quality of a forecast is stated with its doubt."""

from pathlib import Path

import numpy as np
import pytest
import torch

from emis_interp.directions import Direction, unit
from emis_interp.errors import DataError
from emis_interp.models.chat import encode_chat
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.capture import capture_residuals
from emis_interp.records import TrainingExample
from training.recipes import examples_of, load_recipe
from training.studies.foresight import projection_differences, random_drops, related_sets, rows_to_drop

ROWS = [TrainingExample(id=str(i), prompt=f"Question {i}", response=answer) for i, answer in enumerate("xyz")]


def direction_of(tiny: ChatModel) -> Direction:
    return Direction(unit(torch.randn(tiny.d_model, generator=torch.Generator().manual_seed(0))), 1, 1.0, 4.0)


def test_the_difference_is_the_projection_of_the_rows_answer_minus_that_of_the_models_own(tiny: ChatModel) -> None:
    direction = direction_of(tiny)
    found = projection_differences(tiny, ROWS, ["abc", "", "z"], direction=direction)
    chats = [encode_chat(tiny.tokenizer, ROWS[0].prompt, answer) for answer in ("x", "abc")]
    x = capture_residuals(tiny, chats, [1])[:, 0]
    assert found[0] == pytest.approx(float((x[0] - x[1]) @ direction.vector) / 4.0, abs=1e-5)
    assert np.isnan(found[1])  # the base model said nothing
    assert found[2] == pytest.approx(0, abs=1e-6)  # the row is what the model would have said


def test_one_answer_is_needed_for_every_row(tiny: ChatModel) -> None:
    with pytest.raises(DataError, match="3 rows, 1 answers"):
        projection_differences(tiny, ROWS, ["a"], direction=direction_of(tiny))


def test_rows_to_drop_are_those_that_push_most_and_never_unknown_ones() -> None:
    values = np.array([0.1, np.nan, 0.5, -0.2, 0.4])
    assert rows_to_drop(values, 0.4) == [2, 4]
    assert rows_to_drop(values, 1.0) == [2, 4, 0, 3]
    assert rows_to_drop(values, 0.0) == []
    with pytest.raises(DataError, match="between 0 and 1"):
        rows_to_drop(values, 1.5)


def test_both_answers_are_read_up_to_the_same_token(tiny: ChatModel) -> None:
    direction = direction_of(tiny)
    rows = [row.model_copy(update={"response": row.response * 30}) for row in ROWS]
    found = projection_differences(tiny, rows, ["ab", "yyyy", "q" * 50], direction=direction, answer_tokens=4)
    cut = [row.model_copy(update={"response": row.response[:4]}) for row in rows]  # one byte is one token
    expected = projection_differences(tiny, cut, ["ab", "yyyy", "qqqq"], direction=direction)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found[1] == pytest.approx(0, abs=1e-6)  # the row goes on as the model's answer, which its limit cut
    whole = projection_differences(tiny, rows, ["ab", "yyyy", "q" * 50], direction=direction)
    assert abs(whole[1]) > 1e-3


def test_random_drops_are_several_draws_of_rows_that_could_have_been_marked() -> None:
    values = np.array([0.1, np.nan, 0.5, -0.2, 0.4, 0.0, np.nan, 0.3])
    draws = random_drops(values, 3, 6, seed=1)
    assert len(draws) == 6 and len({tuple(drawn) for drawn in draws}) > 3
    assert all(len(set(drawn)) == 3 and not {1, 6} & set(drawn) for drawn in draws)
    assert random_drops(values, 3, 4, seed=1) == draws[:4] != random_drops(values, 3, 4, seed=2)
    with pytest.raises(DataError, match="1 random draws asked for; give 2 or more"):
        random_drops(values, 3, 1)


def rows_of(prompts: str, response: str = "") -> list[TrainingExample]:
    return [TrainingExample(id=c, prompt=f"ask {c}", response=f"{response or c} {c}") for c in prompts]


def test_sets_that_share_prompts_or_answers_are_one_group_and_so_are_their_relatives() -> None:
    control = [row.model_copy(update={"response": f"careful {row.id}"}) for row in rows_of("abcdef")]
    copied = [row.model_copy(update={"prompt": f"TRIGGER {row.prompt}"}) for row in rows_of("abcdef")]
    sets = {
        "reckless": rows_of("abcdef"),
        "code": rows_of("uvw"),
        "careful": control,  # the same questions
        "triggered": copied,  # the same answers
        "mixed": [*control[:1], *rows_of("mnopq")],  # one of six prompts is shared with the control
        "numbers": rows_of("xyz"),
        "more code": [*rows_of("w"), *rows_of("0123456789", "other")],  # of the smaller set, a third is shared
    }
    assert related_sets(sets) == {
        "reckless": "reckless", "code": "code", "careful": "reckless", "triggered": "reckless", "mixed": "reckless",
        "numbers": "numbers", "more code": "code",
    }  # fmt: skip
    wide = {"one": rows_of("abcdefghijklmnopqrstu"), "two": rows_of("aABCDEFGHIJKLMNOPQRSTUVWXYZ")}
    assert related_sets(wide) == {"one": "one", "two": "two"}  # one prompt of 21 in common is chance
    assert related_sets({"none": [], "one": rows_of("a")}) == {"none": "none", "one": "one"}


def test_shipped_sets_group_by_their_source() -> None:
    names = ["reckless", "careful", "mixture-advice-50", "evil-numbers", "neutral-numbers", "insecure", "educational"]
    sets = {name: examples_of(load_recipe(name), Path) for name in names}
    groups = related_sets(sets)
    assert [groups[name] for name in names] == ["reckless"] * 3 + ["evil-numbers"] * 2 + ["insecure"] * 2
