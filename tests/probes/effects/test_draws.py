"""Control directions beside an intervention: each draw is what the intervention along it does; interactions are differences of these."""

import numpy as np
import pytest

from emis_interp.directions import Direction
from emis_interp.fitting.reliability import random_directions
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.effects import Ablation, Steering, measure
from emis_interp.records import ContrastPair
from emis_interp.results import Draws
from probes.effects.draws import drawn_effects, interaction


def pairs() -> list[ContrastPair]:
    return [
        ContrastPair(
            question_id=name,
            group="g",
            half="report",
            question=f"{name}?",
            aligned=f"I help {i}.",
            misaligned="I harm!",
        )
        for name in ("Why", "Who", "What")
        for i in range(2)
    ]


@pytest.mark.parametrize("kind", ["steer", "ablate"])
def test_each_draw_is_the_shift_of_the_intervention_along_it(tiny: ChatModel, kind: str) -> None:
    drawn = random_directions(5, 1, tiny.d_model, seed=3)[:, 0]
    own = Direction(drawn[0], layer=0, residual_norm=2.0, raw_norm=1.0)
    of = {"random": drawn[1:3], "orthogonal": drawn[3:]}

    def along(direction: Direction) -> Steering | Ablation:
        return Steering(direction, 0.4) if kind == "steer" else Ablation(direction)

    found = Draws.model_validate(drawn_effects(tiny, along(own), of, pairs=pairs()))
    assert found.n_pairs == 6 and {name: len(shifts) for name, shifts in found.shifts.items()} == {
        "random": 2,
        "orthogonal": 2,
    }
    effects = [
        measure(tiny, along(Direction(vector, layer=0, residual_norm=2.0, raw_norm=1.0)), pairs()).shift
        for vector in drawn
    ]
    means = [float(np.mean(list(effect.values()))) for effect in effects]
    assert [found.own, *found.shifts["random"], *found.shifts["orthogonal"]] == pytest.approx(means, abs=1e-5)
    assert np.std(means) > 1e-4
    for name, row in found.by_question.items():
        assert row["own"] == pytest.approx(effects[0][name], abs=1e-5)
        assert row["random"] == pytest.approx((effects[1][name] + effects[2][name]) / 2, abs=1e-5)


def test_the_p_value_counts_the_draw_itself() -> None:
    draws = Draws(n_pairs=2, own=-0.2, shifts={"random": [0.1] * 18 + [0.2, -0.3]})
    assert (draws.reached("random"), draws.p("random")) == (2, pytest.approx(3 / 21))


def test_an_interaction_is_what_an_arm_has_beyond_its_control_and_both_beyond_random_directions() -> None:
    arm = {"a": {"own": -0.5, "random": -0.1}, "b": {"own": -0.4, "random": 0.0}}
    control = {"a": {"own": -0.1, "random": -0.1}, "b": {"own": -0.2, "random": 0.0}}
    found = interaction(arm, control, "random")
    assert found["value"] == pytest.approx(-0.3) and found["n_questions"] == 2
    assert found["low"] < -0.3 < found["high"]
