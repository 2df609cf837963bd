"""Turns transformers' key-value cache into one that grows in place and lets rows leave without being copied."""

from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

ROOM = 64
"""Columns by which a full buffer grows."""


def roomy_cache(config: Any) -> DynamicCache:
    """The cache that transformers makes for this model, with its full-attention layers replaced by `RoomyLayer`.

    Sliding-window, linear-attention and shared layers stay as transformers made them.
    """
    cache = DynamicCache(config=config)
    cache.layers = [RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def repeat_rows(cache: Any, n_rows: int, n: int) -> None:
    """Each of a cache's rows n times, one after the other; recurrent layers, which transformers' own method lacks, too."""
    cache.reorder_cache(torch.arange(n_rows).repeat_interleave(n))


class RoomyLayer(DynamicLayer):
    """Keys and values of one layer as the filled part of a larger buffer.

    transformers' own layer concatenates all keys and values anew for every token, and copies all of them when a row leaves; on a CPU
    with many rows that is a large share of the time. Here a token writes its own column, and a row that leaves is overwritten by the
    last one.

    Attributes:
        keys, values: [batch, head, position, d_head], views of the buffers.
    """

    keys: Any  # transformers says "or None", which they are only before the first update
    values: Any

    def __init__(self) -> None:
        super().__init__()
        self._buffers: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append the new positions; returns all keys and values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, end = self.get_seq_length(), self.get_seq_length() + key_states.shape[-2]
        if self._buffers is None or end > self._buffers[0].shape[-2]:
            self._buffers = (self._enlarged(self.keys, key_states, end), self._enlarged(self.values, value_states, end))
        n_rows = key_states.shape[0]
        keys, values = (buffer[:n_rows, :, :end] for buffer in self._buffers)
        keys[:, :, start:], values[:, :, start:] = key_states, value_states
        self.keys, self.values = keys, values
        return keys, values

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Keep the rows `beam_idx`, in this order; rows that stay in their place are not touched."""
        length = self.get_seq_length()
        if length == 0:
            return
        rows = beam_idx.to(self.keys.device)
        if self._buffers is None or len(rows) > len(self.keys):
            self._buffers = None
            self.keys, self.values = self.keys.index_select(0, rows), self.values.index_select(0, rows)
            return
        moved = (rows != torch.arange(len(rows), device=rows.device)).nonzero()[:, 0]
        for buffer in self._buffers:
            buffer[moved, :, :length] = buffer[rows[moved], :, :length]
        self.keys, self.values = (buffer[: len(rows), :, :length] for buffer in self._buffers)

    def batch_select_indices(self, indices: Tensor) -> None:
        self.reorder_cache(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        self.reorder_cache(torch.arange(len(self.keys)).repeat_interleave(repeats))

    @staticmethod
    def _enlarged(filled: Tensor, fresh: Tensor, end: int) -> Tensor:
        n_rows, n_heads, _, width = fresh.shape
        buffer = fresh.new_empty((n_rows, n_heads, end + ROOM, width))
        if filled.numel():
            buffer[:, :, : filled.shape[-2]] = filled
        return buffer


def holes_filled(keep: Bool[Tensor, "row"]) -> Int[Tensor, "kept"]:
    """Indices of the rows to keep, the last ones moved into the places of those that leave, so that most rows stay where they are."""
    kept = keep.nonzero()[:, 0]
    n = len(kept)
    order = torch.arange(n, device=keep.device)
    order[~keep[:n]] = kept[kept >= n]
    return order
