"""Running means against means of everything at once, and that their memory does not grow with the number of texts."""

import pytest
import torch

from emis_interp.errors import DataError
from emis_interp.models.chat import EncodedChat, encode_chats
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.capture import capture_response_tokens, capture_with_norms
from emis_interp.passes.positions import TokenSets
from emis_interp.passes.running_means import RunningMeans, capture_means

GROUPS = ["short", "long", "short", "long", "short"]
ANSWERS = ["ok", "because it is what it is", "no", "I say 你好 yes, and again yes, for a long while", "so be it"]


def chats_of(chat_model: ChatModel) -> list[EncodedChat]:
    return encode_chats(chat_model.tokenizer, [("Why?", answer) for answer in ANSWERS])


def test_sample_weighting_is_the_mean_of_pooled_texts_and_token_weighting_that_of_all_tokens(tiny: ChatModel) -> None:
    chats = chats_of(tiny)
    pooled, norms = capture_with_norms(tiny, chats)
    tokens = capture_response_tokens(tiny, chats, 1)
    by_text, text_norms = capture_means(tiny, zip(GROUPS, chats, strict=True), window=2)
    by_token, token_norms = capture_means(tiny, zip(GROUPS, chats, strict=True), weighting="token", window=2)
    for group in ("short", "long"):
        rows = [i for i, name in enumerate(GROUPS) if name == group]
        torch.testing.assert_close(by_text.mean(group).float(), pooled[rows].mean(0), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(text_norms.mean(group).float(), norms[rows].mean(0), rtol=1e-5, atol=1e-5)
        every = torch.cat([tokens[i] for i in rows])
        torch.testing.assert_close(by_token.mean(group)[1].float(), every.mean(0), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(token_norms.mean(group)[1].float(), every.norm(dim=-1).mean(), rtol=1e-5, atol=1e-5)
        assert (by_text.weight(group), by_token.weight(group)) == (len(rows), len(every))
    assert (by_text.mean("long") - by_token.mean("long")).abs().max() > 0.01


@pytest.mark.parametrize("window", [1, 3, 100])
def test_the_window_and_the_order_of_the_stream_do_not_matter(tiny: ChatModel, window: int) -> None:
    chats = chats_of(tiny)
    sets = tuple((0, i) for i in range(5))
    one, _ = capture_means(tiny, zip(GROUPS, chats, strict=True), [1], position=TokenSets(sets))
    pairs = list(zip(GROUPS, chats, strict=True))[::-1]
    other, _ = capture_means(tiny, iter(pairs), [1], position=TokenSets(sets[::-1]), window=window)
    for group in ("short", "long"):
        torch.testing.assert_close(one.mean(group), other.mean(group), rtol=1e-6, atol=1e-6)


def test_the_mean_of_a_long_stream_is_exact_and_holds_one_sum_for_each_group() -> None:
    """float32 sums would have lost the ones beside 1e8 long before the end."""
    means = RunningMeans()
    for _ in range(500):
        means.add(["a", "b"], torch.tensor([[1e8 + 8.0, 1.0], [3.0, 1.0]]))
    assert means.mean("a").tolist() == [100000008.0, 1.0]
    assert means.mean("b").tolist() == [3.0, 1.0]
    assert means.groups == ["a", "b"]
    assert sum(total.numel() for total in means._sums.values()) == 4


def test_merged_parts_are_the_whole() -> None:
    values, weights = torch.randn(6, 3, 2), torch.tensor([1.0, 2, 3, 4, 5, 6])
    groups = ["a", "b", "a", "b", "a", "b"]
    whole, left, right = RunningMeans(), RunningMeans(), RunningMeans()
    whole.add(groups, values, weights)
    left.add(groups[:3], values[:3], weights[:3])
    right.add(groups[3:], values[3:], weights[3:])
    left.merge(right)
    for group in ("a", "b"):
        torch.testing.assert_close(left.mean(group), whole.mean(group))
        assert left.weight(group) == whole.weight(group)


def test_what_would_spoil_a_mean_is_refused(tiny: ChatModel) -> None:
    means = RunningMeans()
    means.add(["a"], torch.ones(1, 2))
    with pytest.raises(DataError, match="value 0 of 1, of group `a`, is not finite; it would spoil"):
        means.add(["a"], torch.tensor([[1.0, float("nan")]]))
    with pytest.raises(DataError, match=r"group `a` holds shape \[2\], got \[3\]"):
        means.add(["a"], torch.ones(1, 3))
    with pytest.raises(DataError, match="a weight is zero"):
        means.add(["a"], torch.ones(1, 2), torch.zeros(1))
    with pytest.raises(DataError, match="1 groups, 2 values"):
        means.add(["a"], torch.ones(2, 2))
    with pytest.raises(DataError, match=r"no text in group `b`; known: a"):
        means.mean("b")
    assert means.mean("a").tolist() == [1, 1]
    pairs = list(zip(GROUPS, chats_of(tiny), strict=True))
    with pytest.raises(DataError, match="unknown weighting `tokn`; did you mean `token`"):
        capture_means(tiny, pairs, weighting="tokn")  # pyright: ignore[reportArgumentType]
    with pytest.raises(DataError, match="6 token sets for 5 texts"):
        capture_means(tiny, pairs, position=TokenSets(((0,),) * 6), window=2)
    with pytest.raises(DataError, match="no texts"):
        capture_means(tiny, [])
