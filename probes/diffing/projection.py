"""Turns a direction into the cross-entropies of an organism whose difference from base along it is taken out.

The organism's residual h at one layer becomes h + ((h_base - h) . v) v at every token, h_base being base's own residual at that token:
along v the organism is base, across it nothing changes.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from emis_interp.models.chat import EncodedChat
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.lora_updates import LoraUpdate
from emis_interp.passes.interventions import Patch, apply
from emis_interp.passes.likelihood import mean_logprobs
from emis_interp.passes.low_rank import adding
from emis_interp.stats.interval import mean_interval
from emis_interp.stats.permutation import null_p
from probes.diffing.differences import residuals

Vectors = Mapping[str, Float[Tensor, "n d_model"]]
WHOLE = "whole difference"


class ProjectedOrganism:
    """Cross-entropies of texts in the organism with its difference from base taken out along vectors.

    The residuals of both models are read once; everything up to the layer is the same under every vector.
    """

    def __init__(
        self,
        base: ChatModel,
        updates: Sequence[LoraUpdate],
        chats: Sequence[EncodedChat],
        *,
        layer: int,
        max_batch_tokens: int = 2048,
    ) -> None:
        self.base, self.updates, self.chats = base, updates, chats
        self.layer, self.max_batch_tokens = layer, max_batch_tokens
        plain = residuals(base, chats, layer, max_batch_tokens=max_batch_tokens)
        own = residuals(base, chats, layer, updates=updates, max_batch_tokens=max_batch_tokens)
        self._own, self._gap = _padded(own), _padded(plain) - _padded(own)

    def cross_entropies(self, vector: Float[Tensor, "d_model"] | None = None) -> Float[np.ndarray, "n_texts"]:
        """Mean over the answer tokens of each text, nats; without a vector the organism's own."""
        if vector is None:
            with adding(self.base, self.updates):
                return -mean_logprobs(self.base, self.chats, self.max_batch_tokens)
        axis = vector / vector.norm()
        return self._patched(self._own + (self._gap @ axis)[..., None] * axis)

    def without_any(self) -> Float[np.ndarray, "n_texts"]:
        """With base's residual put in whole."""
        return self._patched(self._own + self._gap)

    def _patched(self, values: Float[Tensor, "n_texts position d_model"]) -> Float[np.ndarray, "n_texts"]:
        patch = Patch(self.layer, tuple(range(values.shape[1])), values)
        with adding(self.base, self.updates), apply(self.base, patch):
            return -mean_logprobs(self.base, self.chats, self.max_batch_tokens)


def projected(
    organism: ProjectedOrganism,
    n_own: int,
    *,
    named: Mapping[str, Float[Tensor, "d_model"]],
    nulls: Vectors,
    advance: Callable[[int], None] = lambda n: None,
) -> dict[str, Any]:
    """Changes of cross-entropy, nats per token; positive: the organism tells the text less well without the difference.

    Args:
        organism: its first `n_own` texts are finetune-like, the others unrelated.
        named: the organism's own mean difference first, then any others (those of controls).
        nulls: kind -> random vectors.

    Returns:
        `cells`: for every named vector, and for the whole difference, the change on finetune-like and on unrelated text with intervals over
        texts, `beyond`, the first minus the second, and `first_minus`, what the first vector does to finetune-like text minus what this one
        does, paired by text; `nulls`: for the first vector p of each of the three among the random ones of each
        kind, two-sided about 0.
    """
    before = organism.cross_entropies()

    def changes(after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        gap = after - before
        return gap[:n_own], gap[n_own:]

    cells, first_own = [], None
    for name, vector in named.items():
        own, other = changes(organism.cross_entropies(vector))
        first_own = own if first_own is None else first_own
        cells.append({**_cell(name, own, other), "first_minus": mean_interval(first_own - own).as_json()})
        advance(1)
    cells.append(_cell(WHOLE, *changes(organism.without_any())))
    advance(1)
    drawn: dict[str, list[dict[str, float]]] = {}
    for kind, vectors in nulls.items():
        drawn[kind] = []
        for vector in vectors:
            drawn[kind].append(_values(_cell(kind, *changes(organism.cross_entropies(vector)))))
            advance(1)
    first = _values(cells[0])
    beside = {
        figure: {
            kind: {
                "mean": float(np.mean(found := [row[figure] for row in rows])),
                "low": min(found),
                "high": max(found),
                **null_p(found, value, "both").as_json(),
            }
            for kind, rows in drawn.items()
        }
        for figure, value in first.items()
    }
    return {
        "n_finetune_like": n_own,
        "n_unrelated": len(organism.chats) - n_own,
        "before": {
            "finetune_like": float(before[:n_own].mean()),
            "unrelated": float(before[n_own:].mean()),
        },
        "cells": cells,
        "nulls": beside,
    }


def _cell(name: str, own: np.ndarray, other: np.ndarray) -> dict[str, Any]:
    return {
        "along": name,
        "finetune_like": mean_interval(own).as_json(),
        "unrelated": mean_interval(other).as_json(),
        "beyond": float(own.mean() - other.mean()),
    }


def _values(cell: Mapping[str, Any]) -> dict[str, float]:
    return {
        "finetune_like": cell["finetune_like"]["value"],
        "unrelated": cell["unrelated"]["value"],
        "beyond": cell["beyond"],
    }


def _padded(rows: Sequence[Float[Tensor, "n_tokens d_model"]]) -> Float[Tensor, "n_texts position d_model"]:
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
