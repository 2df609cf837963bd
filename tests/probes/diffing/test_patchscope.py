"""Patchscopes: a token's own residual changes nothing, and the length of a vector is chosen by agreement alone."""

import pytest
import torch

from emis_interp.errors import ModelError
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.interventions import next_token_logprobs
from probes.diffing import patchscope
from probes.diffing.patchscope import PROMPTS, patched_probabilities, read_vectors


def test_the_residual_of_the_place_itself_changes_nothing(tiny: ChatModel) -> None:
    prompt = PROMPTS[0]
    ids = tuple(tiny.tokenizer(prompt)["input_ids"])
    with torch.no_grad():
        states = tiny.model(torch.tensor([ids]), output_hidden_states=True).hidden_states
    place = prompt.rindex("?")  # a byte is a token
    own = states[1][0, place]
    found = patched_probabilities(tiny, prompt, torch.stack([own, 3 * own.flip(0)]), layer=0)
    plain = next_token_logprobs(tiny, [ids]).exp()[0]
    torch.testing.assert_close(found[0], plain, rtol=1e-4, atol=1e-6)
    assert (found[1] - plain).abs().max() > 1e-4


def test_the_scale_is_the_one_at_which_prompts_agree(tiny: ChatModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """At length 2 every prompt makes tokens 40 to 59 likelier for the first vector; elsewhere each prompt has tokens of its own."""
    n = len(tiny.tokenizer)

    def probabilities(base: ChatModel, prompt: str, vectors: torch.Tensor, *, layer: int) -> torch.Tensor:
        found = torch.full((len(vectors), n), 1e-4)
        at = 40 if float(vectors[0].norm()) == pytest.approx(2, abs=1e-4) else 60 + 30 * PROMPTS.index(prompt)
        found[0, at : at + 20] = torch.linspace(0.02, 0.01, 20)
        return found + 0.1 * torch.arange(n) / n  # what every vector raises is no gain

    monkeypatch.setattr(patchscope, "patched_probabilities", probabilities)
    read = read_vectors(tiny, torch.eye(32)[:4], 0, residual_norm=1.0, n_random=3)
    assert read.scale[0] == 2.0 and read.agreement[0] == 1.0
    assert read.tokens[0].tolist() == list(range(40, 60))
    assert len(read.scale) == 4 and read.scale[1] == 0.5  # of equal ones the smallest


def test_gains_of_random_vectors_leave_themselves_out() -> None:
    values = torch.tensor([[0.5], [0.1], [0.2], [0.6]])
    assert patchscope._gain(values, 3)[:, 0].tolist() == pytest.approx([0.2, -0.3, -0.15, 0.45])


def test_too_few_random_vectors(tiny: ChatModel) -> None:
    with pytest.raises(ModelError, match="read against 2 or more"):
        read_vectors(tiny, torch.eye(32)[:2], 0, residual_norm=1.0, n_random=1)
