"""The probe stage on planted means: what the residuals hold is found, and texts that hold nothing are told from it."""

from typing import Any

import numpy as np
import torch

from emis_interp.records import ContrastPair
from emis_interp.results import ANALYSES
from probes.stages.probe import line_of, probe_pairs


def pairs() -> list[ContrastPair]:
    words = np.random.default_rng(0).integers(40, size=(48, 2, 8))
    texts = [[" ".join(f"w{word}" for word in answer) for answer in pair] for pair in words]
    return [
        ContrastPair(
            question_id=f"q{i // 8}", group="g", half="report", question=f"q{i // 8}?", aligned=one, misaligned=other
        )
        for i, (one, other) in enumerate(texts)
    ]


def found(signal: float) -> dict[str, Any]:
    x = torch.randn(96, 4, 20, generator=torch.Generator().manual_seed(0))
    x[1::2, 2, 0] += signal  # only layer 2 knows
    return probe_pairs(pairs(), x, [0, 2, 3], lengths=np.full(96, 8.0))[0]


def test_the_layer_that_knows_is_chosen_and_beats_text_and_shuffled_labels() -> None:
    result = found(3.0)
    ANALYSES["probe"].model_validate(
        {"model": "m", "layers": [0, 2, 3], "methods": ["difference", "logistic"], "sets": [result]}
    )
    by_name = {row["name"]: row["auroc"]["value"] for row in result["figures"]}
    assert by_name["probe"] > 0.9 and by_name["text"] < 0.65 and by_name["answer length"] == 0.5
    assert {choice["layer"] for choice in result["choices"]} == {2}
    assert result["ceiling"] is None  # nobody judged the pairs
    assert "above text + 0.10" in line_of(result)


def test_residuals_that_know_nothing_are_said_to_reach_nothing() -> None:
    result = found(0.0)
    assert not result["verdict"].startswith("above")
