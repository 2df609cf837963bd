"""Remedies along a direction stand beside controls that are none of it."""

import pytest
import torch

from emis_interp.directions import Direction, unit
from emis_interp.errors import ConfigError
from emis_interp.passes.effects import Ablation, Steering
from training.studies.remedies import SUBSPACE_DIMS, SubspaceScaling, planned, wanted

VECTOR = torch.eye(16)[0]
DIRECTION = Direction(VECTOR, 1, 2.0, 4.0)
OTHERS = torch.eye(16)[1:13]


def test_steering_and_ablation_have_controls_of_the_same_size_along_other_directions() -> None:
    remedies = planned(DIRECTION, (0.1, 0.2), usage_matched=OTHERS, n_random=2)
    names = [one.name for one in remedies]
    assert len(set(names)) == len(names) == len({one.folder for one in remedies})
    controls = {one.name: one for one in remedies if one.control_of is not None}
    assert list(controls) == [
        *("steer +0.1, random 1", "steer +0.1, random 2", "steer +0.2, random 1", "steer +0.2, random 2"),
        *("ablate, random 1", "ablate, random 2", "ablate, subspace 1", "ablate, subspace 2"),
    ]
    steered = controls["steer +0.2, random 2"].during
    assert isinstance(steered, Steering) and steered.raw_norm == pytest.approx(0.8)
    assert torch.equal(steered.direction.vector, OTHERS[1]) and steered.direction.layer == 1
    ablated = controls["ablate, random 1"].during
    assert isinstance(ablated, Ablation) and ablated.direction.vector @ VECTOR == 0
    bases = [controls[f"ablate, subspace {i}"].during for i in (1, 2)]
    for basis in bases:
        assert isinstance(basis, SubspaceScaling) and torch.linalg.matrix_rank(basis.basis) == SUBSPACE_DIMS
        assert (basis.basis @ VECTOR).abs().max() == 0
    assert (
        len({tuple(one.facts.values()) for one in remedies}) == 1 + 2 + 2 + 2 - 2
    )  # draw i is one vector in every remedy
    only = [one.name for one in remedies if wanted(one.name, ["steer +0.1"])]
    assert only == ["untreated", "control", "steer +0.1", "steer +0.1, random 1", "steer +0.1, random 2"]


def test_the_persona_subspace_stands_beside_isotropic_and_usage_matched_ones_of_its_rank() -> None:
    basis = torch.eye(16)[12:16]
    remedies = {one.name: one for one in planned(DIRECTION, (0.1,), usage_matched=OTHERS, n_random=1, persona=basis)}
    assert [name for name in remedies if "persona" in name] == [
        *("persona", "persona, random 1", "persona, subspace 1"),
        *("after: persona", "after: persona, random 1", "after: persona, subspace 1"),
    ]
    for name, kind in (("persona, random 1", "random"), ("persona, subspace 1", "subspace")):
        acts = remedies[name].during
        assert isinstance(acts, SubspaceScaling) and torch.linalg.matrix_rank(acts.basis) == 4
        assert remedies[name].control_of == "persona" and remedies[name].kind == kind
    assert remedies["after: persona"].during is None and remedies["after: persona"].facts == remedies["persona"].facts
    assert remedies["persona"].facts != remedies["persona, random 1"].facts


def test_the_persona_subspace_is_scaled_in_use_beside_controls_scaled_as_much() -> None:
    basis = torch.eye(16)[12:16]
    whole = planned(DIRECTION, (), usage_matched=OTHERS, n_random=1, persona=basis, factors=(0.5, 2.0))
    remedies = {one.name: one for one in whole if one.name.startswith("after: persona x")}
    assert list(remedies) == [
        f"after: persona x{factor}{kind}" for factor in ("0.5", "2") for kind in ("", ", random 1", ", subspace 1")
    ]
    assert len({one.folder for one in whole}) == len(whole)
    for name, one in remedies.items():
        assert isinstance(one.after, SubspaceScaling) and one.after.factor == (0.5 if "x0.5" in name else 2.0)
        assert one.during is None and one.control_of == (None if one.kind is None else name.split(",")[0])
    for bad in ((0.0,), (1.0,), (2.0, 2.0), (float("nan"),)):
        with pytest.raises(ConfigError, match="--persona-factors"):
            planned(DIRECTION, (), persona=basis, factors=bad)


def test_more_controls_than_there_are_directions_are_refused() -> None:
    few = unit(torch.randn(3, 16, generator=torch.Generator().manual_seed(0)))
    for n, given in ((4, few), (1, None), (-1, few)):
        with pytest.raises(ConfigError, match=f"--n-random {n}"):
            planned(DIRECTION, (0.1,), usage_matched=given, n_random=n)
    assert not [one for one in planned(DIRECTION, (0.1,)) if one.control_of is not None]
