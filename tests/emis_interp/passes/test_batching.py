"""Every text once, the budget kept, and positions that ignore padding."""

import random

import pytest
import torch

from emis_interp.passes.batching import length_batches, pad


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("budget", "max_rows"), [(64, None), (64, 3), (7, None), (10_000, None)])
def test_every_index_comes_once_and_the_budget_is_kept(seed: int, budget: int, max_rows: int | None) -> None:
    generator = random.Random(seed)
    lengths = [generator.randint(1, 40) for _ in range(57)]
    batches = length_batches(lengths, budget, max_rows)
    assert sorted(index for batch in batches for index in batch) == list(range(57))
    for batch in batches:
        longest = max(lengths[index] for index in batch)
        assert len(batch) == 1 or len(batch) * longest <= budget
        assert max_rows is None or len(batch) <= max_rows
    longest_of_each = [max(lengths[index] for index in batch) for batch in batches]
    assert longest_of_each == sorted(longest_of_each, reverse=True)
    if budget == 10_000 and max_rows is None:
        assert len(batches) == 1


def test_no_texts_make_no_batches() -> None:
    assert length_batches([], 10) == []


@pytest.mark.parametrize(("side", "offset"), [("right", [0, 0]), ("left", [0, 2])])
def test_real_tokens_keep_their_positions_on_both_sides(side: str, offset: list[int]) -> None:
    rows = [[5, 6, 7], [8]]
    batch = pad(rows, 0, side)  # pyright: ignore[reportArgumentType]
    assert batch.offset == offset
    for i, row in enumerate(rows):
        columns = slice(offset[i], offset[i] + len(row))
        assert batch.input_ids[i, columns].tolist() == row
        assert batch.position_ids[i, columns].tolist() == list(range(len(row)))
        assert batch.attention_mask[i].sum() == len(row)
        assert batch.attention_mask[i, columns].all()
    assert batch.input_ids.sum() == 26  # nothing but padding elsewhere
    assert (batch.position_ids >= 0).all()
    assert all(value.device == torch.device("cpu") for value in batch.model_inputs(torch.device("cpu")).values())
