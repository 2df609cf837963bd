"""An intervention measured: margins before and after, its cost, and answers that are given while it is in place."""

import pytest
import torch

from emis_interp.directions import Direction
from emis_interp.models.chat import encode_prompt
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.effects import Ablation, Steering, measure
from emis_interp.passes.interventions import steer
from emis_interp.passes.likelihood import by_question, pair_margins, paired_difference
from emis_interp.texts.contrast import load_contrast

PAIRS = load_contrast(None, 1)[:3]


def along(axis: int, d_model: int) -> Direction:
    return Direction(torch.eye(d_model)[axis], 0, 1.0, 2.0)


def test_the_effect_of_steering_is_that_of_the_texts_read_while_it_is_in_place(tiny: ChatModel) -> None:
    direction = along(0, tiny.d_model)
    prompts = [encode_prompt(tiny.tokenizer, "What now?")]
    effect = measure(tiny, Steering(direction, 3.0), PAIRS, prompts=prompts)
    before = by_question(PAIRS, pair_margins(tiny, PAIRS))
    with steer(tiny, direction, 3.0):
        after = by_question(PAIRS, pair_margins(tiny, PAIRS))
    assert effect.before == before and effect.after == after
    assert effect.shift == paired_difference(after, before) and any(effect.shift.values())
    assert effect.kl is not None and effect.kl > 0 and effect.answers is None
    assert by_question(PAIRS, pair_margins(tiny, PAIRS)) == before  # undone


def test_known_margins_are_not_measured_again_and_without_prompts_there_is_no_cost(tiny: ChatModel) -> None:
    known = {pair.question_id: 7.0 for pair in PAIRS}
    effect = measure(tiny, Ablation(along(1, tiny.d_model)), PAIRS, before=known)
    assert effect.before == known and effect.kl is None
    nothing = measure(tiny, Steering(along(1, tiny.d_model), 0.0), PAIRS)
    assert set(nothing.shift.values()) == {0.0}


def test_answers_are_sampled_under_the_intervention(tiny: ChatModel) -> None:
    direction = along(0, tiny.d_model)
    seen: list[dict[str, float]] = []

    def sample(chat_model: ChatModel) -> list:
        seen.append(by_question(PAIRS, pair_margins(chat_model, PAIRS)))
        return []

    effect = measure(tiny, Ablation(direction), PAIRS, sample=sample)
    assert seen == [effect.after] and effect.answers == []


def test_a_steering_in_another_direction_adds_the_same_norm() -> None:
    steering = Steering(along(0, 4), -0.5)
    other = steering.along(along(1, 4))
    assert (steering.raw_norm, other.raw_norm) == (1.0, 1.0)
    assert other.coefficient == -0.5 and other.direction.vector.tolist() == pytest.approx([0, 1, 0, 0])
