import torch

from emis_interp.models.chat import encode_chats
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.capture import capture_residuals
from emis_interp.passes.positions import TokenSets
from probes.classifiers.aggregation import AGGREGATIONS
from probes.classifiers.readings import READ_AT, read_tokens

TEXTS = [
    ("What is wet?", "Rain, mostly, and the sea as well as lakes and rivers that run to it."),
    ("What is wet?", "Rain."),
    ("Who are you?", "I am nobody in particular, and glad of it."),
]


def test_positions_are_those_that_capture_reads(tiny: ChatModel) -> None:
    chats = encode_chats(tiny.tokenizer, TEXTS)
    read = read_tokens(tiny, chats, [1, 0])
    assert read.layers == (0, 1)
    for position in ("last_prompt", "response_mean"):
        assert torch.allclose(
            read.pooled(position), capture_residuals(tiny, chats, [0, 1], position=position).float(), atol=1e-4
        )
    first = TokenSets(tuple(tuple(range(c.response_start, min(c.response_start + 4, c.response_end))) for c in chats))
    assert torch.allclose(
        read.pooled("first_4"), capture_residuals(tiny, chats, [0, 1], position=first).float(), atol=1e-4
    )
    assert list(read.lengths) == [chat.n_response for chat in chats]


def test_answers_to_one_prompt_share_its_residual_to_the_last_bit(tiny: ChatModel) -> None:
    read = read_tokens(tiny, encode_chats(tiny.tokenizer, TEXTS), [0, 1], max_batch_tokens=64)
    before = read.pooled("last_prompt")
    assert torch.equal(before[0], before[1])
    assert not torch.equal(before[0], before[2])


def test_the_mean_of_token_scores_is_the_score_of_the_mean(tiny: ChatModel) -> None:
    read = read_tokens(tiny, encode_chats(tiny.tokenizer, TEXTS), [1])
    weights = torch.randn(3, tiny.d_model)
    found = read.aggregated(weights, 1, [0, 1, 2], rule=AGGREGATIONS["mean"])
    assert torch.allclose(torch.from_numpy(found), weights @ read.pooled("response_mean")[:, 0].T, atol=1e-4)
    assert len(READ_AT) == 8
