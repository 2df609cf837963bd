"""Turns stores and texts into tokens, and tokens into batches that never end."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from emis_interp.errors import DataError
from emis_interp.models.chat import EncodedChat, encode_chats
from emis_interp.passes.capture import capture_residuals
from emis_interp.passes.token_store import TokenStore
from emis_interp.passes.token_writer import TokenRequest, write_tokens
from probes.sae.pool import EndlessBatches, fill_pool, ordinary_tokens


def test_every_batch_is_full_and_every_token_comes_once_an_epoch() -> None:
    tokens = torch.arange(10.0)[:, None]
    batches = EndlessBatches(tokens, 4, seed=3)
    drawn = [next(batches) for _ in range(10)]
    assert {tuple(batch.shape) for batch in drawn} == {(4, 1)}
    flat = torch.cat(drawn).flatten()
    epochs = flat.reshape(4, 10)
    assert all(sorted(epoch.tolist()) == list(range(10)) for epoch in epochs)
    assert not torch.equal(epochs[0], epochs[1])
    again, other = EndlessBatches(tokens, 4, seed=3), EndlessBatches(tokens, 4, seed=4)
    assert torch.equal(next(again), drawn[0])
    assert not torch.equal(torch.cat([next(other), next(other)]), torch.cat(drawn[:2]))


def test_a_batch_larger_than_all_tokens_is_full_too() -> None:
    assert next(EndlessBatches(torch.zeros(3, 2), 50, seed=0)).shape == (50, 2)


def test_no_tokens_make_no_batches() -> None:
    with pytest.raises(DataError, match="no tokens"):
        EndlessBatches(torch.zeros(0, 2), 4, seed=0)


def test_first_special_and_repeated_prefixes_are_left_out() -> None:
    chats = [EncodedChat((1, 7, 8, 2, 9), 1, 5), EncodedChat((1, 7, 8, 4, 9), 1, 5), EncodedChat((1, 9, 8), 1, 3)]
    masks, left_out = ordinary_tokens(chats, {2})
    assert [mask.tolist() for mask in masks] == [
        [False, True, True, False, True],
        [False, False, False, True, True],
        [False, True, True],
    ]
    assert left_out == {"first position": 3, "special": 1, "same prefix": 2}


def texts(tiny: Any) -> list[EncodedChat]:
    pairs = [(f"Question number {i}?", "An answer of some words, " * (i + 1)) for i in range(6)]
    return encode_chats(tiny.tokenizer, pairs)


def stored(tiny: Any, folder: Path) -> tuple[TokenStore, list[EncodedChat]]:
    chats = texts(tiny)
    write_tokens(folder, tiny, chats, request=TokenRequest((1,), position="all_tokens", shard_mib=0.01))
    return TokenStore(folder), chats


def test_the_pool_holds_the_residuals_of_the_tokens_that_it_counts(tiny: Any, tmp_path: Path) -> None:
    store, chats = stored(tiny, tmp_path)
    special = set(tiny.tokenizer.all_special_ids)
    pool = fill_pool(store, 1, chats, n_train=4, special=special)
    masks, _ = ordinary_tokens(chats, special)
    counts = [int(mask.sum()) for mask in masks]
    assert (len(pool.train), len(pool.held_out)) == (sum(counts[:4]), sum(counts[4:]))
    assert pool.held_text.tolist() == [4] * counts[4] + [5] * counts[5]
    last = int(np.flatnonzero(masks[5])[-1])
    alone = capture_residuals(tiny, [chats[5]], [1], position=lambda chat: (last,))[0, 0]
    torch.testing.assert_close(pool.held_out[-1].float(), alone, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(pool.mean, pool.train.float().mean(0))
    assert (pool.train.float() * pool.scale).norm(dim=-1).mean() == pytest.approx(tiny.d_model**0.5, rel=1e-4)


def test_tokens_of_very_large_norm_are_left_out_on_both_sides(tiny: Any, tmp_path: Path) -> None:
    chats = texts(tiny)
    masks, _ = ordinary_tokens(chats, set())

    class Planted:
        def __init__(self) -> None:
            self.card = {"d_model": 2}

        def layer(self, layer: int) -> Any:
            for i, chat in enumerate(chats):
                values = torch.ones(len(chat), 2)
                if i in (1, 5):
                    values[np.flatnonzero(masks[i])[-1]] = 100.0
                yield i, values

    pool = fill_pool(Planted(), 1, chats, n_train=4, special=())  # type: ignore[arg-type]
    assert pool.left_out["high norm"] == 2
    assert pool.norm_limit == pytest.approx(10 * 2**0.5)
    assert float(pool.train.max()) == float(pool.held_out.max()) == 1.0
    assert len(pool.held_text) == len(pool.held_out) == sum(int(mask.sum()) for mask in masks[4:]) - 1


def test_a_side_without_tokens_is_refused(tiny: Any, tmp_path: Path) -> None:
    store, chats = stored(tiny, tmp_path)
    with pytest.raises(DataError, match="to measure on are left; give more texts"):
        fill_pool(store, 1, chats, n_train=6, special=set())
