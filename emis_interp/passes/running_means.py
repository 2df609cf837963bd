"""Turns a stream of texts into mean activations of groups, in memory that does not grow with the number of texts.

Sums are float64. Sample-weighted gives every text the same weight, token-weighted every token; the two differ when lengths do.
"""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from emis_interp.errors import DataError, did_you_mean
from emis_interp.models.chat import EncodedChat
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.finite import check_rows
from emis_interp.passes.capture import Progress, capture_batches, mean_and_norm
from emis_interp.passes.positions import Position, TokenSets

Weighting = Literal["sample", "token"]


class RunningMeans:
    """Weighted means of equally shaped tensors by group, kept as sums."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._weights: dict[str, float] = {}

    @property
    def groups(self) -> list[str]:
        """Names of the groups seen so far, in order of appearance."""
        return list(self._sums)

    def add(
        self, groups: Sequence[str], values: Float[Tensor, "n ..."], weights: Float[Tensor, " n"] | None = None
    ) -> None:
        """Add `values[i]` to the group `groups[i]` with `weights[i]` (1 when left out).

        Raises:
            DataError: lengths differ, a value is not finite, a weight is not positive, or the shape is not that of earlier values.
        """
        weights = torch.ones(len(groups), dtype=torch.float64) if weights is None else weights.double()
        if not len(groups) == len(values) == len(weights):
            raise DataError(
                f"{len(groups)} groups, {len(values)} values and {len(weights)} weights; give one of each for each text"
            )
        if not (weights > 0).all() or not weights.isfinite().all():
            raise DataError("a weight is zero, negative or not finite; leave such texts out")
        if not values.isfinite().all():
            bad = int((~values.isfinite()).reshape(len(values), -1).any(1).nonzero()[0])
            raise DataError(
                f"value {bad} of {len(values)}, of group `{groups[bad]}`, is not finite; it would spoil the mean of its group, look for it "
                "in the model's output"
            )
        for name in dict.fromkeys(groups):
            rows = torch.tensor([i for i, group in enumerate(groups) if group == name])
            added = torch.tensordot(weights[rows], values[rows].double().cpu(), dims=1)
            if name in self._sums and self._sums[name].shape != added.shape:
                raise DataError(f"group `{name}` holds shape {list(self._sums[name].shape)}, got {list(added.shape)}")
            self._sums[name] = self._sums[name] + added if name in self._sums else added
            self._weights[name] = self._weights.get(name, 0.0) + float(weights[rows].sum())

    def mean(self, group: str) -> Float[Tensor, "..."]:
        """The mean of a group, float64.

        Raises:
            DataError: nothing was added to the group.
        """
        return self._sums[self._known(group)] / self._weights[group]

    def weight(self, group: str) -> float:
        """Total weight of a group: its number of texts, or of tokens."""
        return self._weights[self._known(group)]

    def merge(self, other: "RunningMeans") -> None:
        """Add what another process or another part of the texts has summed."""
        for name in other.groups:
            self.add([name], other.mean(name)[None], torch.tensor([other.weight(name)]))

    def _known(self, group: str) -> str:
        if group not in self._sums:
            raise DataError(f"no text in group `{group}`{did_you_mean(group, self._sums)}")
        return group


def capture_means(
    chat_model: ChatModel,
    chats: Iterable[tuple[str, EncodedChat]],
    layers: Sequence[int] | None = None,
    *,
    position: Position = "response_mean",
    weighting: Weighting = "sample",
    max_batch_tokens: int = 1024,
    hook_point: str = "resid_post",
    window: int = 512,
    progress: Progress | None = None,
) -> tuple[RunningMeans, RunningMeans]:
    """Mean vectors `[n_layers, d_model]` and mean token norms `[n_layers]` of each group of (group, text) pairs.

    Args:
        chats: any iterable, read once; `window` texts at a time are held and sorted by length.
        position: as for `capture_with_norms`; `TokenSets` hold one set for each text of the whole stream.
        weighting: `sample` (each text's mean counts once) or `token` (each of its tokens does).

    Raises:
        ModelError, DataError: as `capture_with_norms`; an unknown weighting; a residual that is not finite, with its text and layer.
    """
    if weighting not in get_args(Weighting):
        raise DataError(f"unknown weighting `{weighting}`{did_you_mean(weighting, get_args(Weighting))}")
    vectors, norms = RunningMeans(), RunningMeans()
    stream, first = iter(chats), 0
    while (part := list(islice(stream, window))) or first == 0:
        here = position
        if isinstance(position, TokenSets):
            here = TokenSets(position.indices[first : first + len(part)])
        runs = capture_batches(
            chat_model,
            [chat for _, chat in part],
            layers,
            position=here,
            reduce_for=mean_and_norm,
            max_batch_tokens=max_batch_tokens,
            hook_point=hook_point,
        )
        for rows, n_tokens, found in runs:
            groups = [part[i][0] for i in rows]
            sizes = torch.stack([norm.cpu() for _, norm in found], dim=1)
            check_rows(
                chat_model,
                sizes,
                lambda j, part=part, rows=rows: part[rows[j]][1].input_ids,
                rows=[first + i for i in rows],
                what="a residual",
            )
            weights = torch.tensor(n_tokens, dtype=torch.float64) if weighting == "token" else None
            vectors.add(groups, torch.stack([vector.cpu() for vector, _ in found], dim=1), weights)
            norms.add(groups, sizes, weights)
            if progress:
                progress(len(rows))
        first += len(part)
    if isinstance(position, TokenSets) and len(position.indices) != first:
        raise DataError(f"{len(position.indices)} token sets for {first} texts; give one set for each text")
    return vectors, norms
