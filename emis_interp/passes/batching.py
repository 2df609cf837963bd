"""Turns token sequences of many lengths into few padded batches, and says which positions are real."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

PaddingSide = Literal["left", "right"]


@dataclass(frozen=True)
class Batch:
    """Padded token ids; `offset[i]` is the column where row i begins (0 with right padding)."""

    input_ids: Int[Tensor, "batch position"]
    attention_mask: Int[Tensor, "batch position"]
    position_ids: Int[Tensor, "batch position"]
    offset: list[int]

    def model_inputs(self, device: torch.device) -> dict[str, Tensor]:
        return {
            "input_ids": self.input_ids.to(device),
            "attention_mask": self.attention_mask.to(device),
            "position_ids": self.position_ids.to(device),
        }


def length_batches(lengths: Sequence[int], max_tokens: int, max_rows: int | None = None) -> list[list[int]]:
    """Indices grouped so that rows x longest row <= max_tokens, longest first; a row above the limit gets its own batch.

    Sorting by length keeps padding small; longest first shows an out-of-memory error at once.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    batches: list[list[int]] = []
    for index in order:
        current = batches[-1] if batches else None
        fits = current is not None and (len(current) + 1) * lengths[current[0]] <= max_tokens
        if current is not None and fits and (max_rows is None or len(current) < max_rows):
            current.append(index)
        else:
            batches.append([index])
    return batches


def pad(rows: Sequence[Sequence[int]], pad_id: int, side: PaddingSide = "right") -> Batch:
    """Pad rows to the longest; position ids count real tokens only, so both sides give the same activations."""
    width = max(len(row) for row in rows)
    input_ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    attention_mask = torch.zeros((len(rows), width), dtype=torch.long)
    offset = [width - len(row) if side == "left" else 0 for row in rows]
    for i, row in enumerate(rows):
        columns = slice(offset[i], offset[i] + len(row))
        input_ids[i, columns] = torch.tensor(row, dtype=torch.long)
        attention_mask[i, columns] = 1
    position_ids = (attention_mask.cumsum(1) - 1).clamp(min=0)
    return Batch(input_ids, attention_mask, position_ids, offset)
