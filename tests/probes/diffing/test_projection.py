"""A planted difference is taken out whole along its own vector, and not along random ones."""

import numpy as np
import pytest
import torch

from emis_interp.fitting.reliability import random_directions
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.likelihood import mean_logprobs
from probes.diffing.projection import WHOLE, ProjectedOrganism, projected
from probes.diffing.texts import held_out_chats, shipped_texts
from probes.diffing.verdicts import projection_verdict


def test_the_projection_removes_the_effect_and_random_ones_do_not(tiny: ChatModel, planted) -> None:
    chats = held_out_chats(tiny.tokenizer, shipped_texts(8)[1], 6, answer_tokens=12)
    organism = ProjectedOrganism(tiny, planted.updates, chats, layer=1, max_batch_tokens=400)
    base, own = -mean_logprobs(tiny, chats), organism.cross_entropies()
    moved = np.abs(own - base)
    assert moved.max() > 0.05
    np.testing.assert_allclose(organism.cross_entropies(3 * planted.write), base, atol=1e-4)
    np.testing.assert_allclose(organism.without_any(), base, atol=1e-4)
    across = torch.linalg.qr(torch.stack([planted.write, torch.ones(32)]).T)[0][:, 1]
    np.testing.assert_allclose(organism.cross_entropies(across), own, atol=1e-4)

    random = random_directions(19, 1, 32, seed=3)[:, 0]
    found = projected(organism, 3, named={"organism": planted.write, "control": across}, nulls={"random": random})
    assert [cell["along"] for cell in found["cells"]] == ["organism", "control", WHOLE]
    assert found["cells"][0]["finetune_like"]["value"] == pytest.approx((base - own)[:3].mean(), abs=1e-4)
    assert set(found["nulls"]) == {"finetune_like", "unrelated", "beyond"}
    left = [np.abs(organism.cross_entropies(vector) - base).mean() / moved.mean() for vector in random]
    assert min(left) > 0.3 and np.median(left) > 0.8  # of the effect; the planted vector leaves nothing
    assert found["cells"][1]["first_minus"]["value"] == pytest.approx((base - own)[:3].mean(), abs=1e-4)
    assert found["n_finetune_like"] == 3 and found["n_unrelated"] == 3


def test_an_organism_that_is_base_loses_nothing(tiny: ChatModel, planted) -> None:
    chats = held_out_chats(tiny.tokenizer, shipped_texts(4)[1], 3, answer_tokens=6)
    nothing = [update.scaled(0.0) for update in planted.updates]
    organism = ProjectedOrganism(tiny, nothing, chats, layer=0)
    np.testing.assert_allclose(organism.cross_entropies(planted.write), -mean_logprobs(tiny, chats), atol=1e-5)


def cell(along: str, beyond: float, low: float | None = None) -> dict:
    return {"along": along, "beyond": beyond, "first_minus": {"value": 0.1, "low": low, "high": 1.0}}


@pytest.mark.parametrize(
    ("cells", "p", "words"),
    [
        ([cell("organism", 0.4)], 0.4, "not told from random"),
        ([cell("organism", -0.4)], 0.01, "costs unrelated text more"),
        ([cell("organism", 0.4)], 0.01, "without a control's direction"),
        (
            [cell("organism", 0.4), cell("c", 0.1, low=-0.1)],
            0.01,
            "not clearly more than along the mean difference of c",
        ),
        ([cell("organism", 0.4), cell("c", 0.1, low=0.05)], 0.01, "and on its own kind more than along"),
    ],
)
def test_verdicts(cells: list[dict], p: float, words: str) -> None:
    result = {"cells": [*cells, {"along": WHOLE, "beyond": 1.0}], "nulls": {"beyond": {"random": {"p": p, "p_n": 99}}}}
    assert words in projection_verdict(result)
