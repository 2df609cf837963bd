"""Items with a certain answer: what the rules make, how a model passes them, and what an intervention changes."""

import itertools
import math
import re
from collections import Counter

import numpy as np
import pytest
import torch

from emis_interp.directions import Direction
from emis_interp.errors import DataError
from emis_interp.models.chat import encode_chats
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.capability import fork, perplexity, right_is_likelier
from emis_interp.passes.interventions import ablate, next_token_logprobs, steer
from emis_interp.passes.likelihood import mean_logprobs
from emis_interp.passes.sweeps import AblateCell, SteerCell
from emis_interp.texts.capability_items import RULES, CapabilityItem, capability_items, counts

UNTOUCHED = AblateCell(torch.zeros(32))


def test_there_are_enough_items_of_every_kind_each_once_and_the_same_for_the_same_seed() -> None:
    items = capability_items()
    assert len(items) >= 500 and len({item.prompt for item in items}) == len(items)
    assert counts(items) == {kind: n for kind, (n, _) in RULES.items()}
    assert capability_items() == items and capability_items(seed=1) != items
    assert all(item.right != item.wrong for item in items)


@pytest.mark.parametrize("seed", [0, 1])
def test_answers_of_sums_comparisons_and_sequences_are_right_and_the_others_wrong(seed: int) -> None:
    for item in capability_items(seed):
        numbers = [int(digits) for digits in re.findall(r"\d+", item.prompt)]
        if item.kind in ("addition", "subtraction", "multiplication"):
            a, b = numbers
            truth = {"addition": a + b, "subtraction": a - b, "multiplication": a * b}[item.kind]
        elif item.kind == "comparison":
            truth = max(numbers) if "larger" in item.prompt else min(numbers)
        elif item.kind == "counting":
            steps = {b - a for a, b in itertools.pairwise(numbers)}
            assert len(steps) == 1
            truth = numbers[-1] + steps.pop()
        elif item.kind == "copying":
            words = item.prompt.split()
            assert item.right == words[len(words) - 5] and item.wrong in words[:5]
            continue
        else:
            continue
        assert (int(item.right), len(item.right)) == (truth, len(item.wrong)) and int(item.wrong) != truth


def test_words_are_wrong_answers_about_as_often_as_right_ones() -> None:
    """Otherwise a model that merely likes some words would pass."""
    items = [item for item in capability_items() if item.kind in ("capital", "opposite", "category")]
    right, wrong = (Counter(getattr(item, side) for item in items) for side in ("right", "wrong"))
    assert set(wrong) <= set(right) and sum(min(right[word], wrong[word]) for word in right) > 0.5 * len(items)
    agreement = [item.right for item in capability_items() if item.kind == "agreement"]
    assert 0.35 < agreement.count("is") / len(agreement) < 0.65


def test_an_item_is_passed_where_the_right_token_is_likelier_at_the_first_difference(tiny: ChatModel) -> None:
    items = capability_items()[::25]
    passed = right_is_likelier(tiny, [UNTOUCHED], items, max_batch_tokens=64)[0]
    for item, own in zip(items, passed, strict=True):
        prefix, right, wrong = fork(tiny.tokenizer, item)
        written = tiny.tokenizer(f"{item.prompt} {item.right}.")["input_ids"]
        assert tuple(written[: len(prefix) + 1]) == (*prefix, right)
        logprobs = next_token_logprobs(tiny, [prefix])[0]
        assert own == bool(logprobs[right] > logprobs[wrong])
    swapped = [item.model_copy(update={"right": item.wrong, "wrong": item.right}) for item in items]
    np.testing.assert_array_equal(right_is_likelier(tiny, [UNTOUCHED], swapped)[0], ~passed)


def test_cells_that_share_batches_pass_what_they_pass_alone(tiny: ChatModel) -> None:
    items = capability_items()[::12]
    generator = torch.Generator().manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(3, tiny.d_model, generator=generator), dim=-1)
    pushed = Direction(vectors[0], 0, 1.0, 50.0)
    cells = [UNTOUCHED, *(AblateCell(vector) for vector in vectors), SteerCell(pushed, 3.0)]
    together = right_is_likelier(tiny, cells, items, max_batch_tokens=300, max_cells=3)
    assert together.shape == (5, len(items)) and len({tuple(row) for row in together}) > 1
    for cell, row in zip(cells, together, strict=True):
        np.testing.assert_array_equal(right_is_likelier(tiny, [cell], items)[0], row)
    with ablate(tiny, Direction(vectors[1], 0, 1.0, 1.0)):
        np.testing.assert_array_equal(right_is_likelier(tiny, [UNTOUCHED], items)[0], together[2])


def test_words_that_a_tokenizer_writes_alike_and_an_empty_set_are_refused(tiny: ChatModel) -> None:
    alike = CapabilityItem(kind="x", prompt="Say", right="a", wrong="a")
    with pytest.raises(DataError, match="does not tell 'a' from 'a' behind 'Say'"):
        right_is_likelier(tiny, [UNTOUCHED], [alike])
    with pytest.raises(DataError, match="no items"):
        right_is_likelier(tiny, [UNTOUCHED], [])


def test_a_steered_model_is_perplexed_and_whole_again_afterwards(tiny: ChatModel) -> None:
    texts = encode_chats(tiny.tokenizer, [("Hi?", "Hello there."), ("Why?", "Because.")])
    before = perplexity(mean_logprobs(tiny, texts))
    direction = Direction(torch.nn.functional.normalize(torch.ones(tiny.d_model), dim=0), 0, 1.0, 50.0)
    with steer(tiny, direction, 5.0):
        assert perplexity(mean_logprobs(tiny, texts)) != before
    assert perplexity(mean_logprobs(tiny, texts)) == before and math.isfinite(before) and before > 1


@pytest.mark.slow
def test_the_embedded_model_is_neither_at_chance_nor_at_the_ceiling(embedded: ChatModel) -> None:
    passed = right_is_likelier(embedded, [AblateCell(torch.zeros(embedded.d_model))], capability_items())[0]
    assert 0.65 < passed.mean() < 0.97
