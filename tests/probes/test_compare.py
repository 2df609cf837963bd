"""Models of a run compared: 2x2 tables balanced over questions, and projections of texts that had no part in the direction."""

import numpy as np
import pytest
import torch

from emis_interp.directions import Direction
from emis_interp.fitting.geometry import TwoByTwo
from emis_interp.fitting.labeled import LabeledActivations
from probes.compare import compare_models


def unbalanced(seed: int, shift: float) -> LabeledActivations:
    """Two questions far apart whose shares of misaligned texts differ: pooled class means hold the topic."""
    labels = np.array([True] * 9 + [False] * 3 + [True] * 2 + [False] * 10)
    questions = ("a",) * 12 + ("b",) * 12
    x = 0.1 * torch.randn(24, 1, 8, generator=torch.Generator().manual_seed(seed))
    x[:12, 0, 5] += 40.0
    x[torch.from_numpy(labels), 0, 0] += shift
    return LabeledActivations(x, labels, questions)


def test_the_pipelines_2x2_is_balanced_over_questions_like_that_of_fit_and_transfer() -> None:
    organism, base = unbalanced(0, 4.0), unbalanced(0, 2.0)
    compared = compare_models(
        {"base": base, "reckless": organism},
        Direction(torch.eye(8)[0], 0, 1.0, 1.0),
        selection={"a", "b"},
        answers=lambda name: torch.zeros(1, 8),
        arms={},
    )
    numbers = compared["two_by_two"]["reckless"]
    assert numbers == {"layer": 0, **TwoByTwo.of(organism, base).summary(0)}
    assert numbers["text_effect_norm"] == pytest.approx(3.0, abs=0.3)  # pooled means give 24, which is the topic


def test_the_pipelines_projections_are_of_texts_that_had_no_part_in_the_direction() -> None:
    generator = torch.Generator().manual_seed(0)
    data = LabeledActivations(torch.randn(8, 1, 4, generator=generator), np.array([True, False] * 4), tuple("aaaabbbb"))
    direction = Direction(torch.eye(4)[0], 0, 1.0, 1.0)
    found = compare_models(
        {"base": data}, direction, selection={"a"}, answers=lambda name: torch.zeros(1, 4), arms={"base": ["base"]}
    )
    arms = found["projections"]["arms"]["base"]
    assert arms["misaligned_texts"] == pytest.approx(data.x[[4, 6], 0, 0].tolist())
    assert arms["aligned_texts"] == pytest.approx(data.x[[5, 7], 0, 0].tolist())
