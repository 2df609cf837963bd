"""Turns a model under interventions into what they cost it: items with a certain answer that it passes, and perplexity of harmless text."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from emis_interp.errors import DataError
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.batching import length_batches
from emis_interp.passes.interventions import next_token_logprobs
from emis_interp.passes.sweeps import Cell, under
from emis_interp.texts.capability_items import CapabilityItem


def right_is_likelier(
    chat_model: ChatModel,
    cells: Sequence[Cell],
    items: Sequence[CapabilityItem],
    *,
    max_batch_tokens: int = 2048,
    max_cells: int = 8,
) -> Bool[np.ndarray, "n_cells n_items"]:
    """Whether each item is passed under each cell: at the first token in which the two words differ, the right one is likelier.

    The comparison of two words after one text by their first different token is the one-prefix method of BLiMP (Warstadt et al. 2020,
    section 4.1). Texts are plain, in no chat format; a tie is a failure.

    Raises:
        DataError: no items, or a tokenizer that writes both words of an item alike.
    """
    if not items:
        raise DataError("no items to pass; capability needs at least one")
    forks = [fork(chat_model.tokenizer, item) for item in items]
    passed = np.zeros((len(cells), len(items)), dtype=bool)
    for start in range(0, len(cells), max_cells):
        chunk = cells[start : start + max_cells]
        for rows in length_batches([len(chunk) * len(prefix) for prefix, _, _ in forks], max_batch_tokens):
            prefixes = [forks[row][0] for row in rows]
            with under(chat_model, chunk)(len(rows)):
                found = next_token_logprobs(chat_model, [prefix for _ in chunk for prefix in prefixes])
            right, wrong = (torch.tensor([forks[row][side] for row in rows]).repeat(len(chunk), 1) for side in (1, 2))
            places = torch.arange(len(found))
            likelier = found[places, right.flatten()] > found[places, wrong.flatten()]
            passed[start : start + len(chunk), rows] = likelier.reshape(len(chunk), -1).numpy()
    return passed


def fork(tokenizer: Any, item: CapabilityItem) -> tuple[tuple[int, ...], int, int]:
    """The tokens that both continuations share, and the right and the wrong token behind them.

    Raises:
        DataError: the continuations do not differ in this tokenizer.
    """
    right, wrong = (tuple(tokenizer(f"{item.prompt} {word}.")["input_ids"]) for word in (item.right, item.wrong))
    shared = next((i for i, pair in enumerate(zip(right, wrong, strict=False)) if pair[0] != pair[1]), None)
    if not shared:
        raise DataError(
            f"this tokenizer does not tell {item.right!r} from {item.wrong!r} behind {item.prompt!r}, so the item cannot be scored"
        )
    return right[:shared], right[shared], wrong[shared]


def perplexity(logprobs: Float[np.ndarray, "n_texts"]) -> float:
    """exp of minus the mean over texts of the mean log-probability per answer token (`likelihood.mean_logprobs`)."""
    return float(np.exp(-logprobs.mean()))
