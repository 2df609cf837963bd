"""Which tokens a position reads, and running means of groups, against hand-made means over hidden states."""

import pytest
import torch
from families import family
from torch import Tensor

from emis_interp.batching import PaddingSide
from emis_interp.capture import capture_residuals, capture_with_norms, stream_tokens
from emis_interp.chat import EncodedChat
from emis_interp.errors import DataError
from emis_interp.models import ChatModel
from emis_interp.running_means import capture_group_means

CHATS = [EncodedChat((7, 9, 10, 20, 60, 30, 1), 2, 6), EncodedChat((9, 4, 1), 1, 2), EncodedChat((5, 9, 8, 4, 1), 3, 4)]


def tokens_of(chat_model: ChatModel, chat: EncodedChat) -> Tensor:
    """Output of block 0 at every token, from transformers."""
    with torch.no_grad():
        return chat_model.model(torch.tensor([chat.input_ids]), output_hidden_states=True).hidden_states[1][0]


@pytest.mark.parametrize("side", ["left", "right"])
def test_each_position_reads_its_tokens_and_no_padding(tiny: ChatModel, side: PaddingSide) -> None:
    tokens = [tokens_of(tiny, chat) for chat in CHATS]
    explicit = [[0, 6], [2], [1, 4]]
    expected = {
        "response_mean": [tokens[0][2:6].mean(0), tokens[1][1], tokens[2][3]],
        "last_prompt": [tokens[0][1], tokens[1][0], tokens[2][2]],
        "response_last": [tokens[0][5], tokens[1][1], tokens[2][3]],
        "all": [rows.mean(0) for rows in tokens],
    }
    for position, means in expected.items():
        captured = capture_residuals(tiny, CHATS, [0], position, padding_side=side)
        torch.testing.assert_close(captured[:, 0], torch.stack(means))
    captured, norms = capture_with_norms(tiny, CHATS, [0], explicit, padding_side=side)
    chosen = [rows[indices] for rows, indices in zip(tokens, explicit, strict=True)]
    torch.testing.assert_close(captured[:, 0], torch.stack([rows.mean(0) for rows in chosen]))
    torch.testing.assert_close(norms[:, 0], torch.stack([rows.norm(dim=-1).mean() for rows in chosen]))


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ([[0], [1]], "2 sets of token indices for 3 texts"),
        ([[0], [3], [1]], "text 1: token indices .3. do not fit its 3 tokens"),
        ([[0], [1], [-1]], "text 2: token indices .-1."),
        ([[], [1], [1]], "text 0: token indices"),
        ([[2, 2], [1], [1]], "give at least one, each once, between 0 and 6"),
    ],
)
def test_token_sets_that_do_not_fit_are_refused_in_words(tiny: ChatModel, sets: list[list[int]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        capture_residuals(tiny, CHATS, position=sets)


def test_streamed_tokens_are_the_single_tokens_in_the_dtype_of_the_model() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        chat_model = family("qwen3", dtype)
        found = dict(stream_tokens(chat_model, CHATS, [1, 0], "all", max_batch_tokens=10, hook_point="resid_post"))
        for i, chat in enumerate(CHATS):
            assert found[i].shape == (len(chat), 2, 32)
            assert found[i].dtype == dtype
        if dtype == torch.float32:
            torch.testing.assert_close(found[0][:, 1], tokens_of(chat_model, CHATS[0]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("window", [1, 2, 100])
def test_sample_and_token_weighted_means_of_groups_are_the_hand_made_ones(tiny: ChatModel, window: int) -> None:
    tokens = [tokens_of(tiny, chat) for chat in CHATS]
    grouped = list(zip(["a", "a", "b"], CHATS, strict=True))
    by_text = capture_group_means(tiny, iter(grouped), [0], window=window)
    by_token = capture_group_means(tiny, iter(grouped), [0], weighting="token", window=window)
    answers = [tokens[0][2:6].double(), tokens[1][1:2].double()]
    torch.testing.assert_close(
        by_text["a"].mean[0], (answers[0].mean(0) + answers[1].mean(0)) / 2, rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(by_token["a"].mean[0], torch.cat(answers).mean(0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(by_token["b"].mean[0], tokens[2][3].double(), rtol=1e-5, atol=1e-6)
    assert (by_token["a"].n_texts, by_token["a"].n_tokens, by_token["b"].n_texts) == (2, 5, 1)
    assert by_token["a"].mean.dtype == torch.float64


def test_running_sums_do_not_lose_small_texts_behind_large_ones(tiny: ChatModel) -> None:
    """4,000 equal texts have the mean of one, to float32's rounding of that one."""
    one = capture_residuals(tiny, CHATS[1:2])[0].double()
    many = capture_group_means(tiny, (("a", CHATS[1]) for _ in range(4000)), max_batch_tokens=3000)
    torch.testing.assert_close(many["a"].mean, one, rtol=1e-5, atol=1e-6)
    assert many["a"].n_texts == 4000


def test_bad_requests_for_running_means_are_refused(tiny: ChatModel) -> None:
    with pytest.raises(DataError, match="unknown weighting `tokens`; did you mean `token`"):
        capture_group_means(tiny, [("a", CHATS[0])], weighting="tokens")  # pyright: ignore[reportArgumentType]
    with pytest.raises(DataError, match="no texts"):
        capture_group_means(tiny, [])
