"""Turns reconstructions of which the answer is known into cross-entropy recovered."""

from typing import Any

import numpy as np
import pytest
import torch

from emis_interp.models.chat import encode_chats
from emis_interp.passes.capture import capture_residuals
from emis_interp.passes.interventions import edit_outputs
from emis_interp.passes.likelihood import mean_logprobs
from probes.sae.splicing import Splice, answer_losses, mean_loss, recovered


def texts(tiny: Any) -> list[Any]:
    return encode_chats(tiny.tokenizer, [(f"What is {i}?", f"It is the number {i} " * (i + 1)) for i in range(5)])


def losses(tiny: Any, **conditions: Any) -> dict[str, list[np.ndarray]]:
    special = set(tiny.tokenizer.all_special_ids)
    return answer_losses(tiny, texts(tiny), 0, conditions=conditions, special=special, max_batch_tokens=100)


def test_the_losses_are_those_of_the_likelihood(tiny: Any) -> None:
    found = losses(tiny, clean=None)["clean"]
    expected = mean_logprobs(tiny, texts(tiny))
    np.testing.assert_allclose([-values.mean() for values in found], expected, rtol=1e-5)
    assert [len(values) for values in found] == [chat.n_response for chat in texts(tiny)]


def test_the_identity_recovers_everything_and_the_floor_nothing(tiny: Any) -> None:
    found = losses(
        tiny, clean=None, same=lambda rows: rows, loud=lambda rows: 50 * rows.roll(1, 0), half=lambda rows: 2.0 * rows
    )
    questions = [str(i) for i in range(5)]
    floor = found["loud"] if mean_loss(found["loud"]) > mean_loss(found["clean"]) else [v + 1 for v in found["clean"]]
    same = recovered(found["clean"], found["same"], floor, questions=questions)
    nothing = recovered(found["clean"], floor, floor, questions=questions)
    assert same["value"] == pytest.approx(1.0, abs=1e-6)
    assert nothing["value"] == 0.0
    assert (same["n"], same["n_questions"]) == (sum(map(len, found["clean"])), 5)


def test_a_floor_that_is_no_worse_gives_no_share(tiny: Any) -> None:
    clean = losses(tiny, clean=None)["clean"]
    assert recovered(clean, clean, clean, questions=list("abcde"))["value"] is None


def test_half_of_a_loss_is_a_half() -> None:
    clean, floor = [np.ones(3), np.ones(5)], [np.full(3, 3.0), np.full(5, 3.0)]
    assert recovered(clean, [2 * values for values in clean], floor, questions=["a", "b"])["value"] == 0.5


def test_first_special_loud_and_padding_keep_their_residual(tiny: Any) -> None:
    """Read behind the edit: only the ordinary tokens became zero."""
    chat = texts(tiny)[2]
    special = set(tiny.tokenizer.all_special_ids)
    before = capture_residuals(tiny, [chat], [0], position="all_tokens")  # a mean; single tokens below
    places = torch.tensor([[i > 0 and token not in special for i, token in enumerate(chat.input_ids)]])
    norms = torch.stack(
        [capture_residuals(tiny, [chat], [0], position=lambda _, i=i: (i,))[0, 0].norm() for i in range(len(chat))]
    )
    limit = float(norms[places[0]].median())
    splice = Splice(torch.zeros_like, limit, places)
    with edit_outputs(tiny, [0], splice):
        found = torch.stack(
            [capture_residuals(tiny, [chat], [0], position=lambda _, i=i: (i,))[0, 0] for i in range(len(chat))]
        )
    replaced = found.norm(dim=-1) == 0
    assert torch.equal(replaced, places[0] & (norms <= limit))
    assert 0 < int(replaced.sum()) < int(places.sum())
    assert before.shape == (1, 1, tiny.d_model)
